"""Values that share a scale, with what was seen of them: what a search for ranges looks at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Range
from tcc.compiler.quant.methods.kl_divergence import Counts, histogram
from tcc.compiler.quant.observe.sampling import places_in_concats
from tcc.compiler.quant.observe.statistics import Float32, Statistics
from tcc.compiler.quant.scale_groups import SMALLEST, minmax_ranges, scale_groups
from tcc.compiler.quant.unseen_extremes import (
    ReachEstimate,
    network_skew,
    reach_estimate,
    value_bounds,
)


@dataclass(frozen=True, eq=False)
class ValueGroup:
    """Values that share a scale, and what was seen of them.

    Attributes:
        names: The values, in the graph's order.
        range: That of `minmax`; where it is `fixed`, it is the only one: of raw pixels and zeros.
        fixed: Whether there is nothing to find.
        low: The smallest real number seen.
        high: The largest.
        tops: The largest magnitude of each image (images,).
        skew: That of the network's extremes; None where the values are vectors.
        bound: What no magnitude exceeds, whatever the image.
        samples: Numbers of the values (positions, channels), each once.
    """

    names: tuple[str, ...]
    range: Range
    fixed: bool
    low: float
    high: float
    tops: Float32
    skew: float | None
    bound: float
    samples: tuple[Float32, ...]

    @property
    def spread(self) -> float | None:
        """How uncertain the largest magnitude is, as `jackknife_spread` says."""
        return jackknife_spread(self.tops)

    @cached_property
    def estimate(self) -> ReachEstimate:
        """How far their magnitudes reach in unseen images."""
        return reach_estimate(self.tops, self.skew, self.bound)

    @property
    def top(self) -> float:
        """The largest magnitude seen."""
        return max(abs(self.low), abs(self.high))

    @property
    def levels(self) -> int:
        """The largest level: 127 of signed values, else 255."""
        return self.range.limits[1]

    def histogram(self, bins: int) -> Counts:
        """Return how many magnitudes of the samples lie in each bin up to the top, (bins,)."""
        counts = np.zeros(bins, np.int64)
        for sample in self.samples:
            counts += histogram(sample, self.top, bins)
        return counts


def value_groups(model: Model, statistics: Statistics) -> Iterator[ValueGroup]:
    """Yield the groups of a model's values with what was seen of them."""
    known = minmax_ranges(model, statistics.limits)
    bounds, skew = value_bounds(model), network_skew(statistics)
    inside = places_in_concats(model.graph)
    raw = {i.name for i in model.graph.inputs if i.preprocess and i.preprocess.raw}
    for names in scale_groups(model.graph):
        values = [statistics.seen[name] for name in names]
        tops = np.max([np.maximum(-value.low, value.high) for value in values], axis=0)
        # Below the smallest scale a value is taken for zero, and has scale 1.
        fixed = bool(raw.intersection(names)) or known[names[0]].scale < SMALLEST
        vectors = all(model.graph.types[name].is_vector for name in names)
        most = max(max(-bounds[name][0], bounds[name][1]) for name in names)
        yield ValueGroup(
            names,
            known[names[0]],
            fixed or not tops.any(),
            min(float(value.low.min()) for value in values),
            max(float(value.high.max()) for value in values),
            tops,
            None if vectors else skew,
            most,
            # A concat's numbers are those of its parts: counted twice, they would weigh twice.
            tuple(statistics.seen[name].sample for name in names if name not in inside),
        )


def jackknife_spread(tops: Float32) -> float | None:
    """Return the standard deviation of the largest of some tops, as a share of it.

    By the jackknife (Efron 1979): with one image left out at a time, the maximum changes only
    where it is that image's alone, so that the two largest tops tell everything.

    Args:
        tops: The largest magnitude of each image (images,).

    Returns:
        None where there is one image, of which nothing can be said.
    """
    if len(tops) < 2:
        return None
    # Leaving out any image but the largest changes nothing: one deviation of `first` - `second`
    # among `count` gives the jackknife's variance in closed form.
    second, first = (float(top) for top in np.sort(tops)[-2:])
    count = len(tops)
    return (count - 1) / count * (first - second) / first if first > 0 else 0.0
