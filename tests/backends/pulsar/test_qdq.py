"""QDQ files for Pulsar2: integers between floats, layer by layer those of the reference."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tcc.backends.pulsar.chips import AX650
from tcc.backends.pulsar.onnx_model import build_qdq_onnx
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ops import Conv, GlobalAvgPool
from tcc.testing.int8_models import build_int8_model
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

EDGES = {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture(scope="module")
def pulsar_qdq(root):
    sys.path.insert(0, str(root / "tools"))
    import pulsar_qdq

    yield pulsar_qdq
    sys.path.remove(str(root / "tools"))


def make_image_graph(graph):
    """Return a graph whose input is an image."""
    (source,) = graph.inputs
    color = "gray" if source.type.shape[0] == 1 else "rgb"
    pre = Preprocess(color, mean=(0.5,), std=(0.25,))
    return replace(graph, inputs=(Input(source.name, source.type, pre),))


@pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda graph: graph.name)
def test_quantized_operators_are_surrounded_by_float_operators(graph):
    program = build_int8_model(graph, sample_weights(graph))
    model = onnx.load_from_string(build_qdq_onnx(program, AX650))
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    constants = {proto.name: numpy_helper.to_array(proto) for proto in model.graph.initializer}
    assert {
        proto.type.tensor_type.elem_type for proto in (*model.graph.input, *model.graph.output)
    } == {1}
    made_by = {name: node for node in model.graph.node for name in node.output}
    types = program.graph.types.values()
    zero_points = {0, *(-kind.limits[0] for kind in types if kind.scale is not None)}
    for node in model.graph.node:
        if node.op_type in EDGES:
            zero = constants[node.input[2]]
            assert zero.dtype in (np.uint8, np.int8, np.int32)
            assert set(zero.reshape(-1)) <= zero_points
            if zero.dtype == np.int8:
                assert abs(constants[node.input[0]].astype(int)).max() <= 127
            continue
        producers = [made_by[name].op_type for name in node.input if name in made_by]
        assert "QuantizeLinear" not in producers, node.name  # floats stay float
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not kinds.keys() & {"MatMul", "QLinearConv", "QLinearMatMul", "Cast", "GatherElements"}


@pytest.mark.parametrize(
    ("graph", "image"),
    [
        (build_dense(), True),
        (build_dense(), False),
        (build_gated(), False),
    ],  # no image has the channels of gated()
    ids=["dense-image", "dense-numbers", "gated-numbers"],
)
def test_each_layer_is_within_one_quantization_step(pulsar_qdq, graph, image):
    program = build_int8_model(make_image_graph(graph) if image else graph, sample_weights(graph))
    rng = np.random.default_rng(4)
    source = program.graph.inputs[0]
    kind = source.type.dtype.value
    inputs = [
        rng.integers(0, 256, source.type.shape).astype(kind)
        if kind == "uint8"
        else rng.standard_normal(source.type.shape).astype(np.float32)
        for _ in range(3)
    ]
    comparison = pulsar_qdq.measure_difference(program, inputs, build_qdq_onnx(program, AX650))
    assert comparison.layers > 3
    assert comparison.max_layer_steps <= 1
    assert comparison.real < 1e-5
    assert comparison.differing < 0.05 * comparison.level_count


@pytest.mark.parametrize(
    ("mean", "pads"),
    [((0.5,), 1), ((0.502, 0.5025, 0.5015), 1), ((0.485, 0.456, 0.406), 3)],
    ids=["one", "three that round to one level", "three"],
)
def test_a_border_of_one_value_is_one_pad(mean, pads):
    """Image padding has the value of the mean: one operator if all channels share it."""
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (3, 3), padding=1))
    add("pool", GlobalAvgPool())
    graph = add.build()
    (source,) = graph.inputs
    image = Input(source.name, source.type, Preprocess("rgb", mean=mean, std=(0.25,)))
    program = build_int8_model(replace(graph, inputs=(image,)), sample_weights(graph))
    kinds = Counter(
        node.op_type for node in onnx.load_from_string(build_qdq_onnx(program, AX650)).graph.node
    )
    assert kinds["Pad"] == pads
    assert kinds["Slice"] == kinds["Concat"] * pads == (0 if pads == 1 else 3)


def test_a_wrong_layer_is_found(pulsar_qdq):
    graph = build_dense()
    program = build_int8_model(graph, sample_weights(graph))
    shifted_weights = dict(program.weights)
    name = next(key for key in shifted_weights if key.endswith(".weight"))
    shifted_weights[name] = np.roll(shifted_weights[name], 1, axis=0)
    wrong_model = build_qdq_onnx(replace(program, weights=shifted_weights), AX650)
    x = np.random.default_rng(4).standard_normal(program.graph.inputs[0].type.shape)
    assert (
        pulsar_qdq.measure_difference(program, [x.astype(np.float32)], wrong_model).max_layer_steps
        > 1
    )
