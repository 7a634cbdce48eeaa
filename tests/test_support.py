"""docs/support.md: it has every network, target and precision, and some of it is measured again."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest


@pytest.fixture(scope="module")
def tools(root):
    sys.path.insert(0, str(root / "tools"))
    import make_support
    import support_matrix
    import support_record

    yield make_support, support_matrix, support_record
    sys.path.remove(str(root / "tools"))


def unlike(found, known):
    """Say what of a cell is another one; bytes and cosines may follow a processor's floats."""
    if known.bytes is None:
        return "nobody has built it"
    if abs(found.bytes - known.bytes) > 0.01 * known.bytes:
        return f"{found.bytes} bytes, and {known.bytes} in the record"
    same = ("refused", "goldens", "values", "allowed")
    if apart := [name for name in same if getattr(found, name) != getattr(known, name)]:
        return f"{apart[0]} is {getattr(found, apart[0])}"
    if found.difference > max(10 * known.difference, found.allowed / 10 if found.allowed else 0):
        return f"off by {found.difference}, and by {known.difference} in the record"
    if (found.cosine is None) != (known.cosine is None):
        return "a cosine is in one alone"
    far = found.cosine is not None and abs(found.cosine - known.cosine) > 1e-3
    return f"its cosine is {found.cosine}" if far else ""


SAMPLE = [
    ("fastnet_block", "onnxruntime", "fp32,int8"),
    ("fastnet_block", "tflite", "fp32,int8"),
    *(
        pytest.param(*each, marks=pytest.mark.slow)
        for each in (
            ("fastnet_block", "web", "int8"),
            ("fastnet_block", "host", "fp32,int8"),
            ("fastnet_block", "arm-a7", "int8"),
            ("fastnet_block", "ax620", "int8"),
            ("ddsnet-blood", "onnxruntime", "fp32,int8"),
            ("fastnet-lung", "tflite", "int8"),
        )
    ),
]


@pytest.mark.parametrize(("network", "target", "kinds"), SAMPLE)
def test_a_cell_is_what_is_measured(tools, network, target, kinds):
    _, matrix, record = tools
    known, one = record.read(), matrix.network(network)
    for kind in kinds.split(","):
        (plan,) = (p for p in record.plans() if (p.device.name, p.precision.name) == (target, kind))
        if plan.device.missing() or plan.device.absent():
            pytest.skip(f"{target} does not build or run here")
        (found,) = one.cells([plan])
        assert unlike(found, known[network, target, kind]) == ""
        # The check itself: what is another cell is seen.
        for change in ({"bytes": 2 * found.bytes}, {"values": 1}, {"cosine": -1.0}):
            assert unlike(replace(found, **change), found)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["squeezenet", "shufflenet_v2"])
def test_what_a_target_takes_it_takes(tools, network):
    _, matrix, record = tools
    known, one = record.read(), matrix.network(network)
    for plan in record.plans():
        taken = one.taken(plan)
        assert known[taken.key].refused == taken.refused


def test_everything_there_is_has_its_cell(tools):
    make, _, record = tools
    known = record.read()
    assert list(make.missing(known)) == []
    assert {key[0] for key in known} == set(record.networks())
    assert len(known) == len(record.networks()) * len(record.plans())


def test_what_is_built_agrees(tools):
    for cell in tools[2].read().values():
        assert cell.difference <= cell.allowed
        assert not (cell.differing and not cell.allowed)
        assert cell.bytes is None or cell.bytes > 0


def test_cells_of_older_kernels_say_so(tools, monkeypatch, tmp_path):
    make, matrix, record = tools
    built = next(c for c in record.read().values() if c.bytes and not c.older)
    own = tmp_path / "support.jsonl"
    own.write_text(record.text(replace(c, older=False) for c in record.read().values()))
    for module in (matrix, record):
        monkeypatch.setattr(module, "RECORD", own)
    assert "kernels: none." in make.page(record.read())
    words = ["--older", *("--networks", built.network), *("--targets", built.target)]
    monkeypatch.setattr(sys, "argv", ["support_matrix.py", *words, "--precisions", built.precision])
    assert matrix.main() == 0
    assert [c.key for c in record.read().values() if c.older] == [built.key]
    assert "kernels: 1." in make.page(record.read())
    assert f"{built.bytes / 1000:,.0f} KB*" in make.page(record.read())


def test_a_line_too_few_and_one_too_many_are_found(root, tmp_path):
    """By the tool as it is run, in a copy of the two files that it needs."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "docs").mkdir()
    for name in ("make_support.py", "support_record.py", "generated.py"):
        shutil.copy(root / "tools" / name, tmp_path / "tools")
    first, *rest = (root / "docs/support.jsonl").read_text().splitlines()
    strange = json.dumps({**json.loads(first), "network": "nothing"})
    (tmp_path / "docs/support.jsonl").write_text("\n".join([*rest, strange]) + "\n")
    command = [sys.executable, tmp_path / "tools/make_support.py", "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "not in the record" in ended.stdout
    assert "nothing" in ended.stdout
    assert "2 lines of support.jsonl are wrong" in ended.stdout
