"""How far values reach in images that were not seen: an estimate from the extremes of those seen.

The extremes of maps follow the generalised extreme value distribution, of which each channel has
a location and a scale of its own. A few dozen images tell little of its shape: it is the whole
network's, or rarer extremes where the channel's own say so. All come from L-moments (Hosking, J. R.
Stat. Soc. B 52, 1990), which single images sway less than variances and skewness. Few images hardly
tell a scale either: what is known of trained networks counts as some images more. Of what is one
number an image, `estimate_tail_level` says it.

No estimate is below what was seen, nor beyond what the value can hold whatever the image.
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
"""What is expected before an image is seen, and as how many images above the threshold it counts:
how far these exceed it on the mean, as a share of the mean of all. On trained networks it was 0.03
to 0.3."""


def estimate_tail_level(
    samples: NDArray[np.float32] | Float64, return_period: int, bound: float = np.inf
) -> Float64:
    """Return the level of each channel that one unseen image in so many is expected to exceed.

    Of numbers of which an image has one: outputs, and vectors before them. They are a sample, not
    the extremes of maps, and may lie in two heaps, as those of a class and of all others do: a
    distribution of extremes, fitted to both at once, ends far beyond either. What lies above a high
    threshold follows an exponential distribution whatever lies below it (Pickands, Ann. Stat. 3,
    1975, with a shape of 0).

    Args:
        samples: The number of each channel in each image (images, channels).
        return_period: The images of which one is to exceed it.
        bound: What no number exceeds, whatever the image; what was seen counts more.

    Returns:
        The levels (channels,), none below what was seen; that of a channel of zeros is zero.
    """
    ordered = np.sort(samples.astype(np.float64), axis=0)[::-1]
    count = len(ordered)
    tail_count = min(ceil(count * TAIL_SHARE), count - 1)  # the threshold is one of the numbers
    threshold, prior_excess = ordered[tail_count], np.abs(ordered.mean(axis=0)) * PRIOR_EXCESS
    excess = (ordered[:tail_count] - threshold).sum(axis=0)
    mean = (excess + TAIL_WEIGHT * prior_excess) / (tail_count + TAIL_WEIGHT)
    # P(x > level) = share above the threshold * exp(-(level - threshold) / mean).
    level = threshold + mean * log(max(tail_count, 1) / count * return_period)
    levels: Float64 = np.maximum(ordered[0], np.minimum(level, bound))
    return levels


UNBOUNDED: Bounds = (-inf, inf)


def infer_value_bounds(model: Model) -> Mapping[str, Bounds]:
    """Return the least and the greatest number that each value can hold, by name.

    It is a proof from the graph, never from images. A sum of products is not bounded by it, though
    it could be: bounds of sums are far from what any image reaches.

    Args:
        model: A ready model.
    """
    # One walk: a value's bounds follow from those of what it is made of.
    bounds = {source.name: _infer_input_bounds(source) for source in model.graph.inputs}
    for node in model.graph.nodes:
        bounds[node.name] = _infer_node_bounds(
            node, [bounds[input_name] for input_name in node.inputs]
        )
    return bounds


def _infer_input_bounds(source: Input) -> Bounds:
    """Return the bounds of an input: those of grey levels, if it is an image."""
    contract = source.preprocess
    if contract is None:
        return UNBOUNDED
    if contract.raw:
        return 0.0, 255.0
    # Each holds one number for all channels, or one a channel.
    channels = max(len(contract.mean), len(contract.std))
    means, stds = (
        numbers * (channels // len(numbers)) for numbers in (contract.mean, contract.std)
    )
    pairs = tuple(zip(means, stds, strict=True))
    return min(-mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)


def _infer_node_bounds(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    match node.op:
        case Relu():
            return max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)
        # The ends of the function itself, whatever enters it: a sigmoid's 0 and 1, a relu6's 0 and
        # 6.
        case Elementwise():
            return node.op.bounds
        case Pad(value=value):
            return _join_bounds([*inputs, (value, value)])
        case Border(values=values):
            return _join_bounds([*inputs, (min(values), max(values))])
        case AvgPool() | GlobalAvgPool() | Resize():
            return _join_bounds([*inputs, (0.0, 0.0)])  # a mean may be one with a border of zeros
    return _join_bounds([*inputs, (0.0, 0.0)]) if node.op.moves else UNBOUNDED


def _join_bounds(parts: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in parts), max(high for _, high in parts)


Maxima = NDArray[np.float32] | NDArray[np.float64]

RETURN_PERIOD = 10_000
"""Images of which one is to exceed an estimate."""
PRIOR_SPREAD, PRIOR_SKEW, PRIOR_WEIGHT = 0.2, 0.1, 4
"""What is expected before an image is seen, and as how many images it counts: the second L-moment
of a channel as a share of the first, and the ratio of the third to the second. On trained networks
half of the channels had a share of 0.10 to 0.31 and a ratio of -0.02 to 0.18."""
SKEW_WEIGHT = 120
"""As how many images the network's skew counts beside a channel's own."""
MAX_SKEW = 0.17
"""The largest skew that is believed, of either sign: Gumbel's."""
JACKKNIFE_GROUPS = 16
"""Parts of the images that are left out in turn to see how sure an estimate is."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelExtremes:
    """The least and the greatest number of each channel of a value, (channels,) each."""

    low: Float64
    high: Float64

    @property
    def limits(self) -> tuple[float, float]:
        """Those of the whole value."""
        return float(self.low.min()), float(self.high.max())

    @property
    def peaks(self) -> Float64:
        """The largest magnitude of each channel (channels,)."""
        magnitudes: Float64 = np.maximum(np.abs(self.low), np.abs(self.high))
        return magnitudes

    def normalize(self, factor: NDArray[np.float32]) -> "ChannelExtremes":
        """Return those of the channels divided by a factor each (channels,)."""
        return ChannelExtremes(self.low / factor, self.high / factor)


@dataclass(frozen=True, slots=True)
class PeakEstimate:
    """How far the magnitude of values reaches in unseen images.

    `peak` is the magnitude that one image in `RETURN_PERIOD` is expected to exceed,
    `relative_error` the standard deviation of this estimate by the jackknife, as a share of it;
    None where there is one image.
    """

    peak: float
    relative_error: float | None


def collect_extremes(statistics: Statistics) -> Mapping[str, ChannelExtremes]:
    """Return the extremes that images showed, by value."""
    return {
        name: ChannelExtremes(
            value_statistics.channel_low.astype(np.float64),
            value_statistics.channel_high.astype(np.float64),
        )
        for name, value_statistics in statistics.by_value.items()
    }


def estimate_unseen_extremes(model: Model, statistics: Statistics) -> Mapping[str, ChannelExtremes]:
    """Return the extremes that one image in `RETURN_PERIOD` is expected to exceed, by value.

    Args:
        model: A ready model.
        statistics: What was seen of its values.
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
        # Minima are maxima of what is negated: one distribution for both ends.
        extremes[name] = ChannelExtremes(
            -estimate_level(-value_statistics.lows, bound=-low),
            estimate_level(value_statistics.highs, bound=high),
        )
    return extremes


def _estimate_vector_level(maxima: Maxima, bound: float) -> Float64:
    """Return the level of each channel of values of one number a channel and image (channels,)."""
    # What any channel exceeds in so few images, none exceeds in more: a class that few images have
    # looks as if its heap were a tail.
    max_level = estimate_tail_level(maxima.max(axis=1, keepdims=True), RETURN_PERIOD, bound)
    levels: Float64 = np.minimum(estimate_tail_level(maxima, RETURN_PERIOD, bound), max_level)
    return levels


def estimate_network_skew(statistics: Statistics) -> float:
    """Return the skew of a network's extremes: the third L-moment over the second, middle of all.

    Few images count as much as what is expected without any.
    """
    count = len(statistics.images)
    moments = [
        _compute_l_moments(value_statistics.highs)
        for value_statistics in statistics.by_value.values()
    ]
    # Channels that never vary (dead relus, constants) have no skew to tell.
    ratios = [third[second > 0] / second[second > 0] for _, second, third in moments]
    known_ratios = np.concatenate(ratios)
    # The median: single channels with an outlier have ratios near 1. A third moment needs three
    # images.
    median_ratio = float(np.median(known_ratios)) if known_ratios.size and count > 2 else PRIOR_SKEW
    skew = (count * median_ratio + PRIOR_WEIGHT * PRIOR_SKEW) / (count + PRIOR_WEIGHT)
    return min(max(skew, -MAX_SKEW), MAX_SKEW)


def estimate_return_level(
    maxima: Maxima, skew: float = PRIOR_SKEW, bound: float = np.inf
) -> Float64:
    """Return the level of each channel that one image in `RETURN_PERIOD` is expected to exceed.

    Args:
        maxima: The greatest number of each channel in each image (images, channels).
        skew: That of extremes of this network.
        bound: What no number exceeds, whatever the image; what was seen counts more.

    Returns:
        The levels (channels,), none below what was seen. That of a channel of zeros is zero: of a
        relu that never fired nothing can be told.
    """
    mean, second, third = _compute_l_moments(maxima)
    # A weighted mean of the channel's own spread and the one that trained networks were seen to
    # have, which counts as `WEIGHT` pairs.
    pairs = len(maxima) - 1  # one image says nothing of a spread
    spread = (pairs * second + PRIOR_WEIGHT * PRIOR_SPREAD * np.abs(mean)) / (pairs + PRIOR_WEIGHT)
    channel_skew = np.divide(third, second, out=np.full_like(second, skew), where=second > 0)
    shrunk = (len(maxima) * channel_skew + SKEW_WEIGHT * skew) / (len(maxima) + SKEW_WEIGHT)
    # Never less steep than the network's shape: a channel's own few images may only make it steeper
    # (docs/decisions/0027-unseen-ranges.md).
    level = mean + spread * _compute_steps_to_level(np.clip(shrunk, skew, MAX_SKEW))
    levels: Float64 = np.maximum(maxima.max(axis=0), np.minimum(level, bound))
    return levels


def _compute_l_moments(maxima: Maxima) -> tuple[Float64, Float64, Float64]:
    """Return the first three L-moments of each channel, (channels,) each."""
    # Unbiased probability-weighted moments b0, b1, b2 of the ordered sample, of which L-moments are
    # sums (Hosking, 1990).
    ordered = np.sort(maxima.astype(np.float64), axis=0)
    count, ranks = len(ordered), np.arange(len(ordered))
    b0 = ordered.mean(axis=0)
    b1 = ranks @ ordered / (count * max(count - 1, 1))
    b2 = (ranks * (ranks - 1)) @ ordered / (count * max((count - 1) * (count - 2), 1))
    second = 2 * b1 - b0 if count > 1 else np.zeros_like(b0)
    return b0, np.maximum(second, 0.0), 6 * b2 - 6 * b1 + b0


def _compute_steps_to_level(skews: Float64) -> Float64:
    """Return how many second L-moments the return level lies above the mean, by skew."""
    steps: Float64 = np.exp(np.interp(skews, *_build_step_table(RETURN_PERIOD)))
    return steps


@cache
def _build_step_table(return_period: int) -> tuple[Float64, Float64]:
    """Return skews, and the logarithms of their steps to the level of one image in so many."""
    # A table of 121 shapes: thousands of channels have one each, and `gamma` takes a number at a
    # time. The level grows by some percent from one to the next, so that lines between logarithms
    # do.
    skews = np.linspace(-MAX_SKEW, MAX_SKEW, 121)
    return skews, np.log([_compute_steps(float(skew), return_period) for skew in skews])


def _compute_steps(skew: float, return_period: int) -> float:
    """Return the same for one skew, by Hosking (1990)."""
    part = 2 / (3 + skew) - log(2) / log(3)
    # Hosking, Wallis and Wood (Technometrics 27, 1985), of the L-skewness; its error is below 9e-4
    # where that lies between -0.5 and 0.5.
    shape = 7.859 * part + 2.9554 * part**2
    shape = shape if abs(shape) > 1e-6 else 1e-6  # at 0 the formulas are limits
    mean = gamma(1 + shape)
    scale = shape / ((1 - 2**-shape) * mean)
    # The quantile less the mean: location and scale * (1 - mean) / shape take each other away.
    return float(scale * (mean - (-np.log1p(-1 / return_period)) ** shape) / shape)


def estimate_peak(image_peaks: Maxima, skew: float | None, bound: float) -> PeakEstimate:
    """Return how far magnitudes reach in unseen images.

    Args:
        image_peaks: The largest magnitude of each image (images,).
        skew: That of extremes of this network; None where the values are vectors, not maps.
        bound: What none exceeds, whatever the image.
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
    # The jackknife by groups: each estimate without a sixteenth of the images; their variance,
    # times the groups less one, is that of the estimate.
    partial_peaks = [estimate_level(image_peaks[group_ids != group]) for group in range(count)]
    return PeakEstimate(peak, float(np.sqrt((count - 1) * np.var(partial_peaks))) / peak)
