"""Weights rounded to the nearest integer, and what bounds every choice of a weight's scale."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Float32, Range, RoundedWeights
from tcc.compiler.quant.scale_groups import SMALLEST, fused_clamps

Real = NDArray[np.float32] | NDArray[np.float64]

SUM_BITS = 30
"""The products of a sum, and its bias, each stay below 2**30: so the sum fits an int32."""
SMALLEST_FACTOR = 2.0**-32
"""Below this M, no sum that fits an int32 reaches half a step of the output."""


def round_nearest(model: Model, ranges: Mapping[str, Range]) -> Mapping[str, RoundedWeights]:
    """Return the integer weights of every convolution by name, each rounded to nearest.

    Args:
        model: A ready model.
        ranges: The ranges of its kept values.
    """
    inside = {source: clamp for clamp, source in fused_clamps(model.graph).items()}
    found = {}
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weight, *bias = (model.weights[name] for name in node.params)
            shift = bias[0] if bias else np.zeros(len(weight), np.float32)
            x, y = ranges[node.inputs[0]], ranges[inside.get(node.name, node.name)]
            found[node.name] = rounded(weight, shift, x, y)
    return found


def rounded(weight: Real, bias: Real, x: Range, y: Range) -> RoundedWeights:
    """Return weights (filters, ...) rounded to nearest at absmax / 127 per filter, or above.

    The scale is larger where the sum could overflow an int32 or the bias would not fit, and 1 for
    a filter of zeros.

    Args:
        weight: Real numbers (filters, ...).
        bias: Real numbers (filters,).
        x: The range of the input.
        y: The range of the output, after a clamp that the convolution takes in.
    """
    # In float64: the scale is rounded to float32 once, at the end.
    flat = np.abs(weight.reshape(len(weight), -1)).astype(np.float64)
    scale = allowed_scales(flat.max(axis=1) / largest_weight(flat.shape[1], x), bias, x, y)
    steps = np.rint(weight / scale.astype(np.float64).reshape(-1, *(1 for _ in weight.shape[1:])))
    return RoundedWeights(steps.astype(np.int8), scale, bias_steps(bias, scale, x))


def largest_weight(taps: int, x: Range) -> int:
    """Return the largest weight of which `taps` products with any input cannot overflow."""
    # With 127 up to 33,155 taps of unsigned levels: only linear layers of large maps have more.
    return max(1, min(127, (1 << SUM_BITS) // (taps * largest_level(x))))


def largest_level(x: Range) -> int:
    """Return the largest magnitude of a level."""
    return max(abs(limit) for limit in x.limits)


def allowed_scales(scale: NDArray[np.float64], bias: Real, x: Range, y: Range) -> Float32:
    """Return weight scales (filters,), each raised to the least that the arithmetic allows.

    Args:
        scale: The scales that are wanted (filters,); those too small to count become 1.
        bias: The real biases (filters,), each of which must fit `SUM_BITS` bits of steps.
        x: The range of the input.
        y: The range of the output, after a clamp that the convolution takes in.
    """
    least = np.abs(bias.astype(np.float64)) / (x.scale * 2.0**SUM_BITS)
    # A little above, so that M, which is rounded to float32 twice, does not fall below the bound.
    least = np.maximum(least, y.scale / x.scale * SMALLEST_FACTOR * (1 + 2.0**-20))
    # A filter of zeros may still have a bias, whose steps its scale decides.
    dead = scale < SMALLEST
    raised = np.where(dead & (least < SMALLEST), 1.0, np.maximum(scale, least))
    return raised.astype(np.float32)


def bias_steps(bias: Real, scale: Float32, x: Range) -> NDArray[np.int32]:
    """Return a bias (filters,) in steps of x.scale * scale, rounded to nearest.

    Args:
        bias: Real numbers (filters,).
        scale: The weights' scales (filters,).
        x: The range of the input.
    """
    step = np.float64(x.scale) * scale.astype(np.float64)
    return np.rint(bias.astype(np.float64) / step).astype(np.int32)
