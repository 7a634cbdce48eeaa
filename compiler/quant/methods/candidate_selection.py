"""The default method: several ways to calibrate, judged by the model's own outputs.

All images judge in turn: what is learnt from some runs on the others. Candidates rank by the error
of the outputs as a share of their spread, its median and its tail, so that no image owns the rank.
Those within a standard error of the best are as good as it: the first of them is taken, and they
stand in the order of the room that they leave to unseen images. `minmax` is among them, and wins
where nothing else is better.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import HELD_OUT, DataSet
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods import bias_correction, cross_fitting
from tcc.compiler.quant.methods.calibration_split import CalibrationSplit
from tcc.compiler.quant.methods.cross_fitting import FOLDS, CrossFitting
from tcc.compiler.quant.methods.found_ranges import ScaleTrace
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.observe.statistics import Statistics
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding import channel_equalization
from tcc.compiler.quant.rounding.channel_equalization import EqualizationSetting
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.scale_groups import minmax_ranges
from tcc.compiler.quant.unseen_extremes import seen_extremes, unseen_extremes
from tcc.compiler.reference import image_errors, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.expected_loss import ExpectedLoss, expected_losses
from tcc.compiler.reference.output_comparison import StackedOutputs

Errors = NDArray[np.float64]

SETTINGS = (EqualizationSetting(1 / 16),)
"""How far channels are equalised, in turn: each leaves less room than the one before."""
SMALL = 1 << 21
"""Most weights of a network of which all images judge, not only a half."""
TAIL = 10
"""One image of so many is of the tail."""
BIAS = ", sequential bias"
"""What the name of a candidate ends with whose biases are corrected one layer after another."""
DRAWS = 200
"""Draws of images with replacement that tell how far a difference may be chance."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to calibrate: its name, and what it found."""

    name: str
    calibration: Calibration
    traces: Mapping[str, ScaleTrace] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Way:
    """How a candidate is made of what was seen of some images, and what it is called."""

    name: str
    made: Callable[[Statistics], Candidate]

    def fit(self, seen: Statistics) -> Calibration:
        """Return the calibration of the candidate alone."""
        return self.made(seen).calibration


@dataclass(frozen=True, slots=True)
class Selection:
    """The winner, how all candidates did on images that they had not learnt from, in order.

    `expected` says what the winner loses on images that nobody has seen, output by output.
    """

    winner: Candidate
    judged: tuple[tuple[str, Qualities], ...]
    expected: Mapping[str, ExpectedLoss]

    @property
    def quality(self) -> Qualities:
        """The winner's."""
        return dict(self.judged)[self.winner.name]


def best(
    ready: Model,
    images: CalibrationSplit,
    searches: Sequence[RangeMethod],
    options: RunOptions,
) -> Selection:
    """Return the best of all candidates by the outputs of images that they had not learnt from.

    Args:
        ready: The ready model.
        images: Those to learn from, which judge in turn, and those held out, which choose nothing.
        searches: Methods, of which those that are `in_best` are tried beside its own candidates.
        options: How to run images; none of them changes the result.
    """
    # Fits take longer the more weights there are: of a large network one half judges what the other
    # teaches, and not in turn.
    small = sum(tensor.size for tensor in ready.weights.values()) <= SMALL
    ways = _ways(ready, images.learn, searches)
    seen, parts = images.statistics, FOLDS if small else 1
    crossed = CrossFitting(ready, images.learn, seen, options.threads, parts)
    found: dict[str, StackedOutputs] = {}
    for done, way in enumerate(ways):
        options.progress("best", done, len(ways))
        found[way.name] = crossed.outputs(way.fit)
    options.progress("best", len(ways), len(ways))
    errors = [
        image_errors.error_shares(ready, crossed.expected, outputs) for outputs in found.values()
    ]
    # Made anew from all images to learn from: the halves' fits were to judge the way, not to be
    # used.
    winner = ways[chosen(errors)].made(images.statistics)
    judged = tuple(
        (name, output_comparison.qualities(ready, crossed.expected, outputs))
        for name, outputs in found.items()
    )
    return Selection(
        winner, judged, _expected(ready, images, crossed, found[winner.name], winner.calibration)
    )


def _ways(ready: Model, learn: DataSet, searches: Sequence[RangeMethod]) -> Sequence[Way]:
    """Return what to try, in the order of the room that it leaves."""
    tried = [Way(one.name, partial(by_method, ready, one)) for one in searches if one.in_best]
    return (*own_ways(ready, learn), *tried)


def own_ways(ready: Model, learn: DataSet) -> Sequence[Way]:
    """Return the candidates that are no method's, the first of which leaves the most room.

    Args:
        ready: The ready model.
        learn: Images that include those that were seen.
    """
    # The network runs on `IMAGES` images, node by node: as much work as judging may take.
    if cost(ready.graph).macs * bias_correction.IMAGES <= cross_fitting.WORK:
        return [Way(_name(one) + BIAS, partial(corrected, ready, one, learn)) for one in SETTINGS]
    return [Way(_name(one), partial(by_moments, ready, one)) for one in SETTINGS]


def _name(setting: EqualizationSetting) -> str:
    return f"moments, floor {setting.floor:g}"


def chosen(errors: Sequence[Errors]) -> int:
    """Return the place of the first candidate that is as good as the best.

    Args:
        errors: Of each candidate, the error of the same images (images,), as a share of the spread.
    """
    every = np.stack(errors)
    # What is not finite cannot win, and must not enter sums.
    places = np.flatnonzero(np.isfinite(every).all(axis=1))
    if not places.size:
        return 0
    every = every[places]
    # Draws are of a fixed seed over images in the order of their contents: the same every time.
    draws = np.random.default_rng(0).integers(every.shape[1], size=(DRAWS, every.shape[1]))
    scores, drawn = _scores(every[:, None, :])[:, 0], _scores(every[:, draws])
    best = int(np.argmin(scores))
    # The standard error of the difference to the best, by draws with replacement: both have the
    # same images in each draw, so that what is common to them cancels.
    near = scores <= scores[best] + (drawn - drawn[best]).std(axis=1)
    # The first that is near enough: `argmax` of truth values finds the first that holds.
    return int(places[np.argmax(near)])


def _scores(errors: Errors) -> Errors:
    """Return the median and the mean of the tail of errors (candidates, draws, images), added."""
    ordered = np.sort(errors, axis=2)
    worst = -(-ordered.shape[2] // TAIL)
    tail = ordered[:, :, -worst:].mean(axis=2)
    # The median alone would not see the rare image that is far off, a mean would be owned by it.
    total: Errors = np.median(ordered, axis=2) + tail
    return total


def by_method(ready: Model, method: RangeMethod, seen: Statistics) -> Candidate:
    """Return what one of the usual methods finds.

    Args:
        ready: The ready model.
        method: The method.
        seen: What was seen of its values.
    """
    found = method.search(ready, seen, None)
    # Written out, so that a calibration says every weight and a build rounds none itself.
    rounded = {**round_nearest(ready, found.ranges), **found.rounded}
    return Candidate(method.name, Calibration(found.ranges, rounded), found.traces)


def by_moments(ready: Model, setting: EqualizationSetting, seen: Statistics) -> Candidate:
    """Return equalised channels, weights by second moments, biases corrected layer by layer.

    Args:
        ready: The ready model.
        setting: How far channels are brought to one size.
        seen: What was seen of its values.
    """
    # What unseen images are expected to need, from which channels are equalised and ranges made
    # alike.
    extremes = unseen_extremes(ready, seen)
    given = channel_equalization.factors(ready, extremes, setting)
    model = channel_equalization.equalized(ready, given)
    reach = channel_equalization.limits(extremes, given)
    found = minmax_ranges(model, reach)
    rounded = {**round_nearest(model, found), **round_by_moments(model, found, seen, given)}
    shown = channel_equalization.limits(seen_extremes(seen), given)
    plain = minmax(ready, seen, None).traces
    traces = {
        name: _equalized_trace(plain[name], own, shown[name], reach[name])
        for name, own in found.items()
    }
    return Candidate(_name(setting), Calibration(found, rounded, given), traces)


def corrected(
    ready: Model, setting: EqualizationSetting, data: DataSet, seen: Statistics
) -> Candidate:
    """Return what `by_moments` finds, then biases corrected one layer after another.

    Args:
        ready: The ready model.
        setting: How far channels are brought to one size.
        data: Images, of which those that were seen are run.
        seen: What was seen of its values.
    """
    found = by_moments(ready, setting, seen)
    learnt = frozenset(seen.images)
    # Only images that the fit learns from: a bias that saw a judge would be judged by what it
    # learnt.
    run = replace(data, items=tuple(one for one in data.items if one.digest in learnt))
    biases = bias_correction.sequential(ready, found.calibration, run.first(bias_correction.IMAGES))
    return replace(found, name=found.name + BIAS, calibration=biases)


def _equalized_trace(
    plain: ScaleTrace, own: Range, shown: tuple[float, float], reach: tuple[float, float]
) -> ScaleTrace:
    """Return the trace of an equalised value; how sure an estimate is, equalising hardly changes.

    Args:
        plain: That of the value before.
        own: Its range.
        shown: The smallest and the largest number seen, after equalising.
        reach: Those that are expected of unseen images.
    """
    top, most = (max(abs(low), abs(high)) for low, high in (shown, reach))
    return replace(
        plain,
        low=shown[0],
        high=shown[1],
        threshold=own.scale * own.limits[1],
        reach=most,
        shown=top / most if most else 1.0,
    )


def _expected(
    ready: Model,
    images: CalibrationSplit,
    crossed: CrossFitting,
    found: StackedOutputs,
    winner: Calibration,
) -> Mapping[str, ExpectedLoss]:
    """Return what the winner loses on unseen images: those that judged in turn, and the held out.

    Of fewer different images than can judge in turn, nothing.
    """
    if not crossed.folds or images.held_out.digest == images.learn.digest:
        return {}
    # As many beside those that judged in turn as there are held out of all: a fourth.
    held = range(min(len(images.held_out), max(1, len(crossed.places) // (HELD_OUT - 1))))
    program = quantize(ready, winner)
    both = (crossed.run(model, images.held_out, held) for model in (ready, program))
    parts = zip((crossed.expected, found), both, strict=True)
    expected, own = (
        {name: np.concatenate([turn[name], last[name]]) for name in turn} for turn, last in parts
    )
    return expected_losses(ready, expected, own)
