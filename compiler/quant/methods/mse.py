"""The clipping threshold with the smallest mean squared quantization error.

A lower threshold clips more, a higher one rounds more coarsely. The sum of both errors, over a
histogram, has one minimum, which is searched among a few dozen thresholds.
"""

from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import make_value_search

if TYPE_CHECKING:
    from tcc.compiler.quant.methods.value_groups import ValueGroup

BINS = 8192
"""Bins of the histogram: 32 or 64 per quantization step, to resolve rounding errors."""
MIN_SHARE, SHARE_COUNT = 0.25, 49
"""Smallest threshold, as a share of the largest magnitude, and number of thresholds up to 1."""


def find_share(group: "ValueGroup") -> float:
    """Return the threshold with the smallest error, as a share; of ties, the larger."""
    import numpy as np

    shares = np.linspace(MIN_SHARE, 1.0, SHARE_COUNT)
    counts = group.compute_histogram(BINS)
    middles = (np.arange(BINS) + 0.5) / BINS
    steps = shares[:, None] / group.max_quantized
    # One matrix of thresholds by bins: 49 by 8,192.
    errors = middles - np.minimum(np.rint(middles / steps), group.max_quantized) * steps
    sums = (errors**2) @ counts
    # Reversed, because argmin returns the first of ties and the largest is wanted.
    return float(shares[len(shares) - 1 - int(np.argmin(sums[::-1]))])


MSE = RangeMethod(
    "mse",
    "the clipping threshold with the smallest mean squared error",
    make_value_search(find_share),
)
