"""Rounding of weights to nearest, and the lower bounds of weight scales."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Float32, Range, RoundedWeights
from tcc.compiler.quant.scale_groups import MIN_SCALE, find_fused_clamps

Real = NDArray[np.float32] | NDArray[np.float64]

SUM_BITS = 30
"""The sum of products and the bias each stay below 2**30, so that the total fits an int32."""
MIN_MULTIPLIER = 2.0**-32
"""Minimum M: with a smaller one, no int32 sum reaches half a step of the output."""


def round_nearest(model: Model, ranges: Mapping[str, Range]) -> Mapping[str, RoundedWeights]:
    """Return the quantized weights of every convolution by name, rounded to nearest.

    Args:
        model: A lowered model.
        ranges: The ranges of its unfused values.
    """
    clamp_by_source = {source: clamp for clamp, source in find_fused_clamps(model.graph).items()}
    rounded_weights = {}
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weight, *bias = (model.weights[name] for name in node.params)
            conv_bias = bias[0] if bias else np.zeros(len(weight), np.float32)
            input_range, output_range = (
                ranges[node.inputs[0]],
                ranges[clamp_by_source.get(node.name, node.name)],
            )
            rounded_weights[node.name] = round_weights(weight, conv_bias, input_range, output_range)
    return rounded_weights


def round_weights(
    weight: Real, bias: Real, input_range: Range, output_range: Range
) -> RoundedWeights:
    """Return weights (filters, ...) rounded to nearest at a scale of at least absmax / 127.

    The scale is larger if the sum could overflow an int32 or the bias would not fit. It is 1 for a
    filter of zeros.

    Args:
        weight: Real weights (filters, ...).
        bias: Real biases (filters,).
        input_range: The range of the input.
        output_range: The range of the output, after a fused clamp.
    """
    # In float64: the scale is rounded to float32 only once, at the end.
    flat = np.abs(weight.reshape(len(weight), -1)).astype(np.float64)
    scale = bound_scales(
        flat.max(axis=1) / compute_max_weight(flat.shape[1], input_range),
        bias,
        input_range,
        output_range,
    )
    steps = np.rint(weight / scale.astype(np.float64).reshape(-1, *(1 for _ in weight.shape[1:])))
    return RoundedWeights(steps.astype(np.int8), scale, quantize_bias(bias, scale, input_range))


def compute_max_weight(taps: int, input_range: Range) -> int:
    """Return the largest weight for which `taps` products with any input cannot overflow."""
    # 127 for up to 33,155 taps of unsigned values: only linear layers of large maps have more.
    return max(1, min(127, (1 << SUM_BITS) // (taps * compute_max_magnitude(input_range))))


def compute_max_magnitude(value_range: Range) -> int:
    """Return the largest magnitude of a quantized value."""
    return max(abs(limit) for limit in value_range.limits)


def bound_scales(
    scale: NDArray[np.float64], bias: Real, input_range: Range, output_range: Range
) -> Float32:
    """Return weight scales (filters,), raised to the minimum that the arithmetic allows.

    Args:
        scale: The desired scales (filters,); those below `MIN_SCALE` become 1.
        bias: The real biases (filters,), which must fit `SUM_BITS` bits in steps of the sum.
        input_range: The range of the input.
        output_range: The range of the output, after a fused clamp.
    """
    min_scales = np.abs(bias.astype(np.float64)) / (input_range.scale * 2.0**SUM_BITS)
    # With a small margin, since M is rounded to float32 twice and must not fall below the bound.
    min_scales = np.maximum(
        min_scales, output_range.scale / input_range.scale * MIN_MULTIPLIER * (1 + 2.0**-20)
    )
    # A filter of zeros can have a bias; the bias's step depends on the scale.
    is_zero = scale < MIN_SCALE
    bounded_scales = np.where(
        is_zero & (min_scales < MIN_SCALE), 1.0, np.maximum(scale, min_scales)
    )
    return bounded_scales.astype(np.float32)


def quantize_bias(bias: Real, scale: Float32, input_range: Range) -> NDArray[np.int32]:
    """Return a bias (filters,) in steps of x.scale * scale, rounded to nearest.

    Args:
        bias: Real biases (filters,).
        scale: The weight scales (filters,).
        input_range: The range of the input.
    """
    step = np.float64(input_range.scale) * scale.astype(np.float64)
    return np.rint(bias.astype(np.float64) / step).astype(np.int32)
