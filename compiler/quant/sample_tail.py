"""How far numbers reach of which an image has one: an estimate from the largest of those seen.

Such numbers are outputs, and vectors before them. They are a sample, not the extremes of maps, and
may lie in two heaps, as those of a class and of all others do: a distribution of extremes, fitted
to both at once, ends far beyond either. What lies above a high threshold follows an exponential
distribution whatever lies below it (Pickands, Ann. Stat. 3, 1975, with a shape of 0).
"""

from math import ceil, log

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

UPPER = 1 / 4
"""Share of the images above the threshold."""
EXCESS, WEIGHT = 0.2, 4
"""What is expected before an image is seen, and as how many images above the threshold it counts:
how far these exceed it on the mean, as a share of the mean of all. On trained networks it was 0.03
to 0.3."""


def tail_level(
    values: NDArray[np.float32] | Float64, unseen: int, bound: float = np.inf
) -> Float64:
    """Return the level of each channel that one unseen image in so many is expected to exceed.

    Args:
        values: The number of each channel in each image (images, channels).
        unseen: The images of which one is to exceed it.
        bound: What no number exceeds, whatever the image; what was seen counts more.

    Returns:
        The levels (channels,), none below what was seen; that of a channel of zeros is zero.
    """
    ordered = np.sort(values.astype(np.float64), axis=0)[::-1]
    count = len(ordered)
    above = min(ceil(count * UPPER), count - 1)  # the threshold is one of the numbers
    threshold, known = ordered[above], np.abs(ordered.mean(axis=0)) * EXCESS
    excess = (ordered[:above] - threshold).sum(axis=0)
    mean = (excess + WEIGHT * known) / (above + WEIGHT)
    # P(x > level) = share above the threshold * exp(-(level - threshold) / mean).
    level = threshold + mean * log(max(above, 1) / count * unseen)
    found: Float64 = np.maximum(ordered[0], np.minimum(level, bound))
    return found
