"""Coarse search of kl-cosine: the clipping threshold by Kullback-Leibler divergence.

Equation 9 of the DDSNet paper (SAC 2025, section 3.2.3). P is the histogram of a value's
magnitudes, with all magnitudes above the threshold in the last bin. Q is the histogram of the
magnitudes below the threshold after quantization: the counts of one quantized value are spread
evenly over its non-empty bins. Clipped magnitudes only count in P, which is the cost of clipping.
Bins that are empty in P contribute nothing. Thresholds with an empty last bin are excluded: Q would
be zero there, and P is not.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""Bins of a histogram, from zero to the largest magnitude."""

Counts = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClippingThreshold:
    """A threshold, as a share of the largest magnitude, and its divergence."""

    share: float
    divergence: float


def compute_histogram(sample: NDArray[np.float32], top: float, bins: int = BINS) -> Counts:
    """Return the histogram of magnitudes over (0, top]; larger magnitudes count in the last bin.

    Zeros are excluded: every threshold represents them exactly. The many zeros after a relu would
    dominate the histogram, and clipping would seem to cost nothing.

    Args:
        sample: Real numbers of any shape.
        top: The upper end of the histogram.
        bins: Number of bins.

    Returns:
        Counts (bins,).
    """
    # A single float32 product gives the same bits on every machine.
    bin_indices = np.abs(sample[sample != 0]) * np.float32(bins / top)
    return np.bincount(np.minimum(bin_indices, bins - 1).astype(np.int32), minlength=bins)


def search(counts: Counts, max_quantized: int) -> ClippingThreshold:
    """Return the threshold with the smallest divergence; of ties, the largest threshold.

    `max_quantized` is the largest quantized value, 127 or 255. A threshold has at least one bin for
    each quantized value.
    """
    if not counts.any():
        return ClippingThreshold(1.0, 0.0)
    kl_divergences = compute_divergences(counts, max_quantized)
    # Reversed, because argmin returns the first of ties and the largest threshold is wanted.
    best_index = len(kl_divergences) - 1 - int(np.argmin(kl_divergences[::-1]))
    return ClippingThreshold(
        (max_quantized + 1 + best_index) / len(counts), float(kl_divergences[best_index])
    )


def compute_divergences(counts: Counts, max_quantized: int) -> Reals:
    """Return the divergence of each threshold from `max_quantized` + 1 bins; inf if undefined.

    For each quantized value, let m be the sum and n the number of its non-empty bins. Then
    sum P log Q = sum m log(m / n) + outliers * log(m / n of the last one), minus the logarithms of
    the totals. All sums are differences of cumulative sums.
    """
    total = int(counts.sum())
    is_defined = counts[max_quantized:] > 0
    # All thresholds at once (about 1,800) by cumulative sums, instead of one pass for each.
    bin_ends = _compute_bin_ends(len(counts), max_quantized)[is_defined]
    below = np.concatenate([[0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    mass = np.diff(below[bin_ends], axis=1)
    used = np.diff(filled[bin_ends], axis=1)
    inside = below[bin_ends[:, -1]]
    outside = total - inside
    last_counts = counts[bin_ends[:, -1] - 1]
    # 0 log 0 is 0; the maximum avoids the logarithm of zero.
    spread = np.log(np.maximum(mass, 1) / np.maximum(used, 1))
    cumulative_entropy = np.concatenate([[0.0], np.cumsum(_compute_entropy(counts))])
    # P below the threshold; its last bin also has all magnitudes above.
    clipped = cumulative_entropy[bin_ends[:, -1] - 1] + _compute_entropy(last_counts + outside)
    quantised = (mass * spread).sum(axis=1) + outside * spread[:, -1]
    # By rounding errors, a difference of large sums can be negative; a divergence cannot.
    defined_divergences = (
        (clipped - quantised) / total - np.log(total) + np.log(np.maximum(inside, 1))
    )
    all_divergences = np.full(len(is_defined), np.inf)
    all_divergences[is_defined] = np.maximum(defined_divergences, 0.0)
    return all_divergences


def _compute_entropy(counts: Counts) -> Reals:
    numbers = counts.astype(np.float64)
    terms: Reals = numbers * np.log(np.maximum(numbers, 1))
    return terms


@lru_cache(maxsize=4)
def _compute_bin_ends(bins: int, max_quantized: int) -> NDArray[np.int32]:
    """Return the end bin of each quantized value, (thresholds, n + 2); the first is 0.

    With n = `max_quantized` and a threshold of t bins, a step is t / n bins. Bin j has its middle
    at j + 1/2, and the quantized value rint((j + 1/2) * n / t), half to even.
    """
    threshold = np.arange(max_quantized + 1, bins + 1)[:, None]
    level = np.arange(-1, max_quantized + 1)
    # (j + 1/2) * n / threshold < level + 1/2 in integers: (2j + 1) * n < edge
    edge = (2 * level + 1) * threshold
    # ceil(edge / n) // 2 numbers 2j + 1 are less than edge / n. On a tie, bin j belongs to the even
    # one of the two.
    below = (-(-edge // max_quantized)) // 2
    tied = (edge % max_quantized == 0) & (edge // max_quantized % 2 == 1) & (level % 2 == 0)
    bin_ends: NDArray[np.int32] = np.clip(below + tied, 0, threshold).astype(np.int32)
    return bin_ends
