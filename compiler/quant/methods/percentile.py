"""The magnitude that one number in ten thousand exceeds: outliers are clipped, however large."""

from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import make_value_search

if TYPE_CHECKING:
    from tcc.compiler.quant.methods.value_groups import ValueGroup

OUTLIER_SHARE = 1e-4
"""The share of all numbers that is clipped: the 99.99th percentile, which Wu et al. (arXiv
2004.09602) found good for most networks at 8 bits."""


def find_share(group: "ValueGroup") -> float:
    """Return the magnitude that `OUTLIER_SHARE` of all exceed, as a share of the largest."""
    import numpy as np

    numbers = np.concatenate([np.abs(sample.reshape(-1)) for sample in group.samples])
    index = numbers.size - 1 - int(numbers.size * OUTLIER_SHARE)
    # A partition finds one place without sorting all.
    return float(np.partition(numbers, index)[index]) / group.top


PERCENTILE = RangeMethod(
    "percentile",
    "the magnitude that one number in ten thousand exceeds",
    make_value_search(find_share),
)
