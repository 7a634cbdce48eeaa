"""Float32 forms of integer ops: every processor gives the integer outputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantised import LEVELS, open_session, to_onnx_values

from tcc.compiler.ir.graph import Graph, Input, Model, Output, make_node, verify
from tcc.compiler.ir.op import Op
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.integer_variants import replace_tables
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.onnx_inspection import find_number_types
from tcc.compiler.ops import Gelu, Silu
from tcc.compiler.ops.integer import Dequantize, QAdd, QMul, Table
from tcc.compiler.ops.integer.float_forms import (
    ERROR_SCALES,
    FUNCTION_ERROR,
    find_float_sum,
    find_function_scales,
    find_product_step,
)
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import create_quantized_type

SIDE = 256
LOWS = st.sampled_from((0, -128))
SIGNS = st.booleans()


def create_pairs(row_type: TensorType, column_type: TensorType) -> list[np.ndarray]:
    """Return two maps that contain every pair of quantized values."""
    rows, columns = (np.arange(SIDE) + kind.limits[0] for kind in (row_type, column_type))
    grid = np.meshgrid(rows, columns, indexing="ij")
    kinds = (row_type, column_type)
    return [x[None].astype(kind.dtype.value) for x, kind in zip(grid, kinds, strict=True)]


def build_single_op(
    op: Op, *types: TensorType, weights: dict[str, np.ndarray] | None = None
) -> Model:
    node = make_node("y", op, tuple(f"x{i}" for i in range(len(types))), types)
    assert node is not None
    inputs = tuple(Input(f"x{i}", kind) for i, kind in enumerate(types))
    return Model(verify(Graph("one", inputs, (node,), (Output("y", "y"),))), weights or {})


def count_differing(model: Model, xs: list[np.ndarray], level: str) -> int:
    (node,) = model.graph.nodes
    assert hasattr(node.op, "compute")
    types = model.graph.get_input_types(node)
    params = tuple(model.weights[name] for name in node.params)
    expected = to_onnx_values(node.op.compute(types, tuple(x[None] for x in xs), params), node.type)
    feeds = {
        f"x{i}": to_onnx_values(x[None], kind)
        for i, (x, kind) in enumerate(zip(xs, types, strict=True))
    }
    (got,) = open_session(lower(model), level).run(None, feeds)
    return int((got != expected).sum())


@settings(max_examples=30)
@given(
    scales=st.tuples(*[st.floats(2.0**-8, 2.0**4)] * 3), signed=st.tuples(*[SIGNS] * 3),
    level=st.sampled_from(LEVELS),
)  # fmt: skip
def test_every_pair_of_quantized_values_gives_the_exact_sum_and_product(
    scales, signed, level
) -> None:
    first_type, second_type = (
        create_quantized_type((1, SIDE, SIDE), scales[i], signed[i]) for i in range(2)
    )
    bounds = (True, -128, 127) if signed[2] else (False, 0, 255)
    for op in (QAdd(scales[2], *bounds), QMul(scales[2] * 64, *bounds)):
        model = build_single_op(op, first_type, second_type)
        assert count_differing(model, create_pairs(first_type, second_type), level) == 0


def test_most_sums_of_two_have_a_float32_form() -> None:
    random = np.random.default_rng(0)
    form_count = 0
    for _ in range(200):
        ratios = np.exp2(random.uniform(-6, 6, 2))
        shift = 20 - int(np.floor(np.log2(ratios.max())))
        first_factor, second_factor = (int(np.rint(r * 2.0**shift)) for r in ratios)
        lows = int(random.choice((0, -128))), int(random.choice((0, -128)))
        form_count += find_float_sum((first_factor, second_factor), shift, lows) is not None
    assert form_count >= 190


@pytest.mark.parametrize(
    ("factors", "shift"), [((0, 0), 4), ((1, 0), 1), ((1 << 20, 1 << 20), 20), ((1, 1), 28)]
)
def test_sums_with_odd_factors_are_exact_or_have_no_form(factors, shift) -> None:
    sum_form = find_float_sum(factors, shift, (-128, 0))
    # Ties round up, also below zero. No float step does this for every value of one input.
    assert (sum_form is None) == (factors[1] == 0)
    x0, x1 = np.meshgrid(np.arange(-128, 128), np.arange(256), indexing="ij")
    expected = (x0 * factors[0] + x1 * factors[1] + (1 << (shift - 1))) >> shift
    if sum_form:
        float_inputs = [x.astype(np.float32) for x in (x0, x1)]
        smaller_term = float_inputs[1 - sum_form.larger] * np.float32(sum_form.ratio)
        got = np.rint((float_inputs[sum_form.larger] + smaller_term) / np.float32(sum_form.step))
        assert np.array_equal(np.clip(got, -512, 512), np.clip(expected, -512, 512))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scale", [0.1, 0.2, 0.07, 0.3])
def test_equal_scales_make_no_multiplication_by_one(scale, level) -> None:
    """ONNX Runtime would drop it and fuse the rest into a QLinearAdd."""
    kind = create_quantized_type((1, SIDE, SIDE), 0.1, True)
    model = build_single_op(QAdd(scale, True, -128, 127), kind, kind)
    assert count_differing(model, create_pairs(kind, kind), level) == 0
    factors, shift = model.graph.nodes[0].op.compute_fixed_point(kind, kind)  # type: ignore[attr-defined]
    sum_form = find_float_sum(factors, shift, (-128, -128))
    assert sum_form is None or sum_form.ratio != 1


def test_a_sum_is_not_fused_into_qlinear_add() -> None:
    kind = create_quantized_type((1, SIDE, SIDE), 0.1, True)
    onnx_model = lower(build_single_op(QAdd(0.15, True, -128, 127), kind, kind))
    assert [node.op_type for node in onnx_model.graph.node] == [
        "DequantizeLinear", "DequantizeLinear", "Mul", "Add", "QuantizeLinear",
    ]  # fmt: skip
    # ONNX Runtime fuses two consecutive ones into a QLinearAdd.
    by_name = {node.output[0]: node for node in onnx_model.graph.node}
    (total,) = (node for node in onnx_model.graph.node if node.op_type == "Add")
    assert {by_name[name].op_type for name in total.input} == {"DequantizeLinear", "Mul"}


@given(factor=st.floats(2.0**-14, 2.0**-2, width=32), lows=st.tuples(LOWS, LOWS))
def test_a_float32_step_rounds_like_the_integer_factor(factor, lows) -> None:
    step = find_product_step(factor, lows, 128)
    if step is None:
        return
    first_levels, second_levels = (np.arange(256) + low for low in lows)
    products = np.multiply.outer(first_levels, second_levels).astype(np.float32)
    expected = np.clip(np.rint(products * np.float32(factor)), -512, 512)
    assert np.array_equal(np.clip(np.rint(products / np.float32(step)), -512, 512), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("function", [kind() for kind in ERROR_SCALES], ids=lambda f: f.keyword)
def test_float_functions_give_their_tables(function, level) -> None:
    random = np.random.default_rng(0)
    form_count = 0
    for _ in range(20):
        x = create_quantized_type((1, 16, 16), float(np.exp2(random.uniform(-9, -1))), True)
        largest = float(np.abs(function.evaluate(np.arange(-128, 128) * x.scale)).max())
        low = float(function.evaluate(np.arange(-128, 128) * x.scale).min())
        bounds = (True, -128, 127) if low < 0 else (False, 0, 255)
        scale = float(np.float32(largest / 127 * random.uniform(0.5, 1.3)))
        op = Table(scale, *bounds, function)
        model = build_single_op(op, x, weights={"y.table": op.compute_table(x)})
        float_model = replace_tables(model)
        form_count += float_model.graph.nodes[0].op.keyword == "computed_table"
        quantized_values = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16)
        (expected,) = integer_program.run(model, [quantized_values * np.float32(x.scale)])
        (actual,) = integer_program.run(float_model, [quantized_values * np.float32(x.scale)])
        assert np.array_equal(expected["y"], actual["y"])
        assert count_differing(float_model, [quantized_values], level) == 0
    assert form_count >= 15


@pytest.mark.parametrize("function", [kind() for kind in ERROR_SCALES], ids=lambda f: f.keyword)
def test_runtime_errors_are_below_half_the_allowed_error(function) -> None:
    x = np.linspace(-30, 30, 200_001, dtype=np.float32)
    onnx_model = lower(build_single_op(function, TensorType(x.shape)))
    expected = function.evaluate(x.astype(np.float64))
    allowed = FUNCTION_ERROR * ERROR_SCALES[type(function)](x.astype(np.float64))
    for level in LEVELS:
        (got,) = open_session(onnx_model, level).run(None, {"x0": x[None]})
        assert (np.abs(got[0] - expected) <= allowed / 2).all()


def test_tables_with_other_entries_or_functions_stay_tables() -> None:
    x = create_quantized_type((1, 16, 16), 0.05, True)
    for function, changed in ((Silu(), 1), (Gelu(), 0)):
        op = Table(0.05, True, -128, 127, function)
        entries = op.compute_table(x)
        entries[7] += changed
        model = build_single_op(op, x, weights={"y.table": entries})
        assert replace_tables(model).graph.nodes == model.graph.nodes


def test_functions_with_ambiguous_rounding_have_no_float_form() -> None:
    x = TensorType((1,), DType.I8, float(np.float32(0.25)))
    # The step is so small that the sigmoid error exceeds it.
    y = TensorType((1,), DType.I8, 1e-8)
    table = np.clip(np.rint(Silu().evaluate(np.arange(-128, 128) * 0.25) / 1e-8), -128, 127)
    assert find_function_scales(Silu(), x, y, tuple(int(n) for n in table)) is None


def test_real_values_of_scale_1_are_not_taken_for_quantized_values() -> None:
    """Functions read quantized values by a DequantizeLinear at scale 1."""
    x = create_quantized_type((3, 4, 4), 1.0, True)
    chain = (
        make_node("r", Dequantize(), ("x0",), (x,)),
        make_node("s", Silu(), ("r",), (TensorType(x.shape),)),
    )
    graph = verify(Graph("one", (Input("x0", x),), chain, (Output("s", "s"),)))  # type: ignore[arg-type]
    used_numbers = find_number_types(lower(Model(graph, {})).SerializeToString())
    assert used_numbers.floats
    assert used_numbers.float_operators
    kind = create_quantized_type((1, 4, 4), 0.1, True)
    assert not find_number_types(
        lower(build_single_op(QAdd(0.15, True, -128, 127), kind, kind)).SerializeToString()
    ).floats
