"""Comparisons for ARM bundles: other runtimes with the same graph, and published times."""

import math
import shutil

import numpy as np
import pytest

from tcc.backends.arm.measure import instructions
from tcc.compiler import ops
from tcc.compiler.data.weights import initialize_random
from tcc.compiler.ir.graph import Graph, Input, Model, Output, make_node
from tcc.compiler.ir.types import TensorType
from tcc.testing.nets import build_gated


@pytest.fixture(autouse=True)
def _tools(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    monkeypatch.syspath_prepend(root / "tools/bench")


def make_network():
    """Return a convolution with two readers. One is fused with an activation."""
    source = Input("x", TensorType((3, 6, 5)))
    types, nodes = {"x": source.type}, []
    for name, op, inputs in (
        ("a", ops.Conv(4, (3, 3), padding=(1, 1, 1, 1)), ("x",)),
        ("r", ops.Relu(), ("a",)),
        ("d", ops.Conv(4, (3, 3), padding=(1, 1, 1, 1), groups=4), ("r",)),
        ("s", ops.Add(), ("d", "r")),
        ("g", ops.GlobalAvgPool(), ("s",)),
        ("f", ops.Flatten(), ("g",)),
        ("l", ops.Linear(2), ("f",)),
    ):
        nodes.append(make_node(name, op, inputs, tuple(types[operand] for operand in inputs)))
        types[name] = nodes[-1].type
    graph = Graph("small", (source,), tuple(nodes), (Output("y", "l"),))
    return Model(graph, initialize_random(graph))


LINES = """\
7767517
7 8
Input layer_0 0 1 b0 0=5 1=6 2=3
Convolution layer_1 1 1 b0 b1 0=4 1=3 11=3 2=1 12=1 3=1 13=1 4=1 14=1 15=1 16=1 5=1 6=108 9=1
Split layer_2 1 2 b1 b1_0 b1_1
ConvolutionDepthWise layer_3 1 1 b1_0 b2 0=4 1=3 11=3 2=1 12=1 3=1 13=1 4=1 14=1 15=1 16=1 5=1 6=36 7=4
BinaryOp layer_4 2 1 b2 b1_1 b3 0=0
Pooling layer_5 1 1 b3 b4 0=1 4=1
InnerProduct layer_6 1 1 b4 b5 0=2 1=1 2=8
"""


def test_ncnn_files_contain_the_graph():
    import ncnn_file

    text, data = ncnn_file.write_files(make_network(), integers=False)
    assert text == LINES
    assert len(data) == 4 * (3 + (108 + 4) + (36 + 4) + (8 + 2))


def test_ncnn_files_contain_int8_weights():
    import ncnn_file

    text, data = ncnn_file.write_files(make_network(), integers=True)
    last_parameters = {line.split()[0]: line.split()[-1] for line in text.splitlines()[2:]}
    assert last_parameters["Convolution"] == "8=2"  # the add after it reads floats
    assert last_parameters["ConvolutionDepthWise"] == "8=1"
    assert last_parameters["InnerProduct"] == "8=2"
    sizes = (108 + 16 + 16 + 4, 36 + 16 + 16 + 4, 8 + 8 + 8 + 4)  # weights, bias, scales, reach
    assert len(data) == 4 * 3 + sum(sizes)
    levels = np.frombuffer(data[4:112], np.int8).reshape(4, -1)
    assert (np.abs(levels.astype(int)).max(1) == 127).all()


def test_operations_missing_in_ncnn_are_named():
    import ncnn_file

    graph = build_gated()
    with pytest.raises(ValueError, match=r"for ncnn"):
        ncnn_file.write_files(Model(graph, initialize_random(graph)), integers=False)


def test_published_times_are_described_by_a_factor_and_a_scatter():
    import arm_published

    fitted = arm_published.fit({"a": 1.5 * 1.1, "b": 1.5 / 1.1})
    assert fitted.factor == pytest.approx(1.5)
    assert fitted.rms == pytest.approx(math.log(1.1))
    assert fitted.worst == pytest.approx(0.1)
    assert (fitted.low, fitted.high) == pytest.approx((1.5 / 1.1, 1.65))


@pytest.mark.slow
def test_cycle_model_predicts_a_published_time(root, shared):
    import arm_peers
    import arm_published

    peers = arm_peers.Peers(root / "build/arm-peers", arm_peers.BY_NAME["arm-a7"])
    if not (peers.folder / "complete").exists() or not shutil.which("qemu-arm"):
        pytest.skip("needs what tools/bench/arm.py sets up, and qemu-arm")
    param = shared / "spikes/arm-kernels/rig/bench/blazeface.param"
    weights = peers.folder / "zeros of blazeface"
    with weights.open("wb") as file:
        file.truncate(arm_published.WEIGHTS)
    run, _ = peers.count(arm_published.GUEST, param, weights, 128, 128, "-", "fp16")
    ratio = arm_published.AX620A["blazeface"].milliseconds * 1e6 / run.network[1]
    assert abs(math.log(ratio / instructions.MEASURED_FACTOR)) < 2.2 * instructions.MEASURED_SCATTER


@pytest.mark.parametrize("name", ["ddsnet", "shufflenet_v2"])
def test_arena_table_matches_the_memory_plan(root, name):
    import arena_zoo

    assert arena_zoo.format_row(name) in (root / "docs/measuring.md").read_text().splitlines()


def test_new_counts_are_merged_into_the_page(tmp_path, monkeypatch):
    import arm
    from arm_peers import BY_NAME, CountedRun

    page = tmp_path / "measuring.md"
    marks = [f"<!-- {n}-bit ARM: {label} -->" for n in (32, 64) for label in ("measured", "end")]
    page.write_text("\n".join(("before\n", *marks, "\nbehind\n")))
    monkeypatch.setattr(arm, "PAGE", page)

    def write_counts(target, spec, **runs):
        counted_runs = {
            f"{who} {form}": CountedRun((0, 0), (n * 100_000, cycles * 100_000), (0, 0))
            for who, (n, cycles) in runs.items()
            for form in ("fp32", "int8")
        }
        arm.write(BY_NAME[target], {spec: counted_runs})

    def list_rows(bits):
        begin, end = marks[:2] if bits == 32 else marks[2:]
        table = page.read_text().partition(begin)[2].partition(end)[0].strip().splitlines()
        return [line for line in table[2:] if "fp32" in line]

    write_counts("arm-a76", "fastnet", tcc=(500, 0))
    write_counts("arm-a53", "fastnet", tcc=(1, 0), ncnn=(100, 0))
    write_counts("arm-a53", "ddsnet", tcc=(99, 0), ncnn=(200, 0))
    write_counts("arm-a53", "fastnet", tcc=(300, 0))
    write_counts("arm-a76", "fastnet", ncnn=(400, 0))
    assert list_rows(64) == [
        "| ddsnet, fp32 | arm-a53 | 9.9 | 20.0 | 0.49 |",
        "| fastnet, fp32 | arm-a53 | 30.0 | 10.0 | 3.00 |",
        "| fastnet, fp32 | arm-a76 | 50.0 | 40.0 | 1.25 |",
    ]
    assert list_rows(32) == []
    write_counts("arm-a7", "ddsnet", tcc=(880, 2170), TFLite=(2380, 5130))
    assert list_rows(32) == ["| ddsnet, fp32 | arm-a7 | 88.0 / 217.0 | - | 238.0 / 513.0 | - |"]
    write_counts("arm-a7", "ddsnet", ncnn=(890, 3050))
    assert list_rows(32) == [
        "| ddsnet, fp32 | arm-a7 | 88.0 / 217.0 | 89.0 / 305.0 | 238.0 / 513.0 | 0.71 |"
    ]
    assert len(list_rows(64)) == 3
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nbehind\n")
