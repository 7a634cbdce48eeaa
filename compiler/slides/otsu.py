"""Otsu's threshold, in whole numbers.

N. Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979: the level that splits
values so that the variance between the two classes is largest.
"""

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIP = 1 << 16
"""Values that are counted at a time, which bounds the memory."""


def threshold(values: "NDArray[np.uint8]") -> int | None:
    """Return the largest value of the lower class; None where all values are the same.

    Of thresholds that are equally good it is the lowest.
    """
    counts = _histogram(values.reshape(-1)).tolist()
    total, moment = sum(counts), sum(value * count for value, count in enumerate(counts))
    best, found = Fraction(0), None
    below = first = 0
    for value, count in enumerate(counts[:-1]):
        below += count
        first += value * count
        if 0 < below < total:
            # Otsu's equation 18, times what is the same for every level. In fractions, since of
            # equal ones the lowest is taken: rounded, equal ones may differ.
            between = Fraction((first * total - moment * below) ** 2, below * (total - below))
            if between > best:
                best, found = between, value
    return found


def contrast(values: "NDArray[np.uint8]", level: int) -> float:
    """Return how far the means of the two classes are apart that a threshold makes."""
    counts = _histogram(values.reshape(-1))
    numbers = np.arange(len(counts))
    low, high = (counts * (numbers <= level), counts * (numbers > level))
    return float((high @ numbers) / high.sum() - (low @ numbers) / low.sum())


def _histogram(values: "NDArray[np.uint8]") -> "NDArray[np.int64]":
    """Return how often each value is there."""
    found = np.zeros(256, np.int64)
    for first in range(0, len(values), STRIP):  # each is made eight times as wide
        found += np.bincount(values[first : first + STRIP], minlength=256)
    return found
