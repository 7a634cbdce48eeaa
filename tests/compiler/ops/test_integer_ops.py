"""Every op on 8-bit integers: ONNX Runtime gives the defined values."""

from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from quantised import EXACT_LEVELS, Array, open_session, to_onnx_values
from tables import looped

from tcc.compiler.ir.graph import Graph, Input, Model, Output, make_node, verify
from tcc.compiler.ir.op import ExactIntegerOp
from tcc.compiler.ir.types import DType, Shape, TensorType
from tcc.compiler.lower.onnx import MAX_OPSET, lower
from tcc.compiler.ops import (
    ChannelShuffle,
    Concat,
    Conv,
    Flatten,
    GlobalMaxPool,
    Op,
    Resize,
    Silu,
    Slice,
    Tanh,
    integer_arithmetic,
)
from tcc.compiler.ops.integer import (
    Dequantize,
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    Quantize,
    QuantizedOp,
    RealGlobalAvgPool,
    Table,
)
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.int8_models import create_quantized_type, sample_quantized
from tcc.testing.op_cases import CONVOLUTIONS, POOLS

OPSETS = (13, 15, 17, 19, MAX_OPSET)


@dataclass(frozen=True)
class Case:
    """An op and the types of its inputs."""

    op: Op
    types: tuple[TensorType, ...]


def create_rng(key: str) -> np.random.Generator:
    return np.random.default_rng(crc32(key.encode()))


def get_bounds(signed: bool) -> tuple[bool, int, int]:
    return (True, -128, 127) if signed else (False, 0, 255)


def vary_signs(**cases) -> dict[str, Case]:
    """Return each case for all combinations of unsigned (u) and signed (s) input and output."""
    return {
        f"{name}-{'us'[x]}{'us'[y]}": make(bool(x), bool(y))
        for name, make in cases.items()
        for x in (0, 1)
        for y in (0, 1)
    }


def create_conv(case: str, x: bool, y: bool, **clamp: int) -> Case:
    op, (shape,) = CONVOLUTIONS[case].op, CONVOLUTIONS[case].shapes
    kind = create_quantized_type(shape, 0.02, x)
    resolved = op.resolve(kind)
    assert isinstance(resolved, Conv)
    quantised = QConv(0.1, *get_bounds(y), conv=replace(resolved, bias=True))
    return Case(replace(quantised, **clamp), (kind,))


def create_pool(case: str, x: bool, y: bool) -> Case:
    kind = create_quantized_type(POOLS[case].shapes[0], 0.02, x)
    return Case(QAvgPool(0.0131, *get_bounds(y), POOLS[case].op.resolve(kind)), (kind,))


def create_join(
    op: type[QAdd | QMul], signs: str, *shapes: Shape, scale: float = 0.05, **clamp
) -> Case:
    """Return a join. `signs` has one letter per input and one for the output."""
    *xs, y = (letter == "s" for letter in signs)
    kinds = tuple(
        create_quantized_type(s, 0.011 * 1.7**i, x)
        for i, (s, x) in enumerate(zip(shapes, xs, strict=True))
    )
    return Case(replace(op(float(np.float32(scale)), *get_bounds(y)), **clamp), kinds)


MAP, GATE, PLANE = (3, 4, 5), (3, 1, 1), (1, 4, 5)
LINEAR = [name for name in CONVOLUTIONS if name.startswith(("conv", "depthwise"))]
LINEAR = [name for name in LINEAR if not name.startswith("conv_transpose")]
CASES: dict[str, Case] = {
    **{name: create_conv(name, False, False) for name in LINEAR},
    **{f"{name}-signed": create_conv(name, True, True) for name in LINEAR},
    **vary_signs(
        plain=lambda x, y: create_conv("conv", x, y),
        padded=lambda x, y: create_conv("conv-padding-quad", x, y),
        pointwise=lambda x, y: create_conv("conv-1x1", x, y),
        depthwise=lambda x, y: create_conv("depthwise", x, y),
        groups=lambda x, y: create_conv("conv-groups", x, y),
    ),
    "conv-relu": create_conv("conv", True, True, low=0),
    "conv-relu6": create_conv("conv", False, False, high=60),
    "conv-relu6-signed": create_conv("conv", False, True, low=0, high=60),
    "depthwise-relu6": create_conv("depthwise", True, True, low=-3, high=5),
    "conv-wide": Case(QConv(9.0, *get_bounds(True), conv=Conv(3, (1, 1))), (create_quantized_type((1200, 2, 2), 0.02, False),)),
    "conv-wide-signed": Case(QConv(9.0, *get_bounds(True), conv=Conv(3, (3, 3))), (create_quantized_type((300, 4, 3), 0.02, True),)),
    **{f"add-{s}": create_join(QAdd, s, MAP, MAP) for s in ("uuu", "uss", "sus", "sss", "ssu", "uus")},
    "add-gate": create_join(QAdd, "usu", MAP, GATE),
    "add-outer": create_join(QAdd, "sss", GATE, PLANE),
    "add-relu": create_join(QAdd, "sss", MAP, MAP, low=0),
    "add-relu6": create_join(QAdd, "ssu", MAP, MAP, high=60),
    "add-3": create_join(QAdd, "uss" "s", MAP, MAP, MAP),
    "add-4-gates": create_join(QAdd, "ussu" "s", MAP, GATE, PLANE, MAP),
    "add-5": create_join(QAdd, "sssss" "u", *[MAP] * 5),
    "add-equal": Case(QAdd(0.25, *get_bounds(True)), (create_quantized_type(MAP, 0.25, True),) * 2),
    "add-vectors": create_join(QAdd, "uss", (7,), (7,)),
    "add-to-a-large-scale": create_join(QAdd, "sss", MAP, MAP, scale=30.0),
    "add-to-a-small-scale": create_join(QAdd, "sss", MAP, MAP, scale=1e-5),
    "add-unequal": Case(QAdd(0.1, *get_bounds(True)), (create_quantized_type(MAP, 0.1, True), create_quantized_type(MAP, 1e-9, True))),
    **{f"mul-{s}": create_join(QMul, s, MAP, MAP, scale=0.008) for s in ("uuu", "uss", "sus", "sss", "ssu")},
    "mul-gate": create_join(QMul, "uuu", MAP, GATE, scale=0.008),
    "mul-gate-signed": create_join(QMul, "sus", MAP, GATE, scale=0.008),
    "mul-outer": create_join(QMul, "sus", GATE, PLANE, scale=0.008),
    "mul-relu6": create_join(QMul, "sss", MAP, MAP, scale=0.008, low=0, high=77),
    "mul-saturates": create_join(QMul, "sss", MAP, MAP, scale=1e-6),
    **{f"{name}-{s}": create_pool(name, s == "signed", s == "signed") for name in POOLS if name.startswith("avg") for s in ("", "signed")},
    "avg_pool-to-signed": create_pool("avg_pool-ceil-padded-inside", False, True),
    "avg_pool-to-unsigned": create_pool("avg_pool-ceil-padded-inside", True, False),
    "avg_pool-relu": Case(replace(create_pool("avg_pool", True, True).op, low=0, high=9), create_pool("avg_pool", True, True).types),
    **vary_signs(
        mean=lambda x, y: Case(QGlobalAvgPool(0.0131, *get_bounds(y)), (create_quantized_type((7, 5, 6), 0.02, x),)),
        wide_mean=lambda x, y: Case(QGlobalAvgPool(0.5, *get_bounds(y)), (create_quantized_type((2, 300, 300), 0.02, x),)),
    ),
    "mean-clamped": Case(QGlobalAvgPool(0.0131, True, 0, 9), (create_quantized_type((7, 5, 6), 0.02, True),)),
    **{f"real-mean-{'us'[s]}": Case(RealGlobalAvgPool(), (create_quantized_type((7, 5, 6), 0.02, bool(s)),)) for s in (0, 1)},
    **vary_signs(
        table=lambda x, y: Case(Table(0.05, *get_bounds(y), Silu()), (create_quantized_type(MAP, 0.03, x),)),
        vector=lambda x, y: Case(Table(0.05, *get_bounds(y), Tanh()), (create_quantized_type((9,), 0.03, x),)),
    ),
    **{f"pad-{'us'[s]}": Case(QPad((0, 1, 2, 3), (-128 * s,)), (create_quantized_type(MAP, 0.03, bool(s)),)) for s in (0, 1)},
    **{f"pad-channels-{'us'[s]}": Case(QPad((2, 1, 0, 1), (7, 0, 127)), (create_quantized_type(MAP, 0.03, bool(s)),)) for s in (0, 1)},
    **{f"quantize-{'us'[s]}": Case(Quantize(0.037, *get_bounds(bool(s))), (TensorType(MAP),)) for s in (0, 1)},
    "quantize-clamped": Case(Quantize(0.037, True, -7, 9), (TensorType(MAP),)),
    "quantize-ties": Case(Quantize(0.5, *get_bounds(True)), (TensorType(MAP),)),
    "quantize-vector": Case(Quantize(0.037, *get_bounds(True)), (TensorType((9,)),)),
    **{f"dequantize-{'us'[s]}": Case(Dequantize(), (create_quantized_type(MAP, 0.037, bool(s)),)) for s in (0, 1)},
    **{
        f"{name}-{'us'[s]}": Case(op, (create_quantized_type(shape, 0.037, bool(s)),) * inputs)
        for s in (0, 1)
        for name, op, shape, inputs in (
            ("concat", Concat(), MAP, 3),
            ("flatten", Flatten(), MAP, 1),
            ("slice", Slice(0, 6, 2), (6, 2, 3), 1),
            ("shuffle", ChannelShuffle(3), (6, 2, 3), 1),
            ("nearest", Resize(scale=(2, 3)), MAP, 1),
            ("global_max_pool", GlobalMaxPool(), MAP, 1),
        )
    },
    **{
        f"{name}-{'us'[s]}": Case(POOLS[name].op.resolve(kind), (kind,))
        for s in (0, 1)
        for name in POOLS
        if name.startswith("max_pool")
        for kind in (create_quantized_type(POOLS[name].shapes[0], 0.037, bool(s)),)
    },
}  # fmt: skip


def add_zero_points(case: Case) -> Case:
    """Return a case of signed values with a zero point for each: 1, 71, 141, ... and 254."""
    zero_points = (*range(1, 255, 70), 254)
    types = tuple(
        replace(kind, dtype=DType.U8, zero_point=zero_points[i % len(zero_points)])
        if kind.dtype is DType.I8
        else kind
        for i, kind in enumerate(case.types)
    )
    op = case.op
    if isinstance(op, QuantizedOp) and op.signed:
        low, high = (n if abs(n) < 127 else n + 98 for n in (op.low, op.high))
        op = replace(op, signed=False, zero_point=30, low=low, high=high)
    if op.moves:  # one scale and one zero point
        types = (replace(types[0], zero_point=71),) * len(types)
    if isinstance(op, QPad):
        levels = tuple(max(min(n, 184), -71) for n in op.levels)
        op, types = replace(op, levels=levels), (replace(types[0], zero_point=71),)
    return Case(op, types)


CASES |= {
    f"{name}-zero-point": add_zero_points(case)
    for name, case in CASES.items()
    if any(kind.dtype is DType.I8 for kind in case.types)
    or (isinstance(case.op, QuantizedOp) and case.op.signed)
}
BY_OPSET = {f"opset {opset}": opset for opset in OPSETS}


def build_model(case: Case) -> Model:
    """Return the graph of one op with random weights: inputs `x0`..., output `y`."""
    sources = tuple(Input(f"x{i}", kind) for i, kind in enumerate(case.types))
    node = make_node("op", case.op, tuple(s.name for s in sources), case.types)
    assert node is not None
    graph = verify(Graph("case", sources, (node,), (Output("y", "op"),)))
    return Model(graph, create_weights(case, graph))


def create_weights(case: Case, graph: Graph) -> dict[str, Array]:
    random, tensors = create_rng(str(case)), {}
    for name, param in graph.params.items():
        match param.role, param.dtype:
            case "weight", _:
                tensors[name] = random.integers(-127, 128, param.shape).astype(np.int8)
            case "ones", _:
                tensors[name] = np.ones(param.shape, np.int8)
            case "scale", _:
                tensors[name] = random.uniform(1e-4, 2e-2, param.shape).astype(np.float32)
            case "bias", _:
                tensors[name] = random.integers(-3000, 3000, param.shape).astype(np.int32)
            case "table", _:
                tensors[name] = random.permutation(256).astype(np.uint8)
            case "factor", _:
                (x,) = case.types
                assert isinstance(case.op, QAvgPool)
                factor = integer_arithmetic.compute_multiplier(
                    x, 1.0, case.op.infer(x)
                ) / case.op.count_elements(x)
                tensors[name] = factor.astype(np.float32)
    return tensors


def create_inputs(case: Case, batch: int) -> tuple[Array, ...]:
    return tuple(
        create_rng(f"{i}").standard_normal((batch, *x.shape), np.float32) * 3
        if x.dtype is DType.F32
        else sample_quantized(x, batch, i)
        for i, x in enumerate(case.types)
    )


def compute_expected(case: Case, program: Model, xs: tuple[Array, ...]) -> Array:
    assert isinstance(case.op, ExactIntegerOp)
    parameters = tuple(program.weights[name] for name in program.graph.nodes[0].params)
    return case.op.compute(case.types, xs, parameters)


def create_feeds(case: Case, xs: tuple[Array, ...]) -> dict[str, Array]:
    pairs = zip(xs, case.types, strict=True)
    return {f"x{i}": to_onnx_values(x, kind) for i, (x, kind) in enumerate(pairs)}


def check(case: Case, batch: int = 1, opset: int = 17, **options) -> None:
    program = build_model(case)
    xs = create_inputs(case, batch)
    y = to_onnx_values(compute_expected(case, program, xs), program.graph.nodes[0].type)
    feeds = create_feeds(case, xs)
    (got,) = open_session(lower(program, opset), **options).run(["y"], feeds)
    assert (got.shape, got.dtype) == (y.shape, y.dtype)
    np.testing.assert_array_equal(got, y)


@looped(CASES, rotated=True, level={level: level for level in EXACT_LEVELS})
def test_onnx_runtime_matches_at_every_optimization_level(case: Case, level: str) -> None:
    check(case, level=level)


@looped(CASES)
def test_a_batch_on_several_threads_matches(case: Case) -> None:
    check(case, batch=3, threads=3)


@looped(CASES, rotated=True, opset=BY_OPSET)
def test_every_opset_matches(case: Case, opset: int) -> None:
    check(case, opset=opset)


@looped(CASES, rotated=True, opset=BY_OPSET)
def test_files_are_valid_and_onnx_infers_the_same_types(case: Case, opset: int) -> None:
    program = build_model(case)
    lowered = lower(program, opset)
    onnx.checker.check_model(lowered, full_check=True)
    del lowered.graph.value_info[:]
    lowered.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(lowered, strict_mode=True, data_prop=True)
    tensor_type = inferred.graph.output[0].type.tensor_type
    y = program.graph.nodes[0].type
    assert tuple(d.dim_value for d in tensor_type.shape.dim[1:]) == y.shape
    element = np.float32 if y.dtype is DType.F32 else np.uint8
    assert tensor_type.elem_type == onnx.helper.np_dtype_to_tensor_dtype(np.dtype(element))


LACKING = (Table, Dequantize)
"""Cases that the ONNX reference evaluator does not support, or not for so many entries."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # its max pool pads integers with NaN
@looped({name: case for name, case in CASES.items() if not isinstance(case.op, LACKING)})
def test_the_onnx_reference_evaluator_matches(case: Case) -> None:
    program = build_model(case)
    xs = create_inputs(case, 1)
    feeds = create_feeds(case, xs)
    # At the newest opset: it lacks the DequantizeLinear of older ones.
    (got,) = ReferenceEvaluator(lower(program, MAX_OPSET)).run(None, feeds)
    expected = compute_expected(case, program, xs)
    np.testing.assert_array_equal(got, to_onnx_values(expected, program.graph.nodes[0].type))


@looped(CASES)
def test_outputs_have_the_output_type_and_are_within_the_clamp(case: Case) -> None:
    program = build_model(case)
    y = compute_expected(case, program, create_inputs(case, 2))
    kind = program.graph.nodes[0].type
    assert (y.dtype, y.shape) == (np.dtype(kind.array_dtype), (2, *kind.shape))
    if hasattr(case.op, "low"):
        assert case.op.low <= y.min() <= y.max() <= case.op.high


@pytest.mark.parametrize("opset", [11, 12])
def test_older_opsets_are_refused(opset: int) -> None:
    with pytest.raises(UserError) as caught:
        lower(build_model(CASES["conv"]), opset)
    assert str(caught.value) == (
        f"error[E0650]: ONNX opset {opset} has no operators for 8-bit integers\n"
        "  --> case\n"
        f"   = help: choose one from 13 to {MAX_OPSET}; 17 is the default"
    )


@pytest.mark.parametrize("signed", [False, True])
def test_ties_of_a_global_mean_are_rounded_as_defined(
    signed: bool,
) -> None:
    """The scales make many sums ties except for the last bit of the factor."""
    random = np.random.default_rng(int(signed))
    for _ in range(25):
        size = tuple(int(n) for n in random.integers(1, 12, 2))
        count = size[0] * size[1]
        x = create_quantized_type((300, *size), float(random.uniform(1e-3, 3)), signed)
        scale = float(np.float32((x.scale or 0) * 2 * random.integers(1, 2 * count + 1) / count))
        check(Case(QGlobalAvgPool(scale, *get_bounds(not signed)), (x,)))
