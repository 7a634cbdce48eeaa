"""docs/support.md matches docs/support.jsonl, and the tool measures a cell."""

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


@pytest.fixture
def record_file(tools, tmp_path, monkeypatch):
    """An empty record in place of the real one."""
    path = tmp_path / "support.jsonl"
    for module in tools[1:]:
        monkeypatch.setattr(module, "RECORD", path)
    monkeypatch.setattr(tools[1], "_git", lambda *arguments: "")
    return path


def measure(tools, monkeypatch, commit, *arguments):
    monkeypatch.setattr(tools[1], "_measured_commit", lambda: commit)
    monkeypatch.setattr(
        sys, "argv", ["support_matrix.py", "--networks", "fastnet_block", *arguments]
    )
    assert tools[1].main() == 0


@pytest.mark.parametrize(
    ("target", "precision", "differing"),
    [
        ("onnxruntime", "int8", False),
        ("onnxruntime", "fp32", True),
        pytest.param("tflite", "int8", False, marks=pytest.mark.slow),
        pytest.param("web", "int8", False, marks=pytest.mark.slow),
        pytest.param("host", "int8", False, marks=pytest.mark.slow),
    ],
)
def test_a_support_cell_is_measured(tools, record_file, monkeypatch, target, precision, differing):
    _, _, record = tools
    (plan,) = (
        p for p in record.list_plans() if (p.device.name, p.precision.name) == (target, precision)
    )
    if plan.device.list_missing_build_tools() or plan.device.list_missing_run_tools():
        pytest.skip(f"{target} does not build or run here")
    measure(tools, monkeypatch, "abc", "--targets", target, "--precisions", precision)
    (cell,) = record.read_record().values()
    assert cell.key == ("fastnet_block", target, precision)
    assert cell.commit == "abc"
    assert cell.bytes > 10_000
    assert cell.goldens == 2
    assert 0 <= cell.difference <= cell.allowed
    assert cell.values == 4
    assert bool(cell.differing) == differing


def test_cells_are_measured_again_only_on_request(tools, record_file, monkeypatch):
    _, _, record = tools
    arguments = ("--targets", "onnxruntime", "--precisions", "int8")
    measure(tools, monkeypatch, "old", *arguments)
    measure(tools, monkeypatch, "new", *arguments)
    assert [cell.commit for cell in record.read_record().values()] == ["old"]
    measure(tools, monkeypatch, "new", *arguments, "--again")
    assert [cell.commit for cell in record.read_record().values()] == ["new"]


def test_the_oldest_commit_comes_first(tools, monkeypatch):
    _, matrix, record = tools
    keys = [("net", "target", kind) for kind in ("a", "b", "c", "d")]
    commits = dict(zip(keys, ("third", "first", "second", ""), strict=True))
    cells = {key: record.Cell(*key, bytes=1, commit=commits[key]) for key in keys[:3]}
    monkeypatch.setattr(matrix, "_git", lambda *arguments: "third\nsecond\nfirst\n")
    assert matrix._in_order(cells, keys, "now", remeasure=False) == [keys[3]]
    assert matrix._in_order(cells, keys, "now", remeasure=True) == [
        keys[3],
        keys[1],
        keys[2],
        keys[0],
    ]


def test_every_cell_is_within_its_bound_and_names_its_commit(tools):
    for cell in tools[2].read_record().values():
        assert cell.difference <= cell.allowed
        assert not (cell.differing and not cell.allowed)
        assert (cell.bytes is None) == bool(cell.refused)
        assert cell.bytes is None or cell.bytes > 0
        assert cell.commit


def test_the_page_matches_the_record(tools, root):
    make, _, record = tools
    cells = record.read_record()
    page = make.make_page(cells)
    for key in record.list_keys():
        if key in cells and cells[key].bytes:
            assert f"{cells[key].bytes / 1000:,.0f} KB" in page
            assert f"({cells[key].commit})" in page
    command = [sys.executable, root / "tools/make_support.py", "--check"]
    subprocess.run(command, check=True)


def test_unmeasured_cells_are_shown_as_not_built(tools):
    """A new target, network or precision has no line yet."""
    make, _, record = tools
    cells = record.read_record()
    (key, *_) = cells
    assert make.make_page({}).count("| not built ") > 0.9 * len(cells)
    remaining_cells = {cell_key: cell for cell_key, cell in cells.items() if cell_key != key}
    assert (
        make.make_page(remaining_cells).count("not built")
        == make.make_page(cells).count("not built") + 1
    )
    # removed networks are omitted
    unknown_cell = replace(cells[key], network="nothing")
    assert make.make_page({**cells, unknown_cell.key: unknown_cell}) == make.make_page(cells)
    assert "nothing" not in record.format_record([*cells.values(), unknown_cell])
