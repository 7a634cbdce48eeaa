"""The magnitude that one number in ten thousand exceeds: outliers are clipped, however large."""

from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import by_value

if TYPE_CHECKING:
    from tcc.compiler.quant.methods.value_groups import ValueGroup

OUTLIERS = 1e-4
"""The share of all numbers that is clipped: the 99.99th percentile, which Wu et al. (arXiv
2004.09602) found good for most networks at 8 bits."""


def share(group: "ValueGroup") -> float:
    """Return the magnitude that a share of `OUTLIERS` exceeds, as a share of the largest one."""
    import numpy as np

    numbers = np.concatenate([np.abs(one.reshape(-1)) for one in group.samples])
    place = numbers.size - 1 - int(numbers.size * OUTLIERS)
    # A partition finds one place without sorting all.
    return float(np.partition(numbers, place)[place]) / group.top


PERCENTILE = RangeMethod(
    "percentile",
    "the magnitude that one number in ten thousand exceeds",
    by_value(share),
)
