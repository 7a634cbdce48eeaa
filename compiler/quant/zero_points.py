"""Zero points: which values use quantized values below 0 for less than half of their range.

The output of a hard-swish begins at -0.375, and nothing in its input below -3 matters. With zero
point 0 such a value is signed, and wastes almost half of its 256 quantized values.
"""

from collections.abc import Mapping

import numpy as np

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ops import Add, Conv, GlobalAvgPool, Mul, Op
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.quant.calibration import MAX_ZERO_POINT, Range

ZERO_POINT_OPS: tuple[type[Op], ...] = (Conv, Add, Mul, GlobalAvgPool, ScalarFunction)
"""Operations that read and write values with a zero point on every target."""
MAX_SCALE_SHARE = 0.9
"""A zero point must make the scale at most this share of the signed one."""
TOLERANCE = 1 / 4
"""Part of an output's quantization step by which a function may differ where its input is
clipped."""
GRID = 4097


def find_zero_point_values(graph: Graph) -> frozenset[str]:
    """Return the values that can have a zero point.

    Inputs and outputs of the network cannot: whoever reads their bytes knows only their scale.
    """
    outputs = {output.value for output in graph.outputs}
    return frozenset(
        node.name
        for node in graph.nodes
        if node.name not in outputs
        and all(_supports_zero_point(n) for n in (node, *graph.readers[node.name]))
    )


def _supports_zero_point(node: Node) -> bool:
    return isinstance(node.op, ZERO_POINT_OPS) or node.op.moves


def clip_unused_lows(
    graph: Graph, limits: Mapping[str, tuple[float, float]]
) -> Mapping[str, tuple[float, float]]:
    """Return the limits, with minima raised to where the functions that read a value still change.

    Args:
        graph: A lowered graph.
        limits: Minimum and maximum of each value, by name.
    """
    clipped = dict(limits)
    for node in graph.nodes:
        functions = [reader.op for reader in graph.readers[node.name]]
        if node.name in limits and functions:
            low, high = limits[node.name]
            if low < 0 < high and all(isinstance(op, ScalarFunction) for op in functions):
                lows = [
                    _find_first_change(op, low, high)
                    for op in functions
                    if isinstance(op, ScalarFunction)
                ]
                clipped[node.name] = (min(lows), high)
    return clipped


def _find_first_change(function: ScalarFunction, low: float, high: float) -> float:
    """Return the largest number below which a function stays within `TOLERANCE` of its value."""
    points = np.linspace(low, min(0.0, high), GRID)
    results = function.evaluate(points)
    peak = max(np.abs(results).max(), float(np.abs(function.evaluate(np.array([high])))[0]))
    # The largest difference to any result at smaller inputs.
    smallest, largest = np.minimum.accumulate(results), np.maximum.accumulate(results)
    differences = np.maximum(results - smallest, largest - results)
    is_constant = differences <= TOLERANCE * peak / 255
    return float(points[np.flatnonzero(is_constant)[-1]])


def fit_range(low: float, high: float, signed_range: Range) -> Range:
    """Return a range from `low` to `high` with a zero point, or the signed one if it is as good.

    Args:
        low: The minimum, a real number.
        high: The maximum.
        signed_range: The range without a zero point.
    """
    if not low < 0 < high:
        return signed_range
    scale = float(np.float32((np.float64(high) - np.float64(low)) / 255))
    if not scale <= MAX_SCALE_SHARE * signed_range.scale:
        return signed_range
    zero_point = min(max(round(-low / scale), 1), MAX_ZERO_POINT)
    return Range(scale, signed=False, zero_point=zero_point)
