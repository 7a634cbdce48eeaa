"""Zero points: which values have one, and what they cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.ir.graph import Graph, Input, Model, Output, make_node, verify
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import (
    AvgPool,
    Conv,
    Gelu,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Op,
    Relu,
    Sigmoid,
    Silu,
)
from tcc.compiler.quant.calibration import MAX_ZERO_POINT, Calibration, Range
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges
from tcc.compiler.quant.zero_points import (
    TOLERANCE,
    clip_unused_lows,
    find_zero_point_values,
    fit_range,
)
from tcc.testing.op_cases import sample_weights

LIMITS = {"x": (-2.0, 2.0), "conv": (-25.0, 9.0), "act": (-0.375, 9.0), "end": (-4.0, 3.0)}


def build_graph(activation: Op, last: Op | None = None) -> Graph:
    """Return x -> conv -> act -> (last) -> end."""
    ops = [("conv", Conv(4, (1, 1))), ("act", activation)]
    ops += [("last", last)] if last else []
    ops += [("end", Conv(3, (1, 1)))]
    kind, source, nodes = TensorType((3, 6, 6)), "x", []
    for name, op in ops:
        node = make_node(name, op, (source,), (kind,))
        assert node is not None
        nodes.append(node)
        kind, source = node.type, name
    inputs = (Input("x", TensorType((3, 6, 6))),)
    return verify(Graph("net", inputs, tuple(nodes), (Output("y", "end", kind="regression"),)))


def compute_ranges(graph: Graph) -> dict[str, Range]:
    limits = {**LIMITS, "last": LIMITS["act"]}
    return dict(compute_minmax_ranges(Model(graph, sample_weights(graph)), limits))


def test_a_hard_swish_and_its_input_have_zero_points() -> None:
    ranges = compute_ranges(build_graph(HardSwish()))
    assert ranges["act"] == Range(float(np.float32(9.375 / 255)), False, 10)
    # Of the input, nothing below -3 matters.
    assert ranges["conv"].scale * ranges["conv"].limits[0] == pytest.approx(-3, abs=0.06)
    assert ranges["conv"].scale == pytest.approx(12 / 255, rel=0.01)


def test_inputs_and_outputs_have_none() -> None:
    graph = build_graph(HardSwish())
    assert find_zero_point_values(graph) == {"conv", "act"}
    ranges = compute_ranges(graph)
    assert [ranges[name].zero_point for name in ("x", "end")] == [0, 0]


def test_values_next_to_a_mean_of_windows_have_none() -> None:
    assert find_zero_point_values(build_graph(HardSwish(), AvgPool((2, 2), (2, 2)))) == {"conv"}


def test_what_is_moved_keeps_its_zero_point() -> None:
    ranges = compute_ranges(build_graph(HardSwish(), MaxPool((2, 2), (2, 2))))
    assert ranges["last"] == ranges["act"] == Range(float(np.float32(9.375 / 255)), False, 10)


def test_a_value_that_cannot_be_negative_stays_unsigned() -> None:
    assert compute_ranges(build_graph(Relu()))["act"] == Range(float(np.float32(9 / 255)), False)


@pytest.mark.parametrize("function", [HardSwish(), Silu(), Gelu(), Sigmoid(), LeakyRelu(0.1)])
@given(low=st.floats(-60, -0.01), high=st.floats(0.01, 60))
def test_a_clipped_input_changes_no_function_by_more_than_the_tolerance(function, low, high):
    graph = build_graph(function)
    (clipped, top) = clip_unused_lows(graph, {"conv": (low, high)})["conv"]
    assert (low <= clipped <= 0, top) == (True, high)
    numbers = np.linspace(low, high, 3000)
    difference = np.abs(
        function.evaluate(numbers) - function.evaluate(np.maximum(numbers, clipped))
    )
    peak = np.abs(function.evaluate(np.array([low, high, *numbers]))).max()
    # The grid of the search may miss the extreme of the function by a little.
    assert difference.max() <= 1.1 * TOLERANCE * peak / 255


@given(low=st.floats(-1e3, -1e-3), high=st.floats(1e-3, 1e3), factor=st.floats(0.3, 3))
def test_a_range_with_a_zero_point_contains_its_ends(low, high, factor):
    signed = Range(max(-low, high) / 127, signed=True)
    value_range = fit_range(low, high, signed)
    if not value_range.zero_point:
        assert value_range == signed
        return
    assert 1 <= value_range.zero_point <= MAX_ZERO_POINT
    bounds = [value_range.scale * limit for limit in value_range.limits]
    assert bounds == pytest.approx([low, high], abs=1.01 * value_range.scale)
    # Another scale moves the upper end, and keeps the lower one within half a step.
    scaled = value_range.with_scale(value_range.scale * factor)
    if 1 < scaled.zero_point < MAX_ZERO_POINT:
        lower = scaled.scale * scaled.limits[0]
        assert lower == pytest.approx(bounds[0], abs=0.51 * scaled.scale)


def test_the_program_has_the_types_of_the_ranges() -> None:
    graph = build_graph(HardSwish())
    model = Model(graph, sample_weights(graph))
    program = quantize(model, Calibration(compute_ranges(graph)))
    kind = program.graph.types["act"]
    assert (kind.dtype, kind.zero_point, kind.limits) == (DType.U8, 10, (-10, 245))
