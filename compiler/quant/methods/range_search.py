"""Searches for ranges: from statistics of a model's values to a scale for each group."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.methods.searched_ranges import SearchedRanges
    from tcc.compiler.quant.methods.value_groups import ValueGroup
    from tcc.compiler.quant.observe.statistics import Statistics

Search: TypeAlias = "Callable[[Model, Statistics, int | None], SearchedRanges]"
"""Searches ranges from statistics. The result does not depend on the number of threads."""
ClippingShare: TypeAlias = "Callable[[ValueGroup], float]"
"""Returns the clipping threshold of a group, as a share of its largest observed magnitude."""


def make_value_search(share: ClippingShare) -> Search:
    """Return a search that handles each group of values independently.

    Args:
        share: Returns the clipping threshold of a group, as a share of its largest magnitude. It
            is not called for groups of zeros or raw pixels.

    Returns:
        A search. Its scales are at most min-max's, since a larger scale wastes resolution, and at
        least `MIN_SCALE`.
    """

    def search(model: "Model", statistics: "Statistics", _: int | None = None) -> "SearchedRanges":
        import numpy as np

        from tcc.compiler.quant.methods.searched_ranges import GroupScale, assemble_ranges
        from tcc.compiler.quant.methods.value_groups import build_value_groups
        from tcc.compiler.quant.scale_groups import MIN_SCALE

        def find_scale(group: "ValueGroup") -> float:
            # Raw pixels are quantized values already: their scale is 1.
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
"""The search that clips no observed value; the reference for other searches."""
