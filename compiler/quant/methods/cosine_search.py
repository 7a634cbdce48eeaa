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

STEPS = 21
"""Scales that are tried."""
REACH = 2.0
"""The neighbourhood reaches from the start divided by this to the start times this."""
TIE = 1e-6
"""Cosines that differ by less are equal: a layer of equal weights, such as an average, has the same
cosine at every scale, however much is clipped, and only rounding would choose."""
TURNS = 2
"""How often input and weights take turns."""
MOST = 1 << 15
"""Most numbers of a layer's patches that are looked at."""
MOST_WEIGHTS = 1 << 20
"""Most weights of a layer that are looked at."""
FEWEST = 16
"""Patches that are looked at however wide they are."""
SPREAD = 4
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

    def quantised(self, factor: float) -> Float32:
        """Return the weights after quantisation at `factor` of their scales."""
        return quantised(self.weight, self.scales * np.float32(factor), (-127, 127))


def sampled_conv(windows: InputWindows, weight: Float32, bias: Float32) -> SampledConv:
    """Return a convolution; what is left out of a large one lies evenly over its filters.

    Args:
        windows: Parts of the layer's input.
        weight: float32 (filters, channels / groups, kernel height, kernel width).
        bias: float32 (filters,).
    """
    op = windows.op
    patches = _few(windows)
    shaped = weight.reshape(op.groups, op.filters // op.groups, -1)
    # Every n-th filter, so that all parts of a large layer have a say.
    step = -(-weight.size // MOST_WEIGHTS)
    shaped, bias = shaped[:, ::step], bias.reshape(op.groups, 1, -1)[:, :, ::step]
    real = patches @ shaped.transpose(0, 2, 1) + bias
    return SampledConv(patches, shaped, bias, real, absmax_scale(shaped))


def absmax_scale(weight: Float32) -> Float32:
    """Return absmax / 127 over the last axis, which stays; 1 where all is zero."""
    top = np.abs(weight).max(axis=-1, keepdims=True)
    # A filter of zeros has no magnitude to divide by; any scale holds it.
    return np.where(top > 0, top / np.float32(127), np.float32(1))


def quantised(values: Float32, scale: Float32 | np.float32, limits: tuple[int, int]) -> Float32:
    """Return what numbers become that are stored as integers between limits.

    Args:
        values: Real numbers of any shape.
        scale: What a level stands for, shaped to broadcast.
        limits: The smallest and the largest level.

    Returns:
        The real numbers that the levels stand for, of the shape of `values`.
    """
    steps: Float32 = np.rint(values / scale)
    np.clip(steps, *limits, out=steps)
    steps *= scale
    return steps


def candidates(absmax_scale: float, largest: float) -> Float32:
    """Return the scales around a start, ascending; none above `largest`, the start among them."""
    # Evenly in ratios, as scales matter by their ratio.
    factors = np.geomspace(1 / REACH, REACH, STEPS)
    # geomspace may miss 1 by a rounding.
    factors[STEPS // 2] = 1.0
    found = (absmax_scale * factors).astype(np.float32)
    return found[found <= np.float32(max(largest, absmax_scale))]


def search(
    layers: Sequence[SampledConv], value: Float32, scales: Float32, limits: tuple[int, int]
) -> tuple[float, float, tuple[SampledConv, ...]]:
    """Return the best of scales for a value, its cosine, and the layers with their weights' scales.

    `layers` are those that read the value; where there are none, `value` holds numbers of it.

    Args:
        layers: The convolutions that read the value.
        value: Numbers of it (n,), which are judged where no convolution reads it.
        scales: Those that are tried, ascending.
        limits: The smallest and the largest level of the value.
    """
    found = tuple(layers)
    best = cosine = -1.0
    for _ in range(TURNS):
        before = best
        best, cosine = _activation(found, value, scales, limits)
        # Neither would change any more; a value that no convolution reads has no weights to take
        # turns.
        if best == before or not found:
            break
        found = tuple(_weights(each, np.float32(best), limits) for each in found)
    return best, cosine, found


def _activation(
    layers: Sequence[SampledConv], value: Float32, scales: Float32, limits: tuple[int, int]
) -> tuple[float, float]:
    """Return the best scale of a value, and the mean cosine over those that read it."""
    if layers:
        # Of several readers each counts the same: a scale that suits one alone is none for the
        # value.
        cosines = np.mean([_each(one, scales, limits) for one in layers], axis=0)
    else:
        cosines = np.array([cosine(value, quantised(value, s, limits)) for s in scales])
    best = last_largest(cosines)
    return float(scales[best]), float(cosines[best])


def _each(one: SampledConv, scales: Float32, limits: tuple[int, int]) -> list[float]:
    weight = one.quantised(one.factor).transpose(0, 2, 1)
    return [
        cosine(one.real, quantised(one.patches, scale, limits) @ weight + one.bias)
        for scale in scales
    ]


def _weights(one: SampledConv, scale: np.float32, limits: tuple[int, int]) -> SampledConv:
    """Return a layer with the best scales of its weights, for an input of a given scale."""
    x = quantised(one.patches, scale, limits)
    # Up to 1: above absmax / 127 levels would stay unused.
    factors = candidates(1.0, 1.0)
    count, taps = x.shape[1:]
    # With more patches than taps, moments of the patches are the smaller thing to multiply with.
    found = (_by_gram if count > taps else _by_outputs)(one, x, factors)
    return replace(one, factor=float(factors[last_largest(found)]))


def _by_outputs(one: SampledConv, x: Float32, factors: Float32) -> list[float]:
    """Return the cosine at each factor, for quantised patches."""
    weights = (one.quantised(factor).transpose(0, 2, 1) for factor in factors)
    return [cosine(one.real, x @ weight + one.bias) for weight in weights]


def _by_gram(one: SampledConv, patches: Float32, factors: Float32) -> list[float]:
    """Return the same where there are more patches than taps.

    With X the quantised patches, O the float outputs and w a filter: the dot product of the two
    outputs is (X'O)w + b sum(O), the square of the quantised one's length w'(X'X)w + 2b sum(X)w
    + nb^2, so that the patches are gone through once for all factors.
    """
    x, real = patches.astype(np.float64), one.real.astype(np.float64)
    bias = one.bias.transpose(0, 2, 1).astype(np.float64)
    gram, cross = x.transpose(0, 2, 1) @ x, real.transpose(0, 2, 1) @ x
    sums = x.sum(axis=1)[:, None, :]
    constant = (bias[..., 0] * real.sum(axis=1)).sum(), x.shape[1] * (bias**2).sum()
    length, found = np.sqrt((real**2).sum()), []
    for factor in factors:
        w = one.quantised(factor).astype(np.float64)
        dot = (cross * w).sum() + constant[0]
        square = ((w @ gram + 2 * bias * sums) * w).sum() + constant[1]
        # Rounding may leave a square of a length of zero below it.
        found.append(float(_cosine(dot, length, np.sqrt(max(square, 0.0)))))
    return found


def last_largest(cosines: Sequence[float] | Reals) -> int:
    """Return the place of the largest cosine; of those that are as good as equal, the last."""
    found = np.asarray(cosines, np.float64)
    return int(np.flatnonzero(found >= found.max() - TIE)[-1])


def cosine(a: Float32, b: Float32) -> float:
    """Return the cosine of the angle between two tensors; two of zeros point the same way."""
    x, y = (values.reshape(-1).astype(np.float64) for values in (a, b))
    xy, xx, yy = (np.einsum("i,i->", a, b) for a, b in ((x, y), (x, x), (y, y)))
    return float(_cosine(xy, np.sqrt(xx), np.sqrt(yy)))


def _cosine(dot: Reals | np.float64, a: Reals | np.float64, b: Reals | np.float64) -> Reals:
    both = np.asarray(a * b)
    alone = (np.asarray(a) == 0) & (np.asarray(b) == 0)
    return np.where(both > 0, dot / np.where(both > 0, both, 1.0), alone.astype(np.float64))


def _few(windows: InputWindows) -> Float32:
    """Return patches spread over all windows, at most `MOST` numbers but `FEWEST` patches."""
    op, parts = windows.op, windows.parts
    wanted = max(FEWEST, MOST // (parts.shape[1] * op.kernel[0] * op.kernel[1]))
    each = prod(
        (n - k) // s + 1 for n, k, s in zip(parts.shape[2:], op.window, op.stride, strict=True)
    )
    some = min(wanted, SPREAD * -(-wanted // each))
    found = replace(windows, parts=parts[:: max(1, len(parts) // some)]).patches()
    return np.ascontiguousarray(found[:, :: max(1, found.shape[1] // wanted)])
