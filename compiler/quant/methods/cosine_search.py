"""Fine search of kl-cosine: scales near a start value, by cosine similarity.

Equation 10 of the DDSNet paper (SAC 2025, section 3.2.3), as in EasyQuant (arXiv 2006.16669). The
search alternates between the scale of a layer's input and the scale of its weights. Each is the
scale at which the layer's output with quantized input and weights has the largest cosine with its
fp32 output. The ratios between the scales of filters are fixed, because the cosine of a single
filter is blind to a smaller output. For a value that no convolution reads, its own cosine counts.
Of equal cosines, the larger scale wins.

The naive method runs the full network for each candidate scale. Here, a layer's outputs come from
samples of its input, so that a value takes 21 products of its patches with the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.quant.observe.statistics import Float32, InputWindows

Reals = NDArray[np.float64]

CANDIDATE_COUNT = 21
"""Number of candidate scales."""
SEARCH_RATIO = 2.0
"""The search goes from start / SEARCH_RATIO to start * SEARCH_RATIO."""
TIE = 1e-6
"""Cosines with a smaller difference count as equal. A layer of equal weights, such as an average,
has the same cosine at every scale, even with clipping; only rounding errors would decide."""
ITERATIONS = 2
"""Number of alternations between input and weights."""
MAX_PATCH_NUMBERS = 1 << 15
"""Maximum numbers in a layer's patches."""
MAX_WEIGHTS = 1 << 20
"""Maximum weights of a layer that are used."""
MIN_PATCHES = 16
"""Minimum number of patches, however large they are."""
WINDOW_FACTOR = 4
"""Patches come from this many times more windows than necessary, for more variety."""


@dataclass(frozen=True, slots=True, eq=False)
class SampledConv:
    """A convolution as the product of patches (groups, n, k) and weights (groups, filters, k).

    `scales` (groups, filters, 1) are the weight scales at absmax / 127; the used scale is `factor`
    times that. `real` is the fp32 output. A large layer is represented by some of its filters.
    """

    patches: Float32
    weight: Float32
    bias: Float32
    real: Float32
    scales: Float32
    factor: float = 1.0

    def quantize_weights(self, factor: float) -> Float32:
        """Return the weights, quantized at `factor` times their scales and dequantized."""
        return quantize_dequantize(self.weight, self.scales * np.float32(factor), (-127, 127))


def sample_conv(windows: InputWindows, weight: Float32, bias: Float32) -> SampledConv:
    """Return a sampled convolution; a large one is represented by evenly spaced filters.

    Args:
        windows: Windows of the layer's input.
        weight: float32 (filters, channels / groups, kernel height, kernel width).
        bias: float32 (filters,).
    """
    op = windows.op
    patches = _extract_few_patches(windows)
    grouped_weight = weight.reshape(op.groups, op.filters // op.groups, -1)
    # Every n-th filter, so that all parts of a large layer are represented.
    step = -(-weight.size // MAX_WEIGHTS)
    grouped_weight, bias = grouped_weight[:, ::step], bias.reshape(op.groups, 1, -1)[:, :, ::step]
    real = patches @ grouped_weight.transpose(0, 2, 1) + bias
    return SampledConv(patches, grouped_weight, bias, real, compute_absmax_scale(grouped_weight))


def compute_absmax_scale(weight: Float32) -> Float32:
    """Return absmax / 127 over the last axis, which is kept; 1 if all weights are zero."""
    top = np.abs(weight).max(axis=-1, keepdims=True)
    # For a filter of zeros, any scale is valid.
    return np.where(top > 0, top / np.float32(127), np.float32(1))


def quantize_dequantize(
    numbers: Float32, scale: Float32 | np.float32, limits: tuple[int, int]
) -> Float32:
    """Quantize and dequantize real numbers.

    Args:
        numbers: Real numbers of any shape.
        scale: The scale, broadcastable to `numbers`.
        limits: The smallest and the largest quantized value.

    Returns:
        The dequantized numbers, of the shape of `numbers`.
    """
    steps: Float32 = np.rint(numbers / scale)
    np.clip(steps, *limits, out=steps)
    steps *= scale
    return steps


def generate_candidates(absmax_scale: float, largest: float) -> Float32:
    """Return candidate scales around a start value, ascending, up to `largest`."""
    # A geometric series: only the ratio of scales matters.
    factors = np.geomspace(1 / SEARCH_RATIO, SEARCH_RATIO, CANDIDATE_COUNT)
    # geomspace may miss 1 by a rounding error.
    factors[CANDIDATE_COUNT // 2] = 1.0
    scales = (absmax_scale * factors).astype(np.float32)
    return scales[scales <= np.float32(max(largest, absmax_scale))]


def search(
    layers: Sequence[SampledConv], samples: Float32, scales: Float32, limits: tuple[int, int]
) -> tuple[float, float, tuple[SampledConv, ...]]:
    """Return the best scale of a value, its cosine, and the layers with their weight scales.

    Args:
        layers: The convolutions that read the value.
        samples: Samples of the value (n,), used if no convolution reads it.
        scales: Candidate scales, ascending.
        limits: The smallest and the largest quantized value.
    """
    scaled_layers = tuple(layers)
    best = cosine = -1.0
    for _ in range(ITERATIONS):
        previous_best = best
        best, cosine = _search_activation_scale(scaled_layers, samples, scales, limits)
        # Converged, or there are no weights to alternate with.
        if best == previous_best or not scaled_layers:
            break
        scaled_layers = tuple(
            _search_weight_scale(layer, np.float32(best), limits) for layer in scaled_layers
        )
    return best, cosine, scaled_layers


def _search_activation_scale(
    layers: Sequence[SampledConv], samples: Float32, scales: Float32, limits: tuple[int, int]
) -> tuple[float, float]:
    """Return the best scale of a value, and the mean cosine over the layers that read it."""
    if layers:
        # All readers have equal weight.
        cosines = np.mean([_compare_scales(layer, scales, limits) for layer in layers], axis=0)
    else:
        cosines = np.array(
            [compute_cosine(samples, quantize_dequantize(samples, s, limits)) for s in scales]
        )
    best = find_last_largest(cosines)
    return float(scales[best]), float(cosines[best])


def _compare_scales(layer: SampledConv, scales: Float32, limits: tuple[int, int]) -> list[float]:
    weight = layer.quantize_weights(layer.factor).transpose(0, 2, 1)
    return [
        compute_cosine(
            layer.real, quantize_dequantize(layer.patches, scale, limits) @ weight + layer.bias
        )
        for scale in scales
    ]


def _search_weight_scale(
    layer: SampledConv, scale: np.float32, limits: tuple[int, int]
) -> SampledConv:
    """Return a layer with its best weight scales, for a given input scale."""
    quantized_patches = quantize_dequantize(layer.patches, scale, limits)
    # Up to 1: a scale above absmax / 127 leaves quantized values unused.
    factors = generate_candidates(1.0, 1.0)
    count, taps = quantized_patches.shape[1:]
    # With more patches than taps, the Gram matrix is smaller than the patches.
    cosines = (_compare_by_gram if count > taps else _compare_by_outputs)(
        layer, quantized_patches, factors
    )
    return replace(layer, factor=float(factors[find_last_largest(cosines)]))


def _compare_by_outputs(
    layer: SampledConv, quantized_patches: Float32, factors: Float32
) -> list[float]:
    """Return the cosine at each factor, computed from quantized patches."""
    weights = (layer.quantize_weights(factor).transpose(0, 2, 1) for factor in factors)
    return [
        compute_cosine(layer.real, quantized_patches @ weight + layer.bias) for weight in weights
    ]


def _compare_by_gram(layer: SampledConv, patches: Float32, factors: Float32) -> list[float]:
    """Return the cosine at each factor, computed from the Gram matrix of the patches.

    With X the quantized patches, O the fp32 outputs and w a filter, the dot product of the two
    outputs is (X'O)w + b sum(O). The squared length of the quantized output is w'(X'X)w +
    2b sum(X)w + nb^2. One pass over the patches is enough for all factors.
    """
    quantized_patches, real = patches.astype(np.float64), layer.real.astype(np.float64)
    bias = layer.bias.transpose(0, 2, 1).astype(np.float64)
    gram, cross = (
        quantized_patches.transpose(0, 2, 1) @ quantized_patches,
        real.transpose(0, 2, 1) @ quantized_patches,
    )
    sums = quantized_patches.sum(axis=1)[:, None, :]
    constant = (bias[..., 0] * real.sum(axis=1)).sum(), quantized_patches.shape[1] * (bias**2).sum()
    length, cosines = np.sqrt((real**2).sum()), []
    for factor in factors:
        w = layer.quantize_weights(factor).astype(np.float64)
        dot = (cross * w).sum() + constant[0]
        square = ((w @ gram + 2 * bias * sums) * w).sum() + constant[1]
        # Rounding errors can make the square of a zero length negative.
        cosines.append(float(_normalize_dot(dot, length, np.sqrt(max(square, 0.0)))))
    return cosines


def find_last_largest(cosines: Sequence[float] | Reals) -> int:
    """Return the index of the largest cosine; of ties (`TIE`), the last."""
    values_array = np.asarray(cosines, np.float64)
    return int(np.flatnonzero(values_array >= values_array.max() - TIE)[-1])


def compute_cosine(a: Float32, b: Float32) -> float:
    """Return the cosine similarity of two tensors; 1 if both are zero."""
    a_flat, b_flat = (tensor.reshape(-1).astype(np.float64) for tensor in (a, b))
    xy, xx, yy = (
        np.einsum("i,i->", a, b) for a, b in ((a_flat, b_flat), (a_flat, a_flat), (b_flat, b_flat))
    )
    return float(_normalize_dot(xy, np.sqrt(xx), np.sqrt(yy)))


def _normalize_dot(dot: Reals | np.float64, a: Reals | np.float64, b: Reals | np.float64) -> Reals:
    length_product = np.asarray(a * b)
    both_zero = (np.asarray(a) == 0) & (np.asarray(b) == 0)
    return np.where(
        length_product > 0,
        dot / np.where(length_product > 0, length_product, 1.0),
        both_zero.astype(np.float64),
    )


def _extract_few_patches(windows: InputWindows) -> Float32:
    """Return patches of all windows: at most `MAX_PATCH_NUMBERS` numbers, but `MIN_PATCHES`."""
    op, parts = windows.op, windows.parts
    patch_count = max(
        MIN_PATCHES, MAX_PATCH_NUMBERS // (parts.shape[1] * op.kernel[0] * op.kernel[1])
    )
    patches_per_window = prod(
        (n - k) // s + 1 for n, k, s in zip(parts.shape[2:], op.window, op.stride, strict=True)
    )
    window_count = min(patch_count, WINDOW_FACTOR * -(-patch_count // patches_per_window))
    patches = replace(windows, parts=parts[:: max(1, len(parts) // window_count)]).extract_patches()
    return np.ascontiguousarray(patches[:, :: max(1, patches.shape[1] // patch_count)])
