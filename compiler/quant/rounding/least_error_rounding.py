"""Rounding of float weights: to nearest, or with the smallest error at a layer's output (GPTQ).

A filter w reads windows x with second moments G = E[x xT], which are centred if a bias correction
follows. Rounding w to s * q has the cost E[((s q - w) x)^2] = (s q - w) G (s q - w)T at the output.
All computations are float64 and deterministic, so that equal moments give equal weights everywhere.

GPTQ: Frantar et al., arXiv 2210.17323.
"""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.quant.scale_groups import MIN_SCALE

Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]

MAX_WEIGHT = 127
"""Largest weight. -128 is not used, so that a filter and its negative round symmetrically."""
SCALE_SHARES = np.linspace(1.0, 0.6, 21)
"""Candidates for the largest weight, as shares of absmax, in descending order: of ties, the one
that clips least wins."""
DAMPING = 0.01
"""Share of the mean second moment added to the diagonal before inversion, as in GPTQ: with fewer
windows than taps, or taps that are always zero, the matrix is singular."""
MAX_TRIED_WEIGHTS = 1 << 21
"""Maximum weights rounded at a time, over all candidates."""
BLOCK_TAPS = 64
"""Number of taps before the errors are propagated to later taps: GPTQ's lazy batch updates."""


def compute_absmax_scale(weight: Float64) -> Float64:
    """Return the scale of each filter (filters, taps) that clips no weight: absmax / 127.

    Scales are float32 values, as in the int8 program. A filter of zeros has scale 1.
    """
    return _to_float32_scale(np.abs(weight).max(axis=1) / MAX_WEIGHT)


def round_to_nearest(weight: Float64, scale: Float64) -> Int8:
    """Return weights (filters, taps) rounded to steps of each filter's scale, half to even."""
    return np.clip(np.rint(weight / scale[:, None]), -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)


def compute_cost(rounded: Int8, scale: Float64, weight: Float64, moments: Float64) -> Float64:
    """Return the mean squared error of each filter's output from rounding, (filters,).

    Args:
        rounded: The quantized weights (filters, taps).
        scale: The scales of the filters (filters,).
        weight: The real weights (filters, taps).
        moments: Second moments of the inputs: (taps, taps) for all filters,
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
    """Return the scale of each filter with the smallest cost, of 21 candidates up to absmax.

    Weights are rounded to nearest. Of ties, the largest scale wins. The search takes 21 products of
    (filters, taps) with the moments, in batches of up to `MAX_TRIED_WEIGHTS`.

    Args:
        weight: The real weights (filters, taps).
        moments: As for `compute_cost`.

    Returns:
        The scales (filters,), float32 values.
    """
    max_scale = compute_absmax_scale(weight)
    scales = np.stack([_to_float32_scale(max_scale * part) for part in SCALE_SHARES])
    # Moments per filter (filters, taps, taps) only allow one candidate at a time.
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
    """Round weights tap by tap; later taps compensate each rounding error (GPTQ).

    Taps are rounded in order of descending second moment, because nothing compensates the last
    ones. A filter is rounded to nearest if that has a smaller cost.

    The errors of `BLOCK_TAPS` taps are propagated in one matrix product: the same taps^2 * filters
    operations, at the speed of BLAS.

    Args:
        weight: The real weights (filters, taps).
        scale: The scales of the filters (filters,).
        moments: Second moments of the inputs (taps, taps).

    Returns:
        The quantized weights (filters, taps).
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    # Once for all filters, since they read the same windows.
    inverse = _compute_inverse_factor(moments[np.ix_(order, order)])
    # Weights and errors are in quantization steps.
    remaining = weight[:, order] / scale[:, None]
    for start in range(0, remaining.shape[1], BLOCK_TAPS):
        end = min(start + BLOCK_TAPS, remaining.shape[1])
        errors = _round_taps(remaining[:, start:end], inverse[start:end, start:end])
        remaining[:, end:] -= errors @ inverse[start:end, end:]
    rounded = np.empty(remaining.shape, np.int8)
    rounded[:, order] = remaining.astype(np.int8)
    # The search is greedy, and the moments come from few windows: sometimes nearest is better.
    nearest_weights = round_to_nearest(weight, scale)
    worse = compute_cost(rounded, scale, weight, moments) > compute_cost(
        nearest_weights, scale, weight, moments
    )
    return np.where(worse[:, None], nearest_weights, rounded)


def _round_taps(remaining: Float64, inverse: Float64) -> Float64:
    """Round some taps in place; return their errors (filters, taps) for the later taps."""
    errors = np.empty_like(remaining)
    for tap in range(remaining.shape[1]):
        # Faster than `np.clip`: its call overhead would dominate.
        rounded = np.maximum(np.minimum(np.rint(remaining[:, tap]), MAX_WEIGHT), -MAX_WEIGHT)
        # Frantar et al., algorithm 1, with the triangular factor instead of the inverse: later taps
        # compensate the error in proportion to the row of the factor.
        errors[:, tap] = (remaining[:, tap] - rounded) / inverse[tap, tap]
        remaining[:, tap] = rounded
        remaining[:, tap + 1 :] -= errors[:, tap, None] * inverse[tap, tap + 1 :]
    return errors


def _to_float32_scale(scales: Float64) -> Float64:
    """Return scales as float32 values; 1 for those below `MIN_SCALE`."""
    scale = scales.astype(np.float32).astype(np.float64)
    return np.where(scale < MIN_SCALE, 1.0, scale)


def _compute_inverse_factor(moments: Float64) -> Float64:
    """Return the upper triangle U with UT U = inverse of the damped moments."""
    size = len(moments)
    # If all inputs are zero, the trace is zero; then any invertible matrix is valid.
    damping = DAMPING * float(np.trace(moments)) / size
    damped = moments + np.eye(size) * (damping if damping > 0 else 1.0)
    # The lower factor of the reversed matrix gives the upper factor of its inverse.
    lower = np.linalg.cholesky(damped[::-1, ::-1])
    factor: Float64 = np.linalg.inv(lower)[::-1, ::-1]
    return np.ascontiguousarray(factor)
