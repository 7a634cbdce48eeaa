"""Estimates of the extremes of values in unseen images, from the calibration images.

The extremes of feature maps follow a generalised extreme value distribution, with a location and a
scale per channel. A few dozen images determine its shape poorly: the shape is shared by the
network, unless the channel's own extremes indicate rarer ones. All parameters come from L-moments
(Hosking, J. R. Stat. Soc. B 52, 1990), which outliers influence less than variance and skewness.
The scale is shrunk towards a prior from trained networks, which counts as a few images. For vectors
(one number per channel and image), see `estimate_tail_level`.

Estimates are at least the observed extremes, and at most the bounds of the value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import ceil, gamma, inf, log

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Input, Model, Node
from tcc.compiler.ops import AvgPool, Border, GlobalAvgPool, Pad, Relu, Resize
from tcc.compiler.ops.elementwise import Bounds, Elementwise
from tcc.compiler.quant.observe.statistics import Statistics

Float64 = NDArray[np.float64]
TAIL_SHARE = 1 / 4
"""Share of the images above the threshold."""
PRIOR_EXCESS, TAIL_WEIGHT = 0.2, 4
"""Prior of the mean excess over the threshold, as a share of the mean of all images, and its weight
as a number of images. On trained networks, the mean excess was 0.03 to 0.3."""


def estimate_tail_level(
    samples: NDArray[np.float32] | Float64, return_period: int, bound: float = np.inf
) -> Float64:
    """Return the return level of each channel of a vector: one image in `return_period` exceeds it.

    For values with one number per channel and image: outputs, and vectors before them. These are
    samples, not extremes, and can be bimodal, with one mode for a class and one for the others. An
    extreme value distribution fitted to both modes would reach far beyond either. The excess over a
    high threshold is exponential, whatever the distribution below it (Pickands, Ann. Stat. 3, 1975,
    with a shape of 0).

    Args:
        samples: The value of each channel in each image (images, channels).
        return_period: Number of images of which one is expected to exceed the level.
        bound: Upper bound of the value for any image; observed values override it.

    Returns:
        The levels (channels,), at least the observed maximum. A channel of zeros has level zero.
    """
    ordered = np.sort(samples.astype(np.float64), axis=0)[::-1]
    count = len(ordered)
    tail_count = min(ceil(count * TAIL_SHARE), count - 1)  # the threshold is one of the samples
    threshold, prior_excess = ordered[tail_count], np.abs(ordered.mean(axis=0)) * PRIOR_EXCESS
    excess = (ordered[:tail_count] - threshold).sum(axis=0)
    mean = (excess + TAIL_WEIGHT * prior_excess) / (tail_count + TAIL_WEIGHT)
    # P(x > level) = share above the threshold * exp(-(level - threshold) / mean)
    level = threshold + mean * log(max(tail_count, 1) / count * return_period)
    levels: Float64 = np.maximum(ordered[0], np.minimum(level, bound))
    return levels


UNBOUNDED: Bounds = (-inf, inf)


def infer_value_bounds(model: Model) -> Mapping[str, Bounds]:
    """Return proven bounds (minimum, maximum) of each value, by name.

    They follow from the graph, not from images. Sums of products count as unbounded: their bounds
    would be far from what any image reaches.

    Args:
        model: A lowered model.
    """
    # One pass: the bounds of a value follow from the bounds of its inputs.
    bounds = {
        network_input.name: _infer_input_bounds(network_input)
        for network_input in model.graph.inputs
    }
    for node in model.graph.nodes:
        bounds[node.name] = _infer_node_bounds(
            node, [bounds[input_name] for input_name in node.inputs]
        )
    return bounds


def _infer_input_bounds(network_input: Input) -> Bounds:
    """Return the bounds of an input: the pixel range after preprocessing, if it is an image."""
    preprocess = network_input.preprocess
    if preprocess is None:
        return UNBOUNDED
    if preprocess.raw:
        return 0.0, 255.0
    # `mean` and `std` have one number for all channels, or one per channel.
    channels = max(len(preprocess.mean), len(preprocess.std))
    means, stds = (
        numbers * (channels // len(numbers)) for numbers in (preprocess.mean, preprocess.std)
    )
    pairs = tuple(zip(means, stds, strict=True))
    return min(-mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)


def _infer_node_bounds(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    match node.op:
        case Relu():
            return max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)
        # The bounds of the function itself, such as 0 and 1 for a sigmoid.
        case Elementwise():
            return node.op.bounds
        case Pad(value=value):
            return _join_bounds([*inputs, (value, value)])
        case Border(values=values):
            return _join_bounds([*inputs, (min(values), max(values))])
        case AvgPool() | GlobalAvgPool() | Resize():
            return _join_bounds([*inputs, (0.0, 0.0)])  # a mean may include zero padding
    return _join_bounds([*inputs, (0.0, 0.0)]) if node.op.moves else UNBOUNDED


def _join_bounds(parts: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in parts), max(high for _, high in parts)


Maxima = NDArray[np.float32] | NDArray[np.float64]

RETURN_PERIOD = 10_000
"""Number of images of which one is expected to exceed an estimate."""
PRIOR_SPREAD, PRIOR_SKEW, PRIOR_WEIGHT = 0.2, 0.1, 4
"""Priors and their weight as a number of images: the second L-moment of a channel as a share of the
first, and the ratio of the third to the second. On trained networks, half of the channels had a
share of 0.10 to 0.31 and a ratio of -0.02 to 0.18."""
SKEW_WEIGHT = 120
"""Weight of the network's skew against a channel's own, as a number of images."""
MAX_SKEW = 0.17
"""Maximum magnitude of the skew: that of the Gumbel distribution."""
JACKKNIFE_GROUPS = 16
"""Number of jackknife groups."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelExtremes:
    """Minimum and maximum of each channel of a value, (channels,) each."""

    low: Float64
    high: Float64

    @property
    def limits(self) -> tuple[float, float]:
        """Minimum and maximum over all channels."""
        return float(self.low.min()), float(self.high.max())

    @property
    def peaks(self) -> Float64:
        """The largest magnitude of each channel (channels,)."""
        magnitudes: Float64 = np.maximum(np.abs(self.low), np.abs(self.high))
        return magnitudes

    def normalize(self, factor: NDArray[np.float32]) -> "ChannelExtremes":
        """Return the extremes after dividing each channel by its factor (channels,)."""
        return ChannelExtremes(self.low / factor, self.high / factor)


@dataclass(frozen=True, slots=True)
class PeakEstimate:
    """Estimated peak magnitude of values in unseen images.

    One image in `RETURN_PERIOD` is expected to exceed `peak`. `relative_error` is the jackknife
    standard error of this estimate, as a share of it; None for a single image.
    """

    peak: float
    relative_error: float | None


def collect_extremes(statistics: Statistics) -> Mapping[str, ChannelExtremes]:
    """Return the observed extremes of each value."""
    return {
        name: ChannelExtremes(
            value_statistics.channel_low.astype(np.float64),
            value_statistics.channel_high.astype(np.float64),
        )
        for name, value_statistics in statistics.by_value.items()
    }


def estimate_unseen_extremes(model: Model, statistics: Statistics) -> Mapping[str, ChannelExtremes]:
    """Return the estimated extremes of each value: one image in `RETURN_PERIOD` exceeds them.

    Args:
        model: A lowered model.
        statistics: Statistics of its values.
    """
    bounds, skew = infer_value_bounds(model), estimate_network_skew(statistics)
    extremes = {}
    for name, value_statistics in statistics.by_value.items():
        low, high = bounds[name]
        estimate_level = (
            _estimate_vector_level
            if model.graph.types[name].is_vector
            else partial(estimate_return_level, skew=skew)
        )
        # Minima are maxima of the negated values.
        extremes[name] = ChannelExtremes(
            -estimate_level(-value_statistics.lows, bound=-low),
            estimate_level(value_statistics.highs, bound=high),
        )
    return extremes


def _estimate_vector_level(maxima: Maxima, bound: float) -> Float64:
    """Return the return level of each channel of a vector (channels,)."""
    # Limited by the level of the maximum over all channels: a class with few images looks like a
    # tail, and its own estimate would be too large.
    max_level = estimate_tail_level(maxima.max(axis=1, keepdims=True), RETURN_PERIOD, bound)
    levels: Float64 = np.minimum(estimate_tail_level(maxima, RETURN_PERIOD, bound), max_level)
    return levels


def estimate_network_skew(statistics: Statistics) -> float:
    """Return the L-skewness of a network's extremes: the median ratio of third to second L-moment.

    The result is shrunk towards `PRIOR_SKEW`.
    """
    count = len(statistics.images)
    moments = [
        _compute_l_moments(value_statistics.highs)
        for value_statistics in statistics.by_value.values()
    ]
    # Constant channels (dead relus) have no skew.
    ratios = [third[second > 0] / second[second > 0] for _, second, third in moments]
    known_ratios = np.concatenate(ratios)
    # The median, because channels with an outlier have ratios near 1. A third moment needs three
    # images.
    median_ratio = float(np.median(known_ratios)) if known_ratios.size and count > 2 else PRIOR_SKEW
    skew = (count * median_ratio + PRIOR_WEIGHT * PRIOR_SKEW) / (count + PRIOR_WEIGHT)
    return min(max(skew, -MAX_SKEW), MAX_SKEW)


def estimate_return_level(
    maxima: Maxima, skew: float = PRIOR_SKEW, bound: float = np.inf
) -> Float64:
    """Return the level of each channel that one image in `RETURN_PERIOD` is expected to exceed.

    Args:
        maxima: Maximum of each channel in each image (images, channels).
        skew: L-skewness of the network's extremes.
        bound: Upper bound of the value for any image; observed values override it.

    Returns:
        The levels (channels,), at least the observed maximum. A channel of zeros has level zero:
        there is no information on a relu that never fired.
    """
    mean, second, third = _compute_l_moments(maxima)
    # Weighted mean of the channel's spread and the prior.
    pairs = len(maxima) - 1  # a spread needs two images
    spread = (pairs * second + PRIOR_WEIGHT * PRIOR_SPREAD * np.abs(mean)) / (pairs + PRIOR_WEIGHT)
    channel_skew = np.divide(third, second, out=np.full_like(second, skew), where=second > 0)
    shrunk = (len(maxima) * channel_skew + SKEW_WEIGHT * skew) / (len(maxima) + SKEW_WEIGHT)
    # The tail is at least as heavy as the network's: a channel's few images can only make it
    # heavier (docs/decisions/0027-unseen-ranges.md).
    level = mean + spread * _compute_steps_to_level(np.clip(shrunk, skew, MAX_SKEW))
    levels: Float64 = np.maximum(maxima.max(axis=0), np.minimum(level, bound))
    return levels


def _compute_l_moments(maxima: Maxima) -> tuple[Float64, Float64, Float64]:
    """Return the first three L-moments of each channel, (channels,) each."""
    # L-moments are linear in the unbiased probability-weighted moments b0, b1, b2 of the ordered
    # sample (Hosking, 1990).
    ordered = np.sort(maxima.astype(np.float64), axis=0)
    count, ranks = len(ordered), np.arange(len(ordered))
    b0 = ordered.mean(axis=0)
    b1 = ranks @ ordered / (count * max(count - 1, 1))
    b2 = (ranks * (ranks - 1)) @ ordered / (count * max((count - 1) * (count - 2), 1))
    second = 2 * b1 - b0 if count > 1 else np.zeros_like(b0)
    return b0, np.maximum(second, 0.0), 6 * b2 - 6 * b1 + b0


def _compute_steps_to_level(skews: Float64) -> Float64:
    """Return (return level - mean) / second L-moment, by skew."""
    steps: Float64 = np.exp(np.interp(skews, *_build_step_table(RETURN_PERIOD)))
    return steps


@cache
def _build_step_table(return_period: int) -> tuple[Float64, Float64]:
    """Return a table of skews and logarithms of `_compute_steps`."""
    # A table, because there are thousands of channels and `gamma` is scalar. Neighbouring entries
    # differ by a few per cent, so that interpolating logarithms is accurate.
    skews = np.linspace(-MAX_SKEW, MAX_SKEW, 121)
    return skews, np.log([_compute_steps(float(skew), return_period) for skew in skews])


def _compute_steps(skew: float, return_period: int) -> float:
    """Return (return level - mean) / second L-moment for one skew, after Hosking (1990)."""
    part = 2 / (3 + skew) - log(2) / log(3)
    # Hosking, Wallis and Wood (Technometrics 27, 1985): shape from the L-skewness, with an error
    # below 9e-4 between -0.5 and 0.5.
    shape = 7.859 * part + 2.9554 * part**2
    shape = shape if abs(shape) > 1e-6 else 1e-6  # at 0 the formulas are limits
    mean = gamma(1 + shape)
    scale = shape / ((1 - 2**-shape) * mean)
    # Quantile minus mean: the location cancels.
    return float(scale * (mean - (-np.log1p(-1 / return_period)) ** shape) / shape)


def estimate_peak(image_peaks: Maxima, skew: float | None, bound: float) -> PeakEstimate:
    """Return the estimated peak magnitude in unseen images.

    Args:
        image_peaks: The largest magnitude in each image (images,).
        skew: L-skewness of the network's extremes; None for vectors.
        bound: Upper bound of the magnitude for any image.
    """

    def estimate_level(maxima: Maxima) -> float:
        if skew is None:
            return float(estimate_tail_level(maxima[:, None], RETURN_PERIOD, bound)[0])
        return float(estimate_return_level(maxima[:, None], skew, bound)[0])

    peak = estimate_level(image_peaks)
    count = min(len(image_peaks), JACKKNIFE_GROUPS)
    if count < 2 or peak == 0:
        return PeakEstimate(peak, None if len(image_peaks) < 2 else 0.0)
    group_ids = np.arange(len(image_peaks)) % count
    # Grouped jackknife: leave out one group at a time. The variance of these estimates, times the
    # number of groups minus one, is the variance of the estimate.
    partial_peaks = [estimate_level(image_peaks[group_ids != group]) for group in range(count)]
    return PeakEstimate(peak, float(np.sqrt((count - 1) * np.var(partial_peaks))) / peak)
