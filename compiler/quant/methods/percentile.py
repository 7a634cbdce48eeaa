"""The 99.99th percentile of magnitudes as clipping threshold, whatever the size of outliers."""

from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import make_value_search

if TYPE_CHECKING:
    from tcc.compiler.quant.methods.value_groups import ValueGroup

OUTLIER_SHARE = 1e-4
"""Share of clipped numbers: the 99.99th percentile, which Wu et al. (arXiv 2004.09602) found good
for most networks at 8 bits."""


def find_share(group: "ValueGroup") -> float:
    """Return the magnitude that `OUTLIER_SHARE` of the numbers exceed, relative to the largest."""
    import numpy as np

    numbers = np.concatenate([np.abs(sample.reshape(-1)) for sample in group.samples])
    index = numbers.size - 1 - int(numbers.size * OUTLIER_SHARE)
    # A partition is cheaper than a full sort.
    return float(np.partition(numbers, index)[index]) / group.top


PERCENTILE = RangeMethod(
    "percentile",
    "the magnitude that one number in 10,000 exceeds (99.99th percentile)",
    make_value_search(find_share),
)
