"""Searches for ranges: from what was seen of a model's values to a scale for each group of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.methods.searched_ranges import SearchedRanges
    from tcc.compiler.quant.methods.value_groups import ValueGroup
    from tcc.compiler.quant.observe.statistics import Statistics

Search: TypeAlias = "Callable[[Model, Statistics, int | None], SearchedRanges]"
"""Finds ranges for a model from statistics of its values, the same on any number of threads."""
ClippingShare: TypeAlias = "Callable[[ValueGroup], float]"
"""Gives the magnitude at which a group's levels end, as a share of the largest one seen."""


def make_value_search(share: ClippingShare) -> Search:
    """Return the search that looks at each group of values by itself.

    Args:
        share: Where a group's levels end, as a share of its largest magnitude. It is asked only
            where there is something to find: never of a group of zeros, nor of raw pixels.

    Returns:
        A search whose scales lie neither above min-max's, since levels that nothing reaches are
        wasted, nor below the smallest that the integer program takes.
    """

    def search(model: "Model", statistics: "Statistics", _: int | None = None) -> "SearchedRanges":
        import numpy as np

        from tcc.compiler.quant.methods.searched_ranges import GroupScale, assemble_ranges
        from tcc.compiler.quant.methods.value_groups import build_value_groups
        from tcc.compiler.quant.scale_groups import MIN_SCALE

        def find_scale(group: "ValueGroup") -> float:
            # Raw grey levels are levels already: their scale is 1, whatever was seen of them.
            clipping_share = 1.0 if group.fixed else share(group)
            kept_share = (
                min(clipping_share, 1.0) if clipping_share * group.range.scale >= MIN_SCALE else 1.0
            )
            return float(np.float32(group.range.scale * kept_share))

        groups = tuple(build_value_groups(model, statistics))
        return assemble_ranges(model, groups, [GroupScale(find_scale(group)) for group in groups])

    return search


def _keep_all(_: "ValueGroup") -> float:
    return 1.0


minmax: Search = make_value_search(_keep_all)
"""The search that clips nothing of what was seen; others are held against it."""
