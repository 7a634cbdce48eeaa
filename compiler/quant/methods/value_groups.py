"""Groups of values that share a scale, with their statistics: the input of range searches."""

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
    """Values that share a scale, with their statistics.

    Attributes:
        names: The values, in the graph's order.
        range: The range of `minmax`.
        fixed: Whether the range is fixed, as for raw pixels and zeros.
        low: Observed minimum.
        high: Observed maximum.
        image_peaks: The largest magnitude in each image (images,).
        skew: L-skewness of the network's extremes; None for vectors.
        bound: Upper bound of the magnitude for any image.
        samples: Samples of the values (positions, channels), each once.
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
        """Relative jackknife standard error of the largest magnitude."""
        return compute_jackknife_spread(self.image_peaks)

    @cached_property
    def estimate(self) -> PeakEstimate:
        """Estimated peak magnitude in unseen images."""
        return estimate_peak(self.image_peaks, self.skew, self.bound)

    @property
    def top(self) -> float:
        """The largest observed magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def max_quantized(self) -> int:
        """The largest quantized value: 127 for signed values, else 255."""
        return self.range.limits[1]

    def compute_histogram(self, bins: int) -> Counts:
        """Return the histogram (bins,) of the samples' magnitudes up to `top`."""
        counts = np.zeros(bins, np.int64)
        for sample in self.samples:
            counts += compute_histogram(sample, self.top, bins)
        return counts


def build_value_groups(model: Model, statistics: Statistics) -> Iterator[ValueGroup]:
    """Yield the groups of a model's values, with their statistics."""
    ranges = compute_minmax_ranges(model, statistics.limits)
    bounds, skew = infer_value_bounds(model), estimate_network_skew(statistics)
    concat_offsets = find_concat_offsets(model.graph)
    raw = {i.name for i in model.graph.inputs if i.preprocess and i.preprocess.raw}
    for names in find_scale_groups(model.graph):
        group_statistics = [statistics.by_value[name] for name in names]
        # Below it no reader sees a difference: it must not influence the upper end.
        min_real = np.float32(ranges[names[0]].min_real)
        image_peaks = np.max(
            [
                np.maximum(-np.maximum(value_statistics.low, min_real), value_statistics.high)
                for value_statistics in group_statistics
            ],
            axis=0,
        )
        # A value with a scale below the minimum counts as zero, and has scale 1.
        fixed = bool(raw.intersection(names)) or ranges[names[0]].scale < MIN_SCALE
        is_vector = all(model.graph.types[name].is_vector for name in names)
        max_bound = max(max(-bounds[name][0], bounds[name][1]) for name in names)
        yield ValueGroup(
            names,
            ranges[names[0]],
            fixed or not image_peaks.any(),
            max(
                min(float(value_statistics.low.min()) for value_statistics in group_statistics),
                float(min_real),
            ),
            max(float(value_statistics.high.max()) for value_statistics in group_statistics),
            image_peaks,
            None if is_vector else skew,
            max_bound,
            # A concat contains its inputs, so that counting both would weight them twice.
            tuple(
                np.maximum(statistics.by_value[name].sample, min_real)
                for name in names
                if name not in concat_offsets
            ),
        )


def compute_jackknife_spread(image_peaks: Float32) -> float | None:
    """Return the jackknife standard error of the maximum, as a share of it (Efron 1979).

    Leaving out an image changes the maximum only if the image has it alone, so that the two largest
    peaks are sufficient.

    Args:
        image_peaks: The largest magnitude in each image (images,).

    Returns:
        The relative standard error; None for a single image.
    """
    if len(image_peaks) < 2:
        return None
    # One of `count` leave-one-out estimates differs, by `largest` - `second_largest`: this gives
    # the jackknife's variance in closed form.
    second_largest, largest = (float(top) for top in np.sort(image_peaks)[-2:])
    count = len(image_peaks)
    return (count - 1) / count * (largest - second_largest) / largest if largest > 0 else 0.0
