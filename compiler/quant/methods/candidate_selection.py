"""The default method: several ways to calibrate, judged by the model's own outputs.

All images judge in turn: what is learnt from some runs on the others. Candidates rank by the error
of the outputs as a share of their spread, its median and its tail. They stand in the order of the
room that they leave to unseen images, and the first of those that may be as good as the best is
taken: what one or two odd images say never puts it aside. `minmax` is the last of them, and wins
where the others are worse beyond that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import HELD_OUT, DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods.bias_correction import SequentialCorrection
from tcc.compiler.quant.methods.cross_fitting import CalibrationSplit, CrossFitting, Fit
from tcc.compiler.quant.methods.found_ranges import ScaleTrace
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.observe.statistics import Statistics
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding import channel_equalization
from tcc.compiler.quant.rounding.channel_equalization import EqualizationSetting
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import minmax_ranges
from tcc.compiler.quant.unseen_extremes import seen_extremes, unseen_extremes
from tcc.compiler.reference import expected_loss, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.expected_loss import ExpectedLoss, expected_losses
from tcc.compiler.reference.output_comparison import StackedOutputs

Traces = Mapping[str, ScaleTrace]

SETTINGS = (EqualizationSetting(1 / 16),)
"""How far channels are equalised, in turn: each leaves less room than the one before."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to calibrate: its name, and what it found."""

    name: str
    calibration: Calibration
    traces: Traces = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Way:
    """How a candidate is made of what was seen of some images, and what it is called.

    `traced` says how the ranges of a calibration came about, which only the winner is asked.
    """

    name: str
    fit: Fit
    traced: Callable[[Statistics, Calibration], Traces]

    def made(self, seen: Statistics) -> Candidate:
        """Return the candidate that images teach."""
        found = self.fit(seen)
        return Candidate(self.name, found, self.traced(seen, found))


def own_ways(ready: Model, data: DataSet, threads: int | None = None) -> Sequence[Way]:
    """Return the candidates that are no method's, the first of which leaves the most room.

    They equalise channels, with room for what unseen images need, round weights by second moments,
    and correct biases one layer after another.

    Args:
        ready: The ready model.
        data: Images that include those that were seen.
        threads: How many layers are worked on side by side; None is one a processor.
    """
    correction = SequentialCorrection(ready, data)

    def way(setting: EqualizationSetting) -> Way:
        def fit(seen: Statistics) -> Calibration:
            # Only images that the fit learns from: a bias that saw a judge would be judged by what
            # it learnt.
            return correction.corrected(by_moments(ready, setting, seen, threads), seen.images)

        name = f"moments, floor {setting.floor:g}, sequential bias"
        return Way(name, fit, partial(_equalized_traces, ready))

    return [way(setting) for setting in SETTINGS]


def method_way(ready: Model, method: RangeMethod) -> Way:
    """Return what one of the usual methods finds.

    Args:
        ready: The ready model.
        method: The method.
    """

    def fit(seen: Statistics) -> Calibration:
        found = method.search(ready, seen, None)
        # Written out, so that a calibration says every weight and a build rounds none itself.
        rounded = {**round_nearest(ready, found.ranges), **found.rounded}
        return Calibration(found.ranges, rounded)

    def traced(seen: Statistics, _: Calibration) -> Traces:
        return method.search(ready, seen, None).traces

    return Way(method.name, fit, traced)


def by_moments(
    ready: Model, setting: EqualizationSetting, seen: Statistics, threads: int | None = None
) -> Calibration:
    """Return equalised channels, with weights by second moments.

    Args:
        ready: The ready model.
        setting: How far channels are brought to one size.
        seen: What was seen of its values, condensed.
        threads: How many layers are worked on side by side; None is one a processor.
    """
    # What unseen images are expected to need, from which channels are equalised and ranges made
    # alike.
    extremes = unseen_extremes(ready, seen)
    given = channel_equalization.factors(ready, extremes, setting)
    model = channel_equalization.equalized(ready, given)
    found = minmax_ranges(model, channel_equalization.limits(extremes, given))
    moments = round_by_moments(model, found, seen.moments, given, threads)
    return Calibration(found, {**round_nearest(model, found), **moments}, given)


def _equalized_traces(ready: Model, seen: Statistics, found: Calibration) -> Traces:
    reach = channel_equalization.limits(unseen_extremes(ready, seen), found.factors)
    shown = channel_equalization.limits(seen_extremes(seen), found.factors)
    plain = minmax(ready, seen, None).traces
    return {
        name: _equalized_trace(plain[name], own, shown[name], reach[name])
        for name, own in found.ranges.items()
    }


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


Errors = NDArray[np.float64]

TAIL = 10
"""One image of so many is of the tail."""
DRAWS = 1000
"""Draws of images with replacement that tell how far a difference may be chance."""
SURE = 0.95
"""Share of the draws in which another must be better. One odd image is absent from 37 % of them,
two are from 14 %, three from 5 %: what one image or two say puts no candidate aside."""
NONE = 1e-12
"""A smaller error is none."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The winner, how it is made, and how all did on images that they had not learnt from.

    `expected` says what the winner loses on images that nobody has seen, output by output.
    """

    way: Way
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
    tried = [method_way(ready, one) for one in searches if one.in_best]
    ways = (*own_ways(ready, images.learn, options.threads), *tried)
    crossed = CrossFitting(ready, images.learn, images.statistics, options.threads)
    found: list[StackedOutputs] = []
    for done, way in enumerate(ways):
        options.progress("best", done, len(ways))
        found.append(crossed.outputs(way.fit))
    options.progress("best", len(ways), len(ways))
    errors = [expected_loss.error_shares(ready, crossed.expected, outputs) for outputs in found]
    # One image cannot judge what it taught: the one that leaves the most room is taken unseen.
    won = ways[chosen(errors) if crossed.folds else 0]
    # Made anew from all images to learn from: the fits of the parts were to judge the way.
    winner = won.made(images.statistics)
    judged = tuple(
        (way.name, output_comparison.qualities(ready, crossed.expected, outputs))
        for way, outputs in zip(ways, found, strict=True)
    )
    nested = _nested(crossed, found, errors)
    floats, own = _unseen(ready, images, crossed, nested, winner.calibration)
    # Of fewer different images than can judge in turn, nothing is known.
    expected = expected_losses(ready, floats, own, clipped=won in tried) if floats else {}
    return Selection(won, winner, judged, expected)


def chosen(errors: Sequence[Errors]) -> int:
    """Return the place of the first candidate that may be as good as the best.

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
    # Both have the same images in each draw, so that what is common to them cancels.
    near = (drawn[best] < drawn).mean(axis=1) < SURE
    # The first that is near enough: `argmax` of truth values finds the first that holds.
    return int(places[np.argmax(near)])


def _scores(errors: Errors) -> Errors:
    """Return the mean logarithm of the median and of the tail's mean, (candidates, draws).

    Args:
        errors: (candidates, draws, images).
    """
    ordered = np.sort(errors, axis=2)
    worst = -(-ordered.shape[2] // TAIL)
    tail = ordered[:, :, -worst:].mean(axis=2)
    # The median alone would not see the rare image that is far off, a mean would be owned by it.
    both = np.stack([np.median(ordered, axis=2), tail])
    found: Errors = np.log(np.maximum(both, NONE)).mean(axis=0)
    return found


def _nested(
    crossed: CrossFitting, found: Sequence[StackedOutputs], errors: Sequence[Errors]
) -> list[tuple[StackedOutputs, StackedOutputs]]:
    """Return the outputs of floats and of integers, part by part, of images that chose nothing.

    For each part the errors of the others choose anew what is taken for it.
    """
    parts = crossed.parts()
    turns: list[tuple[StackedOutputs, StackedOutputs]] = []
    for part in parts:
        others = np.concatenate([np.empty(0, np.intp), *(one for one in parts if one is not part)])
        if len(others):
            outputs = found[chosen([error[others] for error in errors])]
            floats, own = (
                {n: v[part] for n, v in one.items()} for one in (crossed.expected, outputs)
            )
            turns.append((floats, own))
    return turns


def _unseen(
    ready: Model,
    images: CalibrationSplit,
    crossed: CrossFitting,
    turns: Sequence[tuple[StackedOutputs, StackedOutputs]],
    winner: Calibration,
) -> tuple[StackedOutputs, StackedOutputs]:
    """Return the outputs of floats and of integers for images that the integers had not seen.

    They are those that judged in turn, and the held out. Of fewer different images than can judge
    in turn there are none.
    """
    if not crossed.folds or images.held_out.digest == images.learn.digest:
        return {}, {}
    # As many beside those that judged in turn as there are held out of all: a fourth. Where only
    # one part judges, it has chosen: those held out are as many.
    share = HELD_OUT - 1 if turns else 1
    held = range(min(len(images.held_out), max(1, len(crossed.places) // share)))
    both = [crossed.run(model, images.held_out, held) for model in (ready, quantize(ready, winner))]
    every = [*turns, (both[0], both[1])]
    floats, own = (
        {name: np.concatenate([turn[which][name] for turn in every]) for name in both[0]}
        for which in (0, 1)
    )
    return floats, own
