"""The coarse search of kl-cosine: the clipping threshold by Kullback-Leibler divergence.

Equation 9 of the DDSNet paper (SAC 2025, section 3.2.3): P is the histogram of a value's
magnitudes, all that lies above the threshold counted in its last bin; Q that of the numbers below
the threshold after quantisation, where those of one level are taken to lie evenly in its bins that
are not empty. So what is clipped counts in P alone: that is the price of clipping. Bins that are
empty in P contribute nothing. Thresholds whose last bin is empty are left out: Q would be zero
there, where P is not.
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
    """Return how many magnitudes lie in each bin of (0, top]; larger ones count in the last.

    Zeros are left out: a level of their own holds them exactly at any threshold. Counted, those
    that a relu makes outweigh all else, and what is clipped seems to cost nothing.

    Args:
        sample: Real numbers of any shape.
        top: The largest magnitude that has a bin.
        bins: How many there are.

    Returns:
        Counts (bins,).
    """
    # In float32 as one product, which is the same on every machine.
    bin_indices = np.abs(sample[sample != 0]) * np.float32(bins / top)
    return np.bincount(np.minimum(bin_indices, bins - 1).astype(np.int32), minlength=bins)


def search(counts: Counts, max_quantized: int) -> ClippingThreshold:
    """Return the threshold of the least divergence, of equal ones the largest.

    `max_quantized` is the largest level, 127 or 255: thresholds have at least one bin for each
    level, so that no histogram of fewer numbers is taken for a good one.
    """
    if not counts.any():
        return ClippingThreshold(1.0, 0.0)
    kl_divergences = compute_divergences(counts, max_quantized)
    # From the end, since argmin takes the first of equal ones and the largest is wanted.
    best_index = len(kl_divergences) - 1 - int(np.argmin(kl_divergences[::-1]))
    return ClippingThreshold(
        (max_quantized + 1 + best_index) / len(counts), float(kl_divergences[best_index])
    )


def compute_divergences(counts: Counts, max_quantized: int) -> Reals:
    """Return the divergence of each threshold, from `max_quantized` + 1 bins; inf if undefined.

    With C the running sum of counts, and for the bins of each level their sum m and the number n
    of those that are not empty: sum P log Q = sum m log(m / n) + outliers * log(m / n of the last
    level), less the logarithms of the totals. All sums come from differences of running sums.
    """
    total = int(counts.sum())
    is_defined = counts[max_quantized:] > 0
    # All thresholds at once, some 1,800, by running sums, in place of a pass over the histogram for
    # each.
    bin_ends = _compute_bin_ends(len(counts), max_quantized)[is_defined]
    below = np.concatenate([[0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    mass = np.diff(below[bin_ends], axis=1)
    used = np.diff(filled[bin_ends], axis=1)
    inside = below[bin_ends[:, -1]]
    outside = total - inside
    last_counts = counts[bin_ends[:, -1] - 1]
    # 0 log 0 is 0: empty levels cost nothing, and no logarithm of zero is taken.
    spread = np.log(np.maximum(mass, 1) / np.maximum(used, 1))
    cumulative_entropy = np.concatenate([[0.0], np.cumsum(_compute_entropy(counts))])
    # P below the threshold as it is, but for its last bin, which has all that lies above.
    clipped = cumulative_entropy[bin_ends[:, -1] - 1] + _compute_entropy(last_counts + outside)
    quantised = (mass * spread).sum(axis=1) + outside * spread[:, -1]
    # A difference of large sums may fall below zero by rounding; a divergence cannot.
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
    """Return where the bins of each level end, (thresholds, levels + 2), the first being 0.

    With a threshold of t bins a step is t / levels bins, and bin j, whose middle is j + 1/2, has
    level rint((j + 1/2) * levels / t), half to even as everywhere.
    """
    threshold = np.arange(max_quantized + 1, bins + 1)[:, None]
    level = np.arange(-1, max_quantized + 1)
    # (j + 1/2) * levels / threshold < level + 1/2 in whole numbers: (2j + 1) * levels < edge
    edge = (2 * level + 1) * threshold
    # ceil(edge / levels) // 2 numbers 2j + 1 lie below edge / levels. On a tie bin j goes to the
    # even level of the two.
    below = (-(-edge // max_quantized)) // 2
    tied = (edge % max_quantized == 0) & (edge // max_quantized % 2 == 1) & (level % 2 == 0)
    bin_ends: NDArray[np.int32] = np.clip(below + tied, 0, threshold).astype(np.int32)
    return bin_ends
