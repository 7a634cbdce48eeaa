"""The threshold at which the mean square of what quantising changes is least.

Clipping costs what lies above the threshold, rounding costs more the higher the threshold is: the
sum of both, over a histogram, has one low place that is looked for among a few dozen.
"""

from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import make_value_search

if TYPE_CHECKING:
    from tcc.compiler.quant.methods.value_groups import ValueGroup

BINS = 8192
"""Bins of the histogram: at 8 bits 32 or 64 to a step, so that errors within a step are seen."""
MIN_SHARE, SHARE_COUNT = 0.25, 49
"""The least share of the largest magnitude that is tried, and how many up to the whole."""


def find_share(group: "ValueGroup") -> float:
    """Return the threshold of the least mean square error, as a share; of equal ones the larger."""
    import numpy as np

    shares = np.linspace(MIN_SHARE, 1.0, SHARE_COUNT)
    counts = group.compute_histogram(BINS)
    middles = (np.arange(BINS) + 0.5) / BINS
    steps = shares[:, None] / group.max_quantized
    # One matrix of thresholds by bins: 49 by 8,192.
    errors = middles - np.minimum(np.rint(middles / steps), group.max_quantized) * steps
    sums = (errors**2) @ counts
    # From the end, since argmin takes the first of equal ones and the largest is wanted.
    return float(shares[len(shares) - 1 - int(np.argmin(sums[::-1]))])


MSE = RangeMethod(
    "mse",
    "the threshold of the least mean square error",
    make_value_search(find_share),
)
