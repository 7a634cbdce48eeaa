"""Otsu's threshold, in whole numbers.

N. Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979: the level that splits
values so that the variance between the two classes is largest.
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def threshold(values: "NDArray[np.uint8]") -> int | None:
    """Return the largest value of the lower class; None where all values are the same.

    Of thresholds that are equally good it is the lowest.
    """
    # A quarter of the time that numpy takes, which makes each value eight times as wide.
    counts = Image.fromarray(values.reshape(len(values), -1)).histogram()
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
