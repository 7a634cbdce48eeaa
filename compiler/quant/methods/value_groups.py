"""Values that share a scale, with what was seen of them: what a search for ranges looks at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Range
from tcc.compiler.quant.methods.kl_divergence import Counts, compute_histogram
from tcc.compiler.quant.observe.sampling import find_concat_offsets
from tcc.compiler.quant.observe.statistics import Float32, Statistics
from tcc.compiler.quant.scale_groups import MIN_SCALE, compute_minmax_ranges, find_scale_groups
from tcc.compiler.quant.unseen_extremes import (
    PeakEstimate,
    estimate_network_skew,
    estimate_peak,
    infer_value_bounds,
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
        image_peaks: The largest magnitude of each image (images,).
        skew: That of the network's extremes; None where the values are vectors.
        bound: What no magnitude exceeds, whatever the image.
        samples: Numbers of the values (positions, channels), each once.
    """

    names: tuple[str, ...]
    range: Range
    fixed: bool
    low: float
    high: float
    image_peaks: Float32
    skew: float | None
    bound: float
    samples: tuple[Float32, ...]

    @property
    def spread(self) -> float | None:
        """How uncertain the largest magnitude is, as `compute_jackknife_spread` says."""
        return compute_jackknife_spread(self.image_peaks)

    @cached_property
    def estimate(self) -> PeakEstimate:
        """How far their magnitudes reach in unseen images."""
        return estimate_peak(self.image_peaks, self.skew, self.bound)

    @property
    def top(self) -> float:
        """The largest magnitude seen."""
        return max(abs(self.low), abs(self.high))

    @property
    def max_quantized(self) -> int:
        """The largest level: 127 of signed values, else 255."""
        return self.range.limits[1]

    def compute_histogram(self, bins: int) -> Counts:
        """Return how many magnitudes of the samples lie in each bin up to the top, (bins,)."""
        counts = np.zeros(bins, np.int64)
        for sample in self.samples:
            counts += compute_histogram(sample, self.top, bins)
        return counts


def build_value_groups(model: Model, statistics: Statistics) -> Iterator[ValueGroup]:
    """Yield the groups of a model's values with what was seen of them."""
    ranges = compute_minmax_ranges(model, statistics.limits)
    bounds, skew = infer_value_bounds(model), estimate_network_skew(statistics)
    concat_offsets = find_concat_offsets(model.graph)
    raw = {i.name for i in model.graph.inputs if i.preprocess and i.preprocess.raw}
    for names in find_scale_groups(model.graph):
        group_statistics = [statistics.by_value[name] for name in names]
        image_peaks = np.max(
            [
                np.maximum(-value_statistics.low, value_statistics.high)
                for value_statistics in group_statistics
            ],
            axis=0,
        )
        # Below the smallest scale a value is taken for zero, and has scale 1.
        fixed = bool(raw.intersection(names)) or ranges[names[0]].scale < MIN_SCALE
        is_vector = all(model.graph.types[name].is_vector for name in names)
        max_bound = max(max(-bounds[name][0], bounds[name][1]) for name in names)
        yield ValueGroup(
            names,
            ranges[names[0]],
            fixed or not image_peaks.any(),
            min(float(value_statistics.low.min()) for value_statistics in group_statistics),
            max(float(value_statistics.high.max()) for value_statistics in group_statistics),
            image_peaks,
            None if is_vector else skew,
            max_bound,
            # A concat's numbers are those of its parts: counted twice, they would weigh twice.
            tuple(statistics.by_value[name].sample for name in names if name not in concat_offsets),
        )


def compute_jackknife_spread(image_peaks: Float32) -> float | None:
    """Return the standard deviation of the largest of some tops, as a share of it.

    By the jackknife (Efron 1979): with one image left out at a time, the maximum changes only
    where it is that image's alone, so that the two largest tops tell everything.

    Args:
        image_peaks: The largest magnitude of each image (images,).

    Returns:
        None where there is one image, of which nothing can be said.
    """
    if len(image_peaks) < 2:
        return None
    # Leaving out any image but the largest changes nothing: one deviation of `first` - `second`
    # among `count` gives the jackknife's variance in closed form.
    second_largest, largest = (float(top) for top in np.sort(image_peaks)[-2:])
    count = len(image_peaks)
    return (count - 1) / count * (largest - second_largest) / largest if largest > 0 else 0.0
