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


def histogram(sample: NDArray[np.float32], top: float, bins: int = BINS) -> Counts:
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
    places = np.abs(sample[sample != 0]) * np.float32(bins / top)
    return np.bincount(np.minimum(places, bins - 1).astype(np.int32), minlength=bins)


def search(counts: Counts, levels: int) -> ClippingThreshold:
    """Return the threshold of the least divergence, of equal ones the largest.

    `levels` is the largest level, 127 or 255: thresholds have at least one bin for each level, so
    that no histogram of fewer numbers is taken for a good one.
    """
    if not counts.any():
        return ClippingThreshold(1.0, 0.0)
    found = divergences(counts, levels)
    # From the end, since argmin takes the first of equal ones and the largest is wanted.
    best = len(found) - 1 - int(np.argmin(found[::-1]))
    return ClippingThreshold((levels + 1 + best) / len(counts), float(found[best]))


def divergences(counts: Counts, levels: int) -> Reals:
    """Return the divergence of each threshold, from `levels` + 1 bins to all; inf where none.

    With C the running sum of counts, and for the bins of each level their sum m and the number n
    of those that are not empty: sum P log Q = sum m log(m / n) + outliers * log(m / n of the last
    level), less the logarithms of the totals. All sums come from differences of running sums.
    """
    total = int(counts.sum())
    known = counts[levels:] > 0
    # All thresholds at once, some 1,800, by running sums, in place of a pass over the histogram for
    # each.
    ends = _ends(len(counts), levels)[known]
    below = np.concatenate([[0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    mass = np.diff(below[ends], axis=1)
    used = np.diff(filled[ends], axis=1)
    inside = below[ends[:, -1]]
    outside = total - inside
    last = counts[ends[:, -1] - 1]
    # 0 log 0 is 0: empty levels cost nothing, and no logarithm of zero is taken.
    spread = np.log(np.maximum(mass, 1) / np.maximum(used, 1))
    own = np.concatenate([[0.0], np.cumsum(_entropy(counts))])
    # P below the threshold as it is, but for its last bin, which has all that lies above.
    clipped = own[ends[:, -1] - 1] + _entropy(last + outside)
    quantised = (mass * spread).sum(axis=1) + outside * spread[:, -1]
    # A difference of large sums may fall below zero by rounding; a divergence cannot.
    found = (clipped - quantised) / total - np.log(total) + np.log(np.maximum(inside, 1))
    every = np.full(len(known), np.inf)
    every[known] = np.maximum(found, 0.0)
    return every


def _entropy(counts: Counts) -> Reals:
    numbers = counts.astype(np.float64)
    found: Reals = numbers * np.log(np.maximum(numbers, 1))
    return found


@lru_cache(maxsize=4)
def _ends(bins: int, levels: int) -> NDArray[np.int32]:
    """Return where the bins of each level end, (thresholds, levels + 2), the first being 0.

    With a threshold of t bins a step is t / levels bins, and bin j, whose middle is j + 1/2, has
    level rint((j + 1/2) * levels / t), half to even as everywhere.
    """
    threshold = np.arange(levels + 1, bins + 1)[:, None]
    level = np.arange(-1, levels + 1)
    # (j + 1/2) * levels / threshold < level + 1/2 in whole numbers: (2j + 1) * levels < edge
    edge = (2 * level + 1) * threshold
    # ceil(edge / levels) // 2 numbers 2j + 1 lie below edge / levels. On a tie bin j goes to the
    # even level of the two.
    below = (-(-edge // levels)) // 2
    tied = (edge % levels == 0) & (edge // levels % 2 == 1) & (level % 2 == 0)
    ends: NDArray[np.int32] = np.clip(below + tied, 0, threshold).astype(np.int32)
    return ends
