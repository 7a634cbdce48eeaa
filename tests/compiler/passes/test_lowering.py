"""Linear layers, pools and scales become convolutions, which are exact in integers."""

import numpy as np
import pytest

from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    GlobalAvgPool,
    Linear,
    Op,
    Relu,
    Scale,
    ScaleShift,
    Softmax,
)
from tcc.compiler.passes import (
    INT8,
    fill_bias,
    lower_linear,
    lower_pool,
    lower_scale_shift,
    run,
    validate,
)
from tcc.compiler.zoo.shipped import list_specs
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import CASES, build_op_model, sample_weights


def build_model(graph: Graph) -> Model:
    return Model(graph, sample_weights(graph))


def find_line(lowered: Model, name: str) -> str:
    (matched_line,) = (
        text for text in print_graph(lowered.graph).splitlines() if f"%{name} = " in text
    )
    return matched_line.strip()


def list_op_names(lowered: Model) -> list[str]:
    return [node.op.keyword for node in lowered.graph.nodes]


PARTIAL = {
    "avg_pool-k3s1p1-inside", "avg_pool-inside-rectangular", "avg_pool-ceil",
    "avg_pool-ceil-inside", "avg_pool-ceil-padded", "avg_pool-ceil-padded-inside",
    "avg_pool-ceil-padded-one-axis", "avg_pool-ceil-drops-last-inside", "avg_pool-ceil-k5s3",
    "avg_pool-lopsided-ceil", "avg_pool-lopsided-inside", "avg_pool-lopsided-ceil-inside",
    "avg_pool-wide-padding-inside", "avg_pool-same-inside",
}  # fmt: skip
POOLS = {name: case for name, case in CASES.items() if "avg_pool" in name}


@pytest.mark.parametrize("name", POOLS)
def test_an_average_pool_becomes_a_convolution(name: str) -> None:
    original = build_op_model(POOLS[name])
    lowered = validate.run(original, (lower_pool,), seeds=(1, 2))
    is_kept = name in PARTIAL or name.startswith("global")
    is_global = name in {"avg_pool-whole-image", "adaptive_avg_pool-one"}
    assert list_op_names(lowered) == (
        list_op_names(original) if is_kept else ["global_avg_pool" if is_global else "conv"]
    )


def test_text_of_a_lowered_average_pool() -> None:
    add = NetBuilder(6, 8, 9)
    add("pool", AvgPool((2, 3)))
    add("gap", GlobalAvgPool())
    lowered = lower_pool(build_model(add.build()))
    tail = "dilation=[1, 1], groups=6, bias=true} : float32"
    assert find_line(lowered, "pool") == (
        "%pool = conv(%image) {filters=6, kernel=[2, 3], stride=[2, 3],"
        f" padding=[0, 0, 0, 0], {tail}[6x4x3]"
    )
    assert find_line(lowered, "gap") == "%gap = global_avg_pool(%pool) : float32[6x1x1]"
    assert np.all(lowered.weights["pool.weight"] == np.float32(1 / 6))
    assert not lowered.weights["pool.bias"].any()


@pytest.mark.parametrize("op", [ScaleShift(), Scale(0.5, -2.0)])
def test_a_scale_of_a_map_becomes_a_depthwise_convolution(op: Op) -> None:
    add = NetBuilder(5, 4, 3)
    add("scale", op)
    lowered = validate.run(build_model(add.build()), (lower_scale_shift,))
    (node,) = lowered.graph.nodes
    assert node.op == Conv(5, (1, 1), padding=(0, 0, 0, 0), groups=5)
    assert lowered.weights["scale.weight"].shape == (5, 1, 1, 1)


def test_a_scale_of_a_vector_stays() -> None:
    add = NetBuilder(5)
    add("scale", ScaleShift())
    original = build_model(add.build())
    assert lower_scale_shift(original).graph == original.graph


def test_a_linear_layer_reads_the_map_before_the_flatten() -> None:
    add = NetBuilder(3, 4, 5)
    add("flat", Flatten())
    add("fc", Linear(7, bias=False))
    lowered = validate.run(build_model(add.build()), (lower_linear,))
    assert print_graph(lowered.graph) == (
        "graph net {\n"
        "  input %image : float32[3x4x5]\n"
        "  %fc/conv = conv(%image) {filters=7, kernel=[4, 5], stride=[1, 1],"
        " padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, bias=true} : float32[7x1x1]\n"
        "  %fc = flatten(%fc/conv) : float32[7]\n"
        "  output logits = %fc\n"
        "}\n"
    )
    assert list(lowered.weights) == ["fc/conv.weight", "fc/conv.bias"]


def test_steps_between_linear_layers_run_on_maps() -> None:
    add = NetBuilder(3, 4, 5)
    flat = add("flat", Flatten())
    left_linear = add("left", Linear(6))
    add("left_bn", BatchNorm())
    relu = add("left_relu", Relu())
    right_linear = add("right", Linear(6), flat)
    total = add("sum", Add(), relu, right_linear)
    add("cat", Concat(), left_linear, total)
    add("out", Linear(4))
    add("softmax", Softmax())
    lowered = validate.run(build_model(add.build()), (lower_linear,))
    assert list_op_names(lowered) == [
        "conv", "batch_norm", "relu", "conv", "add", "concat", "conv", "softmax", "flatten",
    ]  # fmt: skip
    assert lowered.graph.types["cat/concat"].shape == (12, 1, 1)


def test_a_vector_becomes_a_map_of_one_pixel() -> None:
    add = NetBuilder(9, name="vector")
    add("one", Linear(4))
    add("relu", Relu())
    add("two", Linear(2))
    lowered = validate.run(build_model(add.build()), INT8)
    assert list_op_names(lowered) == ["unflatten", "conv", "relu", "conv", "flatten"]
    assert (
        find_line(lowered, "one/unflatten") == "%one/unflatten = unflatten(%image) : float32[9x1x1]"
    )


def test_elementwise_steps_move_before_a_flatten() -> None:
    add = NetBuilder(3, 4, 5)
    add("flat", Flatten())
    add("relu", Relu())
    add("softmax", Softmax())
    add("fc", Linear(2))
    lowered = validate.run(build_model(add.build()), (lower_linear,))
    assert list_op_names(lowered) == ["relu", "flatten", "softmax", "unflatten", "conv", "flatten"]


def test_every_convolution_has_a_bias() -> None:
    add = NetBuilder(3, 4, 5)
    add("conv", Conv(4, (3, 3), bias=False))
    add("relu", Relu())
    original = build_model(add.build())
    lowered = validate.run(original, (fill_bias,))
    assert lowered.weights["conv.weight"] is original.weights["conv.weight"]
    assert lowered.graph.nodes[0].op.bias
    assert not lowered.weights["conv.bias"].any()


@pytest.mark.parametrize("name", ["ddsnet", "fastnet", "shufflenet_v2"])
def test_all_linear_ops_become_convolutions(name: str) -> None:
    graph = load(list_specs()[name]).graph
    unit = np.float32(1)
    ones = {n: np.broadcast_to(unit, p.shape) for n, p in graph.params.items()}
    lowered = run(Model(graph, ones), INT8)
    allowed_ops = {"conv", "relu", "relu6", "concat", "add", "max_pool", "slice", "channel_shuffle",
            "border", "flatten", "global_avg_pool"}  # fmt: skip
    assert set(list_op_names(lowered)) <= allowed_ops
    assert all(node.op.bias for node in lowered.graph.nodes if isinstance(node.op, Conv))
    assert list_op_names(lowered).count("flatten") == 1
