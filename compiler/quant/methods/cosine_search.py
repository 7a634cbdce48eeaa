"""The fine search of kl-cosine: scales in the neighbourhood of a start, by cosine similarity.

Equation 10 of the DDSNet paper (SAC 2025, section 3.2.3), as in EasyQuant (arXiv 2006.16669): the
scale of a layer's input, then that of its weights, then the input's again, each the one at which
the layer's output with quantised input and weights makes the largest cosine with its float output.
Filters keep the ratios of their scales: a cosine of one filter alone would not see its output
shrink. A value that no convolution reads is judged by itself. Of equal cosines the larger scale
wins.

The naive way runs the whole network for each scale that is tried; here a layer's outputs come from
samples of what it reads, so that a value takes 21 products of its patches with the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.quant.observe.statistics import Float32, InputWindows

Reals = NDArray[np.float64]

CANDIDATE_COUNT = 21
"""Scales that are tried."""
SEARCH_RATIO = 2.0
"""The neighbourhood reaches from the start divided by this to the start times this."""
TIE = 1e-6
"""Cosines that differ by less are equal: a layer of equal weights, such as an average, has the same
cosine at every scale, however much is clipped, and only rounding would choose."""
ITERATIONS = 2
"""How often input and weights take turns."""
MAX_PATCH_NUMBERS = 1 << 15
"""Most numbers of a layer's patches that are looked at."""
MAX_WEIGHTS = 1 << 20
"""Most weights of a layer that are looked at."""
MIN_PATCHES = 16
"""Patches that are looked at however wide they are."""
WINDOW_FACTOR = 4
"""How many times more windows are looked at than would hold enough patches: so these vary more."""


@dataclass(frozen=True, slots=True, eq=False)
class SampledConv:
    """A convolution as the product of patches (groups, n, k) and weights (groups, filters, k).

    `scales` (groups, filters, 1) are the weights' at absmax / 127, of which each filter has
    `factor`; `real` is the float output. Of a large layer it is some of the filters.
    """

    patches: Float32
    weight: Float32
    bias: Float32
    real: Float32
    scales: Float32
    factor: float = 1.0

    def quantize_weights(self, factor: float) -> Float32:
        """Return the weights after quantisation at `factor` of their scales."""
        return quantize_dequantize(self.weight, self.scales * np.float32(factor), (-127, 127))


def sample_conv(windows: InputWindows, weight: Float32, bias: Float32) -> SampledConv:
    """Return a convolution; what is left out of a large one lies evenly over its filters.

    Args:
        windows: Parts of the layer's input.
        weight: float32 (filters, channels / groups, kernel height, kernel width).
        bias: float32 (filters,).
    """
    op = windows.op
    patches = _extract_few_patches(windows)
    grouped_weight = weight.reshape(op.groups, op.filters // op.groups, -1)
    # Every n-th filter, so that all parts of a large layer have a say.
    step = -(-weight.size // MAX_WEIGHTS)
    grouped_weight, bias = grouped_weight[:, ::step], bias.reshape(op.groups, 1, -1)[:, :, ::step]
    real = patches @ grouped_weight.transpose(0, 2, 1) + bias
    return SampledConv(patches, grouped_weight, bias, real, compute_absmax_scale(grouped_weight))


def compute_absmax_scale(weight: Float32) -> Float32:
    """Return absmax / 127 over the last axis, which stays; 1 where all is zero."""
    top = np.abs(weight).max(axis=-1, keepdims=True)
    # A filter of zeros has no magnitude to divide by; any scale holds it.
    return np.where(top > 0, top / np.float32(127), np.float32(1))


def quantize_dequantize(
    numbers: Float32, scale: Float32 | np.float32, limits: tuple[int, int]
) -> Float32:
    """Return what numbers become that are stored as integers between limits.

    Args:
        numbers: Real numbers of any shape.
        scale: What a level stands for, shaped to broadcast.
        limits: The smallest and the largest level.

    Returns:
        The real numbers that the levels stand for, of the shape of `numbers`.
    """
    steps: Float32 = np.rint(numbers / scale)
    np.clip(steps, *limits, out=steps)
    steps *= scale
    return steps


def generate_candidates(absmax_scale: float, largest: float) -> Float32:
    """Return the scales around a start, ascending; none above `largest`, the start among them."""
    # Evenly in ratios, as scales matter by their ratio.
    factors = np.geomspace(1 / SEARCH_RATIO, SEARCH_RATIO, CANDIDATE_COUNT)
    # geomspace may miss 1 by a rounding.
    factors[CANDIDATE_COUNT // 2] = 1.0
    scales = (absmax_scale * factors).astype(np.float32)
    return scales[scales <= np.float32(max(largest, absmax_scale))]


def search(
    layers: Sequence[SampledConv], samples: Float32, scales: Float32, limits: tuple[int, int]
) -> tuple[float, float, tuple[SampledConv, ...]]:
    """Return the best of scales for a value, its cosine, and the layers with their weights' scales.

    `layers` are those that read the value; where there are none, `samples` holds numbers of it.

    Args:
        layers: The convolutions that read the value.
        samples: Numbers of it (n,), which are judged where no convolution reads it.
        scales: Those that are tried, ascending.
        limits: The smallest and the largest level of the value.
    """
    scaled_layers = tuple(layers)
    best = cosine = -1.0
    for _ in range(ITERATIONS):
        previous_best = best
        best, cosine = _search_activation_scale(scaled_layers, samples, scales, limits)
        # Neither would change any more; a value that no convolution reads has no weights to take
        # turns.
        if best == previous_best or not scaled_layers:
            break
        scaled_layers = tuple(
            _search_weight_scale(layer, np.float32(best), limits) for layer in scaled_layers
        )
    return best, cosine, scaled_layers


def _search_activation_scale(
    layers: Sequence[SampledConv], samples: Float32, scales: Float32, limits: tuple[int, int]
) -> tuple[float, float]:
    """Return the best scale of a value, and the mean cosine over those that read it."""
    if layers:
        # Of several readers each counts the same: a scale that suits one alone is none for the
        # value.
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
    """Return a layer with the best scales of its weights, for an input of a given scale."""
    quantized_patches = quantize_dequantize(layer.patches, scale, limits)
    # Up to 1: above absmax / 127 levels would stay unused.
    factors = generate_candidates(1.0, 1.0)
    count, taps = quantized_patches.shape[1:]
    # With more patches than taps, moments of the patches are the smaller thing to multiply with.
    cosines = (_compare_by_gram if count > taps else _compare_by_outputs)(
        layer, quantized_patches, factors
    )
    return replace(layer, factor=float(factors[find_last_largest(cosines)]))


def _compare_by_outputs(
    layer: SampledConv, quantized_patches: Float32, factors: Float32
) -> list[float]:
    """Return the cosine at each factor, for quantised patches."""
    weights = (layer.quantize_weights(factor).transpose(0, 2, 1) for factor in factors)
    return [
        compute_cosine(layer.real, quantized_patches @ weight + layer.bias) for weight in weights
    ]


def _compare_by_gram(layer: SampledConv, patches: Float32, factors: Float32) -> list[float]:
    """Return the same where there are more patches than taps.

    With X the quantised patches, O the float outputs and w a filter: the dot product of the two
    outputs is (X'O)w + b sum(O), the square of the quantised one's length w'(X'X)w + 2b sum(X)w
    + nb^2, so that the patches are gone through once for all factors.
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
        # Rounding may leave a square of a length of zero below it.
        cosines.append(float(_normalize_dot(dot, length, np.sqrt(max(square, 0.0)))))
    return cosines


def find_last_largest(cosines: Sequence[float] | Reals) -> int:
    """Return the place of the largest cosine; of those that are as good as equal, the last."""
    values_array = np.asarray(cosines, np.float64)
    return int(np.flatnonzero(values_array >= values_array.max() - TIE)[-1])


def compute_cosine(a: Float32, b: Float32) -> float:
    """Return the cosine of the angle between two tensors; two of zeros point the same way."""
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
    """Return at least `MIN_PATCHES` patches of all windows, up to `MAX_PATCH_NUMBERS` numbers."""
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
