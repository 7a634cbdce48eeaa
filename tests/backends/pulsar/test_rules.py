"""Each documented rule reports the operator that breaks it, in a file not written by tcc."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tcc.backends.pulsar.chips import AX620, AX620E, AX650, CHIPS
from tcc.backends.pulsar.rules.check import RULE_BOOKS, check
from tcc.backends.pulsar.rules.rule import Severity

INPUT_SHAPE = (1, 16, 8, 8)
INT64 = np.int64


@dataclass(frozen=True)
class Case:
    """An operator of a file: its kind, attributes, input shape and constants."""

    kind: str
    attributes: dict = field(default_factory=dict)
    shape: tuple = INPUT_SHAPE
    constants: tuple = ()
    previous_kind: str = ""
    opset: int = 13
    outputs: int = 1
    dtype: int = TensorProto.FLOAT


def make_weights(*shape):
    return np.zeros(shape, np.float32)


def make_ints(*numbers):
    return np.array(numbers, INT64)


def make_conv_case(depth=16, filters=16, kernel=(3, 3), shape=INPUT_SHAPE, **attributes):
    conv_attributes = {"kernel_shape": kernel, "pads": (1, 1, 1, 1), **attributes}
    return Case("Conv", conv_attributes, shape, (make_weights(filters, depth, *kernel),))


def make_pool_case(kind="AveragePool", **attributes):
    return Case(kind, {"kernel_shape": (2, 2), "strides": (2, 2), **attributes})


LSTM = (make_weights(1, 32, 4), make_weights(1, 32, 8))
RECURRENT = {"hidden_size": 8}
VECTOR = (make_weights(16, 4),)

PULSAR = {
    "conv.groups": make_conv_case(depth=4, filters=6, group=4),
    "conv.kernel": make_conv_case(kernel=(19, 3), pads=(9, 1, 9, 1), shape=(1, 16, 32, 32)),
    "conv.dilation": make_conv_case(dilations=(10, 1), pads=(10, 1, 10, 1), shape=(1, 16, 32, 32)),
    "conv.stride": make_conv_case(strides=(4, 4)),
    "conv.width": make_conv_case(shape=(1, 16, 4, 8192)),
    "conv.pad_top": make_conv_case(depth=1, shape=(1, 1, 4, 4), pads=(16385, 0, 0, 0)),
    "conv.taps": make_conv_case(depth=7282, filters=8, shape=(1, 7282, 4, 4)),
    "conv.auto_pad": Case(
        "Conv", {"auto_pad": "SAME_UPPER"}, INPUT_SHAPE, (make_weights(16, 16, 3, 3),)
    ),
    "conv.output_width": make_conv_case(strides=(2, 2), shape=(1, 16, 14, 14)),
    "conv.depthwise": make_conv_case(depth=1, group=16),
    "conv.channels": make_conv_case(depth=24, shape=(1, 24, 8, 8)),
    "conv.size": make_conv_case(kernel=(5, 5), pads=(2, 2, 2, 2)),
    "conv.holes": make_conv_case(dilations=(2, 2), pads=(2, 2, 2, 2)),
    "window.rank": Case("MaxPool", {"kernel_shape": (2,)}, (1, 16, 8)),
    "avg_pool.attributes": make_pool_case(count_include_pad=0),
    "avg_pool.pads": make_pool_case(pads=(0, 0, 1, 1)),
    "avg_pool.size": Case("AveragePool", {"kernel_shape": (40, 1)}, (1, 16, 40, 8)),
    "conv_transpose.attributes": Case(
        "ConvTranspose", {"auto_pad": "SAME_UPPER"}, INPUT_SHAPE, (make_weights(16, 8, 2, 2),)
    ),
    "conv_transpose.dilation": Case(
        "ConvTranspose", {"dilations": (2, 1)}, INPUT_SHAPE, (make_weights(16, 8, 2, 2),)
    ),
    "conv_transpose.pads": Case(
        "ConvTranspose", {"pads": (0, 0, 1, 1)}, INPUT_SHAPE, (make_weights(16, 8, 2, 2),)
    ),
    "max_pool.attributes": make_pool_case("MaxPool", storage_order=0),
    "max_pool.dilation": make_pool_case("MaxPool", dilations=(1, 2)),
    "max_pool.size": make_pool_case("MaxPool", kernel_shape=(5, 5)),
    "batch_norm.place": Case(
        "BatchNormalization",
        {},
        INPUT_SHAPE,
        (make_weights(16), make_weights(16), make_weights(16), make_weights(16)),
    ),
    "hard_sigmoid.place": Case("HardSigmoid", previous_kind="Relu"),
    "softplus.place": Case("Softplus", previous_kind="Sigmoid"),
    "arg.place": Case("ArgMax", {"axis": 1}),
    "reduce.rank": Case("ReduceMean", {"axes": (1,)}, (1, 16)),
    "reshape.rank": Case("Reshape", {}, (1, 16), (make_ints(1, 4, 4),)),
    "moves.speed": Case("Transpose", {"perm": (0, 2, 3, 1)}),
    "prelu.speed": Case("PRelu", {}, INPUT_SHAPE, (make_weights(16, 1, 1),)),
    "pad.mode": Case("Pad", {"mode": "reflect"}, INPUT_SHAPE, (make_ints(0, 0, 1, 1, 0, 0, 1, 1),)),
    "pad.value": Case(
        "Pad", {}, INPUT_SHAPE, (make_ints(0, 0, 1, 1, 0, 0, 1, 1), np.array(0.5, np.float32))
    ),
    "slice.step": Case(
        "Slice", {}, INPUT_SHAPE, (make_ints(0), make_ints(16), make_ints(1), make_ints(2))
    ),
    "resize.scale": Case(
        "Resize", {}, INPUT_SHAPE, (make_weights(0), np.array([1, 1, 3, 3], np.float32))
    ),
    "resize.mode": Case(
        "Resize",
        {"mode": "cubic"},
        INPUT_SHAPE,
        (make_weights(0), np.array([1, 1, 2, 2], np.float32)),
    ),
    "operators": Case("Erf"),
    "places": Case("Softmax", {"axis": 1}),
}

PULSAR2 = {
    "auto_pad": PULSAR["conv.auto_pad"],
    "arg.last": Case("ArgMin", {"select_last_index": 1}),
    "avg_pool.border": make_pool_case(kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
    "batch_norm.training": Case(
        "BatchNormalization",
        {"training_mode": 1},
        INPUT_SHAPE,
        (make_weights(16), make_weights(16), make_weights(16), make_weights(16)),
        opset=15,
        outputs=3,
    ),
    "cast.type": Case("Cast", {"to": TensorProto.FLOAT16}),
    "conv_transpose.dilation": PULSAR["conv_transpose.dilation"],
    "conv_transpose.shape": Case(
        "ConvTranspose", {"output_shape": (9, 9)}, INPUT_SHAPE, (make_weights(16, 8, 2, 2),)
    ),
    "conv_transpose.output_padding": Case(
        "ConvTranspose",
        {"strides": (2, 2), "output_padding": (1, 1)},
        INPUT_SHAPE,
        (make_weights(16, 8, 3, 3),),
    ),
    "depth_to_space.mode": Case("DepthToSpace", {"blocksize": 2, "mode": "CRD"}),
    "gather.indices": Case("Gather", {"axis": 1}, INPUT_SHAPE, (make_ints(1, 2).reshape(1, 2),)),
    "gemm.factors": Case("Gemm", {"alpha": 0.5}, (1, 16), VECTOR),
    "gemm.offset": Case("Gemm", {"beta": 2.0}, (1, 16), (*VECTOR, make_weights(4))),
    "layer_norm.axis": Case(
        "LayerNormalization", {"axis": 1}, INPUT_SHAPE, (make_weights(16, 8, 8),), opset=17
    ),
    "lp_norm.axis": Case("LpNormalization", {"axis": 1}),
    "lp_norm.p": Case("LpNormalization", {"p": 3}),
    "lstm.attributes": Case("LSTM", {**RECURRENT, "clip": 1.0}, (3, 1, 4), LSTM),
    "lstm.inputs": Case(
        "LSTM", RECURRENT, (3, 1, 4), (*LSTM, make_weights(1, 64), np.ones(1, np.int32))
    ),
    "lstm.layout": Case("LSTM", {**RECURRENT, "layout": 1}, (3, 1, 4), LSTM, opset=14),
    "max_pool.dilation": PULSAR["max_pool.dilation"],
    "max_pool.order": make_pool_case("MaxPool", storage_order=1),
    "pad.mode": PULSAR["pad.mode"],
    "pad.axes": Case(
        "Pad", {}, INPUT_SHAPE, (make_ints(1, 1), np.array(0, np.float32), make_ints(2)), opset=18
    ),
    "pow.exponent": Case("Pow", {}, INPUT_SHAPE, (make_weights(8),)),
    "prelu.slope": Case("PRelu", {}, INPUT_SHAPE, (make_weights(8),)),
    "reduce.axes": Case(
        "ReduceMean", {"noop_with_empty_axes": 1}, INPUT_SHAPE, (make_ints(1),), opset=18
    ),
    "resize.mode": PULSAR["resize.mode"],
    "resize.nearest": Case(
        "Resize", {}, INPUT_SHAPE, (make_weights(0), np.array([1, 1, 2, 2], np.float32))
    ),
    "conv.speed": PULSAR["conv.depthwise"],
    "alpha.given": Case("LeakyRelu"),
    "top_k.given": Case("TopK", {"sorted": 1}, INPUT_SHAPE, (make_ints(1),), outputs=2),
    "top_k.sorted": Case("TopK", {"largest": 1}, INPUT_SHAPE, (make_ints(1),), outputs=2),
    "matrix.levels": None,  # has a separate test below
    "operators": Case("Cosh"),
}


def make_model(case):
    """Return a file of one operator, optionally after one of another kind."""
    input_name, nodes = "x", []
    if case.previous_kind:
        nodes.append(helper.make_node(case.previous_kind, ["x"], ["b"], "before"))
        input_name = "b"
    names = [f"c{index}" for index in range(len(case.constants))]
    outputs = [f"y{index}" for index in range(case.outputs)]
    nodes.append(
        helper.make_node(case.kind, [input_name, *names], outputs, "one", **case.attributes)
    )
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", case.dtype, case.shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs[:1]],
        [numpy_helper.from_array(array, name) for array, name in zip(case.constants, names, strict=True)],
    )  # fmt: skip
    onnx_model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=7
    )
    inferred_model = shape_inference.infer_shapes(onnx_model)
    assert inferred_model.graph.output[0].type.tensor_type.HasField("shape"), case.kind
    return inferred_model


def list_rule_names(violations):
    return {violation.rule.partition(":")[0].removeprefix("rule ") for violation in violations}


@pytest.mark.parametrize(
    ("chip", "name", "case"),
    [
        pytest.param(chip, name, case, id=f"{chip.target}-{name}")
        for chips, cases in (((AX620,), PULSAR), ((AX620E, AX650), PULSAR2))
        for chip in chips
        for name, case in cases.items()
        if case
    ],
)
def test_a_broken_rule_is_reported(chip, name, case):
    violations = check(make_model(case), chip)
    assert name in list_rule_names(violations), violations
    (first_violation, *_) = (
        violation for violation in violations if violation.rule.startswith(f"rule {name}:")
    )
    assert (first_violation.operator, first_violation.kind) == ("one", case.kind)
    assert first_violation.message
    assert first_violation.remedy


def test_every_rule_has_a_test_case():
    for chip, cases in ((AX620, PULSAR), (AX620E, PULSAR2), (AX650, PULSAR2)):
        rule_names = {
            rule.name for rule in RULE_BOOKS[chip].rules if not rule.name.startswith("qdq.")
        }
        rule_names -= {"reported"}
        assert rule_names == set(cases) - {"operators", "places"} | (
            {"roi_align.samples"} & rule_names
        )
        listed_names = [rule.name for rule in RULE_BOOKS[chip].rules if rule.name != "reported"]
        assert len(set(listed_names)) == len(listed_names)
        for rule in RULE_BOOKS[chip].rules:
            assert set(rule.operators) <= {*RULE_BOOKS[chip].processors, "ReduceMin"}, rule.name
            assert rule.requirement
            assert rule.remedy


SOUND = [
    make_conv_case(), make_conv_case(depth=3, shape=(1, 3, 8, 8)), make_conv_case(kernel=(1, 1), pads=(0,) * 4, depth=32, shape=(1, 32, 8, 8)),
    make_pool_case(), make_pool_case("MaxPool"), Case("GlobalAveragePool"), Case("Relu"), Case("Sigmoid"),
    Case("LeakyRelu", {"alpha": 0.1}), Case("Flatten"), Case("Gemm", {"transB": 1}, (1, 16), (make_weights(4, 16),)),
    Case("Slice", {}, INPUT_SHAPE, (make_ints(0), make_ints(8), make_ints(1), make_ints(1))),
    Case("Pad", {}, INPUT_SHAPE, (make_ints(0, 0, 1, 1, 0, 0, 1, 1), np.array(-np.inf, np.float32))),
    Case("Clip", {}, INPUT_SHAPE, (np.array(0, np.float32), np.array(6, np.float32))),
    Case("Reshape", {}, INPUT_SHAPE, (make_ints(1, 4, 4, 64),)),
]  # fmt: skip
"""Operators that the documents allow on every chip."""


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.kind)
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.target)
def test_valid_files_have_no_violations(chip, case):
    slow = {"moves.speed"} if case.kind == "Reshape" else set()
    assert list_rule_names(check(make_model(case), chip)) <= slow


def test_strides_equal_to_the_kernel_size():
    """Any square is allowed. Rows and columns are allowed unless 2 or 3 long."""
    accepted = {(4, 4): True, (5, 5): True, (4, 1): True, (1, 7): True, (5, 1): True}
    for kernel, fits in (accepted | {(1, 5): True, (4, 2): False, (1, 8): True}).items():
        case = make_conv_case(kernel=kernel, strides=kernel, pads=(0,) * 4, shape=(1, 16, 40, 40))
        assert ("conv.stride" in list_rule_names(check(make_model(case), AX620))) != fits, kernel
    for kernel, stride in (((3, 1), (3, 1)), ((1, 3), (1, 3)), ((4, 4), (4, 1)), ((1, 3), (3, 3))):
        case = make_conv_case(kernel=kernel, strides=stride, pads=(0,) * 4, shape=(1, 16, 40, 40))
        broken = "conv.stride" in list_rule_names(check(make_model(case), AX620))
        assert broken == (stride != (3, 3)), kernel


def test_a_matrix_from_dequantize_linear_is_refused():
    quantized_weights = np.zeros((16, 4), np.int8)
    scale, zero = np.ones(4, np.float32), np.zeros(4, np.int8)
    constants = {"q": quantized_weights, "s": scale, "z": zero}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["m"], "levels", axis=1),
        helper.make_node("MatMul", ["x", "m"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    onnx_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    (violation,) = check(onnx_model, AX650)
    assert (violation.operator, violation.severity) == ("product", Severity.REFUSED)
    assert violation.rule.startswith("rule matrix.levels")
    (refusal,) = (
        reported for reported in check(onnx_model, AX620) if reported.severity is Severity.REFUSED
    )
    assert refusal.message == "DequantizeLinear is not listed"


@pytest.mark.parametrize(("ratio", "broken"), [(0, True), (2, False)])
def test_roi_align_sampling_on_ax650(ratio, broken):
    boxes, batch_indices = make_weights(1, 4), np.zeros(1, INT64)
    case = Case(
        "RoiAlign", {"sampling_ratio": ratio}, INPUT_SHAPE, (boxes, batch_indices), opset=16
    )
    assert list_rule_names(check(make_model(case), AX650)) == (
        {"roi_align.samples"} if broken else set()
    )


def test_operators_with_reported_build_failures_are_flagged():
    case = Case("ConvTranspose", {"strides": (2, 2)}, INPUT_SHAPE, (make_weights(16, 8, 2, 2),))
    assert list_rule_names(check(make_model(case), AX650)) == {"reported"}
    assert list_rule_names(check(make_model(case), AX620E)) == set()


def test_severities_are_as_documented():
    (depthwise,) = check(make_model(make_conv_case(depth=1, group=16)), AX620)
    assert depthwise.severity is Severity.SLOW
    assert "depthwise" in depthwise.message
    (uneven,) = check(make_model(PULSAR["conv.output_width"]), AX620)
    assert uneven.severity is Severity.DOUBTFUL
    (softmax_violation,) = check(make_model(Case("Softmax", {"axis": 1})), AX620)
    assert (softmax_violation.severity, softmax_violation.message) == (
        Severity.DOUBTFUL,
        "it may run on the CPU",
    )
