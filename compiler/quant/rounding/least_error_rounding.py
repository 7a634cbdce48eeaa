"""How float weights become integers: nearest, or with the least error at a layer's output.

A filter w reads windows x with second moments G = E[x xT], centred where a bias correction follows.
Rounding w to s * q costs E[((s q - w) x)^2] = (s q - w) G (s q - w)T at the output. All in float64,
with no randomness, so that the same moments give the same integers everywhere.

GPTQ: Frantar et al., arXiv 2210.17323.
"""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.quant.scale_groups import MIN_SCALE

Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]

MAX_WEIGHT = 127
"""Largest weight: -128 is not used, so that a filter and its negative round alike."""
SCALE_SHARES = np.linspace(1.0, 0.6, 21)
"""Parts of absmax that are tried as the largest weight, the largest first: of equally good ones the
one that clips least is taken."""
DAMPING = 0.01
"""Part of the mean second moment that is added to each before they are inverted, as in GPTQ: fewer
windows than taps, or taps that are always zero, leave the matrix singular."""
MAX_TRIED_WEIGHTS = 1 << 21
"""Weights that are rounded at a time, of all candidates together."""
BLOCK_TAPS = 64
"""Taps whose errors are gathered before the taps behind them are changed: the paper's lazy batch
updates."""


def compute_absmax_scale(weight: Float64) -> Float64:
    """Return the scale of each filter (filters, taps) that lets its largest tap just fit.

    Scales are float32 values, as the integer program holds them; that of zeros is 1.
    """
    # What min-max has: no weight is clipped.
    return _to_float32_scale(np.abs(weight).max(axis=1) / MAX_WEIGHT)


def round_to_nearest(weight: Float64, scale: Float64) -> Int8:
    """Return weights (filters, taps) in steps of each filter's scale, halves to even."""
    return np.clip(np.rint(weight / scale[:, None]), -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)


def compute_cost(rounded: Int8, scale: Float64, weight: Float64, moments: Float64) -> Float64:
    """Return what rounding adds to each filter's output on average, squared: (filters,).

    Args:
        rounded: The integer weights (filters, taps).
        scale: Those of the filters (filters,).
        weight: The real weights (filters, taps).
        moments: Second moments of what is read, (taps, taps) for all filters,
            (filters, taps, taps), or the diagonal (taps,).
    """
    error = rounded * scale[:, None] - weight
    match moments.ndim:
        case 1:
            weighted_error = error * moments
        case 2:
            weighted_error = error @ moments
        case _:
            weighted_error = np.einsum("fi,fij->fj", error, moments)
    total: Float64 = np.einsum("fj,fj->f", weighted_error, error)
    return total


def find_best_scale(weight: Float64, moments: Float64) -> Float64:
    """Return for each filter the scale, of 21 up to absmax, that rounds to nearest at least cost.

    Of equal ones the largest. It takes 21 products of (filters, taps) with the moments, which are
    put together as far as `MAX_TRIED_WEIGHTS` allows.

    Args:
        weight: The real weights (filters, taps).
        moments: As for `compute_cost`.

    Returns:
        The scales (filters,), float32 values.
    """
    max_scale = compute_absmax_scale(weight)
    scales = np.stack([_to_float32_scale(max_scale * part) for part in SCALE_SHARES])
    # Where each filter has moments of its own (filters, taps, taps), they have no rows for several
    # candidates at a time.
    costs = []
    parts = (
        -(-scales.size * weight.shape[1] // MAX_TRIED_WEIGHTS) if moments.ndim < 3 else len(scales)
    )
    for scale_batch in np.array_split(scales, min(parts, len(scales))):
        tried, repeated = np.tile(weight, (len(scale_batch), 1)), scale_batch.reshape(-1)
        rounded = round_to_nearest(tried, repeated)
        costs.append(compute_cost(rounded, repeated, tried, moments).reshape(len(scale_batch), -1))
    best_indices = np.argmin(np.concatenate(costs), axis=0)
    best: Float64 = np.take_along_axis(scales, best_indices[None], axis=0)[0]
    return best


def round_by_gptq(weight: Float64, scale: Float64, moments: Float64) -> Int8:
    """Return weights rounded tap by tap, each error made good by the taps still to come.

    Taps come in order of falling second moment: what is rounded last has none left to make its
    error good, so that the taps that matter least come last. Where all that costs a filter more
    than rounding to nearest, it is rounded to nearest.

    The errors of `BLOCK_TAPS` taps are handed on at once, in one product of matrices: taps^2 *
    filters operations as before, at the speed of BLAS.

    Args:
        weight: The real weights (filters, taps).
        scale: Those of the filters (filters,).
        moments: Second moments of what is read (taps, taps).

    Returns:
        The integer weights (filters, taps).
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    # Once for all filters, which read the same windows.
    inverse = _compute_inverse_factor(moments[np.ix_(order, order)])
    # In steps, so that rounding is `rint`; errors are handed on in steps as well.
    remaining = weight[:, order] / scale[:, None]
    for start in range(0, remaining.shape[1], BLOCK_TAPS):
        end = min(start + BLOCK_TAPS, remaining.shape[1])
        errors = _round_taps(remaining[:, start:end], inverse[start:end, start:end])
        remaining[:, end:] -= errors @ inverse[start:end, end:]
    rounded = np.empty(remaining.shape, np.int8)
    rounded[:, order] = remaining.astype(np.int8)
    # Greedy, with moments of few windows: now and then it does worse than no search at all.
    nearest_weights = round_to_nearest(weight, scale)
    worse = compute_cost(rounded, scale, weight, moments) > compute_cost(
        nearest_weights, scale, weight, moments
    )
    return np.where(worse[:, None], nearest_weights, rounded)


def _round_taps(remaining: Float64, inverse: Float64) -> Float64:
    """Round some taps in place; return their errors (filters, taps) for those that come later."""
    errors = np.empty_like(remaining)
    for tap in range(remaining.shape[1]):
        # Two plain operations: `np.clip` takes as long to call as all else here.
        rounded = np.maximum(np.minimum(np.rint(remaining[:, tap]), MAX_WEIGHT), -MAX_WEIGHT)
        # Frantar et al., algorithm 1, with the triangular factor in place of the inverse itself:
        # what is left of a weight is paid for by those that follow, in proportion to its row.
        errors[:, tap] = (remaining[:, tap] - rounded) / inverse[tap, tap]
        remaining[:, tap] = rounded
        remaining[:, tap + 1 :] -= errors[:, tap, None] * inverse[tap, tap + 1 :]
    return errors


def _to_float32_scale(scales: Float64) -> Float64:
    """Return scales as float32 values; those too small to count are 1."""
    scale = scales.astype(np.float32).astype(np.float64)
    return np.where(scale < MIN_SCALE, 1.0, scale)


def _compute_inverse_factor(moments: Float64) -> Float64:
    """Return the upper triangle U with UT U = inverse of the damped moments."""
    size = len(moments)
    # Of inputs that were all zero the trace is zero; any matrix with an inverse does then.
    damping = DAMPING * float(np.trace(moments)) / size
    damped = moments + np.eye(size) * (damping if damping > 0 else 1.0)
    # Turned around, the lower factor of the matrix gives the upper factor of its inverse.
    lower = np.linalg.cholesky(damped[::-1, ::-1])
    factor: Float64 = np.linalg.inv(lower)[::-1, ::-1]
    return np.ascontiguousarray(factor)
