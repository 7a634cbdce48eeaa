"""Each documented rule finds the operator that breaks it, in a file that nothing of ours wrote."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tcc.backends.pulsar.chips import AX620, AX620E, AX650, CHIPS
from tcc.backends.pulsar.rules.check import RULE_BOOKS, check
from tcc.backends.pulsar.rules.rule import Severity

X = (1, 16, 8, 8)
INT64 = np.int64


@dataclass(frozen=True)
class Case:
    """An operator of a file: its kind, attributes, the input's shape and its constants."""

    kind: str
    attributes: dict = field(default_factory=dict)
    shape: tuple = X
    constants: tuple = ()
    before: str = ""
    opset: int = 13
    outputs: int = 1
    dtype: int = TensorProto.FLOAT


def w(*shape):
    return np.zeros(shape, np.float32)


def ints(*numbers):
    return np.array(numbers, INT64)


def conv(depth=16, filters=16, kernel=(3, 3), shape=X, **attributes):
    shown = {"kernel_shape": kernel, "pads": (1, 1, 1, 1), **attributes}
    return Case("Conv", shown, shape, (w(filters, depth, *kernel),))


def pool(kind="AveragePool", **attributes):
    return Case(kind, {"kernel_shape": (2, 2), "strides": (2, 2), **attributes})


LSTM = (w(1, 32, 4), w(1, 32, 8))
RECURRENT = {"hidden_size": 8}
VECTOR = (w(16, 4),)

PULSAR = {
    "conv.groups": conv(depth=4, filters=6, group=4),
    "conv.kernel": conv(kernel=(19, 3), pads=(9, 1, 9, 1), shape=(1, 16, 32, 32)),
    "conv.dilation": conv(dilations=(10, 1), pads=(10, 1, 10, 1), shape=(1, 16, 32, 32)),
    "conv.stride": conv(strides=(4, 4)),
    "conv.width": conv(shape=(1, 16, 4, 8192)),
    "conv.pad_top": conv(depth=1, shape=(1, 1, 4, 4), pads=(16385, 0, 0, 0)),
    "conv.taps": conv(depth=7282, filters=8, shape=(1, 7282, 4, 4)),
    "conv.auto_pad": Case("Conv", {"auto_pad": "SAME_UPPER"}, X, (w(16, 16, 3, 3),)),
    "conv.output_width": conv(strides=(2, 2), shape=(1, 16, 14, 14)),
    "conv.depthwise": conv(depth=1, group=16),
    "conv.channels": conv(depth=24, shape=(1, 24, 8, 8)),
    "conv.size": conv(kernel=(5, 5), pads=(2, 2, 2, 2)),
    "conv.holes": conv(dilations=(2, 2), pads=(2, 2, 2, 2)),
    "window.rank": Case("MaxPool", {"kernel_shape": (2,)}, (1, 16, 8)),
    "avg_pool.attributes": pool(count_include_pad=0),
    "avg_pool.pads": pool(pads=(0, 0, 1, 1)),
    "avg_pool.size": Case("AveragePool", {"kernel_shape": (40, 1)}, (1, 16, 40, 8)),
    "conv_transpose.attributes": Case(
        "ConvTranspose", {"auto_pad": "SAME_UPPER"}, X, (w(16, 8, 2, 2),)
    ),
    "conv_transpose.dilation": Case("ConvTranspose", {"dilations": (2, 1)}, X, (w(16, 8, 2, 2),)),
    "conv_transpose.pads": Case("ConvTranspose", {"pads": (0, 0, 1, 1)}, X, (w(16, 8, 2, 2),)),
    "max_pool.attributes": pool("MaxPool", storage_order=0),
    "max_pool.dilation": pool("MaxPool", dilations=(1, 2)),
    "max_pool.size": pool("MaxPool", kernel_shape=(5, 5)),
    "batch_norm.place": Case("BatchNormalization", {}, X, (w(16), w(16), w(16), w(16))),
    "hard_sigmoid.place": Case("HardSigmoid", before="Relu"),
    "softplus.place": Case("Softplus", before="Sigmoid"),
    "arg.place": Case("ArgMax", {"axis": 1}),
    "reduce.rank": Case("ReduceMean", {"axes": (1,)}, (1, 16)),
    "reshape.rank": Case("Reshape", {}, (1, 16), (ints(1, 4, 4),)),
    "moves.speed": Case("Transpose", {"perm": (0, 2, 3, 1)}),
    "prelu.speed": Case("PRelu", {}, X, (w(16, 1, 1),)),
    "pad.mode": Case("Pad", {"mode": "reflect"}, X, (ints(0, 0, 1, 1, 0, 0, 1, 1),)),
    "pad.value": Case("Pad", {}, X, (ints(0, 0, 1, 1, 0, 0, 1, 1), np.array(0.5, np.float32))),
    "slice.step": Case("Slice", {}, X, (ints(0), ints(16), ints(1), ints(2))),
    "resize.scale": Case("Resize", {}, X, (w(0), np.array([1, 1, 3, 3], np.float32))),
    "resize.mode": Case("Resize", {"mode": "cubic"}, X, (w(0), np.array([1, 1, 2, 2], np.float32))),
    "operators": Case("Erf"),
    "places": Case("Softmax", {"axis": 1}),
}

PULSAR2 = {
    "auto_pad": PULSAR["conv.auto_pad"],
    "arg.last": Case("ArgMin", {"select_last_index": 1}),
    "avg_pool.border": pool(kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
    "batch_norm.training": Case(
        "BatchNormalization",
        {"training_mode": 1},
        X,
        (w(16), w(16), w(16), w(16)),
        opset=15,
        outputs=3,
    ),
    "cast.type": Case("Cast", {"to": TensorProto.FLOAT16}),
    "conv_transpose.dilation": PULSAR["conv_transpose.dilation"],
    "conv_transpose.shape": Case("ConvTranspose", {"output_shape": (9, 9)}, X, (w(16, 8, 2, 2),)),
    "conv_transpose.output_padding": Case(
        "ConvTranspose", {"strides": (2, 2), "output_padding": (1, 1)}, X, (w(16, 8, 3, 3),)
    ),
    "depth_to_space.mode": Case("DepthToSpace", {"blocksize": 2, "mode": "CRD"}),
    "gather.indices": Case("Gather", {"axis": 1}, X, (ints(1, 2).reshape(1, 2),)),
    "gemm.factors": Case("Gemm", {"alpha": 0.5}, (1, 16), VECTOR),
    "gemm.offset": Case("Gemm", {"beta": 2.0}, (1, 16), (*VECTOR, w(4))),
    "layer_norm.axis": Case("LayerNormalization", {"axis": 1}, X, (w(16, 8, 8),), opset=17),
    "lp_norm.axis": Case("LpNormalization", {"axis": 1}),
    "lp_norm.p": Case("LpNormalization", {"p": 3}),
    "lstm.attributes": Case("LSTM", {**RECURRENT, "clip": 1.0}, (3, 1, 4), LSTM),
    "lstm.inputs": Case("LSTM", RECURRENT, (3, 1, 4), (*LSTM, w(1, 64), np.ones(1, np.int32))),
    "lstm.layout": Case("LSTM", {**RECURRENT, "layout": 1}, (3, 1, 4), LSTM, opset=14),
    "max_pool.dilation": PULSAR["max_pool.dilation"],
    "max_pool.order": pool("MaxPool", storage_order=1),
    "pad.mode": PULSAR["pad.mode"],
    "pad.axes": Case("Pad", {}, X, (ints(1, 1), np.array(0, np.float32), ints(2)), opset=18),
    "pow.exponent": Case("Pow", {}, X, (w(8),)),
    "prelu.slope": Case("PRelu", {}, X, (w(8),)),
    "reduce.axes": Case("ReduceMean", {"noop_with_empty_axes": 1}, X, (ints(1),), opset=18),
    "resize.mode": PULSAR["resize.mode"],
    "resize.nearest": Case("Resize", {}, X, (w(0), np.array([1, 1, 2, 2], np.float32))),
    "conv.speed": PULSAR["conv.depthwise"],
    "alpha.given": Case("LeakyRelu"),
    "top_k.given": Case("TopK", {"sorted": 1}, X, (ints(1),), outputs=2),
    "top_k.sorted": Case("TopK", {"largest": 1}, X, (ints(1),), outputs=2),
    "matrix.levels": None,  # a file of its own, below
    "operators": Case("Cosh"),
}


def model(case):
    """Return a file of one operator, or of one after another of another kind."""
    first, nodes = "x", []
    if case.before:
        nodes.append(helper.make_node(case.before, ["x"], ["b"], "before"))
        first = "b"
    names = [f"c{place}" for place in range(len(case.constants))]
    outputs = [f"y{place}" for place in range(case.outputs)]
    nodes.append(helper.make_node(case.kind, [first, *names], outputs, "one", **case.attributes))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", case.dtype, case.shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs[:1]],
        [numpy_helper.from_array(array, name) for array, name in zip(case.constants, names, strict=True)],
    )  # fmt: skip
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=7
    )
    found = shape_inference.infer_shapes(made)
    assert found.graph.output[0].type.tensor_type.HasField("shape"), case.kind
    return found


def named(found):
    return {each.rule.partition(":")[0].removeprefix("rule ") for each in found}


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
def test_what_breaks_a_rule_is_found(chip, name, case):
    found = check(model(case), chip)
    assert name in named(found), found
    (one, *_) = (each for each in found if each.rule.startswith(f"rule {name}:"))
    assert (one.operator, one.kind) == ("one", case.kind)
    assert one.message
    assert one.remedy


def test_every_rule_has_a_case():
    for chip, cases in ((AX620, PULSAR), (AX620E, PULSAR2), (AX650, PULSAR2)):
        own = {rule.name for rule in RULE_BOOKS[chip].rules if not rule.name.startswith("qdq.")}
        own -= {"reported"}
        assert own == set(cases) - {"operators", "places"} | ({"roi_align.samples"} & own)
        listed = [rule.name for rule in RULE_BOOKS[chip].rules if rule.name != "reported"]
        assert len(set(listed)) == len(listed)
        for rule in RULE_BOOKS[chip].rules:
            assert set(rule.operators) <= {*RULE_BOOKS[chip].processors, "ReduceMin"}, rule.name
            assert rule.requirement
            assert rule.remedy


SOUND = [
    conv(), conv(depth=3, shape=(1, 3, 8, 8)), conv(kernel=(1, 1), pads=(0,) * 4, depth=32, shape=(1, 32, 8, 8)),
    pool(), pool("MaxPool"), Case("GlobalAveragePool"), Case("Relu"), Case("Sigmoid"),
    Case("LeakyRelu", {"alpha": 0.1}), Case("Flatten"), Case("Gemm", {"transB": 1}, (1, 16), (w(4, 16),)),
    Case("Slice", {}, X, (ints(0), ints(8), ints(1), ints(1))),
    Case("Pad", {}, X, (ints(0, 0, 1, 1, 0, 0, 1, 1), np.array(-np.inf, np.float32))),
    Case("Clip", {}, X, (np.array(0, np.float32), np.array(6, np.float32))),
    Case("Reshape", {}, X, (ints(1, 4, 4, 64),)),
]  # fmt: skip
"""What the documents take at any chip."""


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.kind)
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.target)
def test_what_keeps_the_rules_is_not_found(chip, case):
    slow = {"moves.speed"} if case.kind == "Reshape" else set()
    assert named(check(model(case), chip)) <= slow


def test_strides_of_the_kernels_size():
    """Any square, and rows and columns unless 2 or 3 long."""
    taken = {(4, 4): True, (5, 5): True, (4, 1): True, (1, 7): True, (5, 1): True}
    for kernel, fits in (taken | {(1, 5): True, (4, 2): False, (1, 8): True}).items():
        case = conv(kernel=kernel, strides=kernel, pads=(0,) * 4, shape=(1, 16, 40, 40))
        assert ("conv.stride" in named(check(model(case), AX620))) != fits, kernel
    for kernel, stride in (((3, 1), (3, 1)), ((1, 3), (1, 3)), ((4, 4), (4, 1)), ((1, 3), (3, 3))):
        case = conv(kernel=kernel, strides=stride, pads=(0,) * 4, shape=(1, 16, 40, 40))
        broken = "conv.stride" in named(check(model(case), AX620))
        assert broken == (stride != (3, 3)), kernel


def test_what_a_matrix_comes_out_of():
    levels = np.zeros((16, 4), np.int8)
    scale, zero = np.ones(4, np.float32), np.zeros(4, np.int8)
    stored = {"q": levels, "s": scale, "z": zero}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["m"], "levels", axis=1),
        helper.make_node("MatMul", ["x", "m"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    (found,) = check(made, AX650)
    assert (found.operator, found.severity) == ("product", Severity.REFUSED)
    assert found.rule.startswith("rule matrix.levels")
    (listed,) = (each for each in check(made, AX620) if each.severity is Severity.REFUSED)
    assert listed.message == "DequantizeLinear is not listed"


@pytest.mark.parametrize(("ratio", "broken"), [(0, True), (2, False)])
def test_samples_of_regions_on_ax650(ratio, broken):
    boxes, places = w(1, 4), np.zeros(1, INT64)
    case = Case("RoiAlign", {"sampling_ratio": ratio}, X, (boxes, places), opset=16)
    assert named(check(model(case), AX650)) == ({"roi_align.samples"} if broken else set())


def test_builds_that_are_reported_to_fail_are_doubtful():
    case = Case("ConvTranspose", {"strides": (2, 2)}, X, (w(16, 8, 2, 2),))
    assert named(check(model(case), AX650)) == {"reported"}
    assert named(check(model(case), AX620E)) == set()


def test_severities_are_as_documented():
    (depthwise,) = check(model(conv(depth=1, group=16)), AX620)
    assert depthwise.severity is Severity.SLOW
    assert "depthwise" in depthwise.message
    (uneven,) = check(model(PULSAR["conv.output_width"]), AX620)
    assert uneven.severity is Severity.DOUBTFUL
    (place,) = check(model(Case("Softmax", {"axis": 1})), AX620)
    assert (place.severity, place.message) == (Severity.DOUBTFUL, "it may run on the CPU")
