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

from tcc.compiler.data.dataset import HELD_OUT_INTERVAL, DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods.bias_correction import SequentialCorrection
from tcc.compiler.quant.methods.cross_fitting import CalibrationSplit, CrossFitting, Fit
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.methods.searched_ranges import ScaleTrace
from tcc.compiler.quant.observe.statistics import Statistics
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding import channel_equalization
from tcc.compiler.quant.rounding.channel_equalization import EqualizationSetting
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import compute_minmax_ranges
from tcc.compiler.quant.unseen_extremes import collect_extremes, estimate_unseen_extremes
from tcc.compiler.reference import expected_loss, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.expected_loss import ExpectedLoss, estimate_losses
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
class CandidateBuilder:
    """How a candidate is made of what was seen of some images, and what it is called.

    `trace_ranges` says how the ranges of a calibration came about, which only the winner is asked.
    """

    name: str
    fit: Fit
    trace_ranges: Callable[[Statistics, Calibration], Traces]

    def build_candidate(self, statistics: Statistics) -> Candidate:
        """Return the candidate that images teach."""
        calibration = self.fit(statistics)
        return Candidate(self.name, calibration, self.trace_ranges(statistics, calibration))


def list_equalizing_builders(
    lowered_model: Model, dataset: DataSet, threads: int | None = None
) -> Sequence[CandidateBuilder]:
    """Return the candidates that are no method's, the first of which leaves the most room.

    They equalise channels, with room for what unseen images need, round weights by second moments,
    and correct biases one layer after another.

    Args:
        lowered_model: The ready model.
        dataset: Images that include those that were seen.
        threads: How many layers are worked on side by side; None is one a processor.
    """
    correction = SequentialCorrection(lowered_model, dataset)

    def make_builder(setting: EqualizationSetting) -> CandidateBuilder:
        def fit(statistics: Statistics) -> Calibration:
            # Only images that the fit learns from: a bias that saw a judge would be judged by what
            # it learnt.
            return correction.correct_biases(
                calibrate_by_moments(lowered_model, setting, statistics, threads), statistics.images
            )

        name = f"moments, floor {setting.floor:g}, sequential bias"
        return CandidateBuilder(name, fit, partial(_build_equalized_traces, lowered_model))

    return [make_builder(setting) for setting in SETTINGS]


def make_method_builder(lowered_model: Model, method: RangeMethod) -> CandidateBuilder:
    """Return what one of the usual methods finds.

    Args:
        lowered_model: The ready model.
        method: The method.
    """

    def fit(statistics: Statistics) -> Calibration:
        searched_ranges = method.search(lowered_model, statistics, None)
        # Written out, so that a calibration says every weight and a build rounds none itself.
        rounded = {
            **round_nearest(lowered_model, searched_ranges.ranges),
            **searched_ranges.rounded,
        }
        return Calibration(searched_ranges.ranges, rounded)

    def trace_ranges(statistics: Statistics, _: Calibration) -> Traces:
        return method.search(lowered_model, statistics, None).traces

    return CandidateBuilder(method.name, fit, trace_ranges)


def calibrate_by_moments(
    lowered_model: Model,
    setting: EqualizationSetting,
    statistics: Statistics,
    threads: int | None = None,
) -> Calibration:
    """Return equalised channels, with weights by second moments.

    Args:
        lowered_model: The ready model.
        setting: How far channels are brought to one size.
        statistics: What was seen of its values, condensed.
        threads: How many layers are worked on side by side; None is one a processor.
    """
    # What unseen images are expected to need, from which channels are equalised and ranges made
    # alike.
    extremes = estimate_unseen_extremes(lowered_model, statistics)
    channel_factors = channel_equalization.compute_factors(lowered_model, extremes, setting)
    model = channel_equalization.equalize_model(lowered_model, channel_factors)
    ranges = compute_minmax_ranges(
        model, channel_equalization.compute_limits(extremes, channel_factors)
    )
    rounded_weights = round_by_moments(model, ranges, statistics.moments, channel_factors, threads)
    return Calibration(ranges, {**round_nearest(model, ranges), **rounded_weights}, channel_factors)


def _build_equalized_traces(
    lowered_model: Model, statistics: Statistics, calibration: Calibration
) -> Traces:
    estimated_limits = channel_equalization.compute_limits(
        estimate_unseen_extremes(lowered_model, statistics), calibration.factors
    )
    observed_limits = channel_equalization.compute_limits(
        collect_extremes(statistics), calibration.factors
    )
    minmax_traces = minmax(lowered_model, statistics, None).traces
    return {
        name: _build_equalized_trace(
            minmax_traces[name], value_range, observed_limits[name], estimated_limits[name]
        )
        for name, value_range in calibration.ranges.items()
    }


def _build_equalized_trace(
    minmax_trace: ScaleTrace,
    value_range: Range,
    observed_limits: tuple[float, float],
    estimated_limits: tuple[float, float],
) -> ScaleTrace:
    """Return the trace of an equalised value; how sure an estimate is, equalising hardly changes.

    Args:
        minmax_trace: That of the value before.
        value_range: Its range.
        observed_limits: The smallest and the largest number seen, after equalising.
        estimated_limits: Those that are expected of unseen images.
    """
    observed_peak, estimated_peak = (
        max(abs(low), abs(high)) for low, high in (observed_limits, estimated_limits)
    )
    return replace(
        minmax_trace,
        low=observed_limits[0],
        high=observed_limits[1],
        threshold=value_range.scale * value_range.limits[1],
        reach=estimated_peak,
        shown=observed_peak / estimated_peak if estimated_peak else 1.0,
    )


Errors = NDArray[np.float64]

TAIL = 10
"""One image of so many is of the tail."""
RESAMPLES = 1000
"""Draws of images with replacement that tell how far a difference may be chance."""
MIN_CONFIDENCE = 0.95
"""Share of the draws in which another must be better. One odd image is absent from 37 % of them,
two are from 14 %, three from 5 %: what one image or two say puts no candidate aside."""
MIN_ERROR = 1e-12
"""A smaller error is none."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The winner, how it is made, and how all did on images that they had not learnt from.

    `expected` says what the winner loses on images that nobody has seen, output by output.
    """

    builder: CandidateBuilder
    winner: Candidate
    candidate_qualities: tuple[tuple[str, Qualities], ...]
    expected: Mapping[str, ExpectedLoss]

    @property
    def quality(self) -> Qualities:
        """The winner's."""
        return dict(self.candidate_qualities)[self.winner.name]


def select_best(
    lowered_model: Model,
    images: CalibrationSplit,
    searches: Sequence[RangeMethod],
    options: RunOptions,
) -> Selection:
    """Return the best of all candidates by the outputs of images that they had not learnt from.

    Args:
        lowered_model: The ready model.
        images: Those to learn from, which judge in turn, and those held out, which choose nothing.
        searches: Methods, of which those that are `in_best` are tried beside its own candidates.
        options: How to run images; none of them changes the result.
    """
    method_builders = [
        make_method_builder(lowered_model, method) for method in searches if method.in_best
    ]
    builders = (
        *list_equalizing_builders(lowered_model, images.fit_set, options.threads),
        *method_builders,
    )
    cross_fitting = CrossFitting(lowered_model, images.fit_set, images.statistics, options.threads)
    builder_outputs: list[StackedOutputs] = []
    for completed, builder in enumerate(builders):
        options.progress("best", completed, len(builders))
        builder_outputs.append(cross_fitting.compute_outputs(builder.fit))
    options.progress("best", len(builders), len(builders))
    errors = [
        expected_loss.compute_image_errors(lowered_model, cross_fitting.expected, outputs)
        for outputs in builder_outputs
    ]
    # One image cannot judge what it taught: the one that leaves the most room is taken unseen.
    winning_builder = builders[choose_candidate(errors) if cross_fitting.folds else 0]
    # Made anew from all images to learn from: the fits of the parts were to judge the way.
    winner = winning_builder.build_candidate(images.statistics)
    candidate_qualities = tuple(
        (
            builder.name,
            output_comparison.compute_qualities(lowered_model, cross_fitting.expected, outputs),
        )
        for builder, outputs in zip(builders, builder_outputs, strict=True)
    )
    nested_outputs = _collect_nested_outputs(cross_fitting, builder_outputs, errors)
    float_outputs, int_outputs = _collect_unseen_outputs(
        lowered_model, images, cross_fitting, nested_outputs, winner.calibration
    )
    # Of fewer different images than can judge in turn, nothing is known.
    expected = (
        estimate_losses(
            lowered_model, float_outputs, int_outputs, clipped=winning_builder in method_builders
        )
        if float_outputs
        else {}
    )
    return Selection(winning_builder, winner, candidate_qualities, expected)


def choose_candidate(errors: Sequence[Errors]) -> int:
    """Return the place of the first candidate that may be as good as the best.

    Args:
        errors: Of each candidate, the error of the same images (images,), as a share of the spread.
    """
    error_table = np.stack(errors)
    # What is not finite cannot win, and must not enter sums.
    finite_indices = np.flatnonzero(np.isfinite(error_table).all(axis=1))
    if not finite_indices.size:
        return 0
    error_table = error_table[finite_indices]
    # Draws are of a fixed seed over images in the order of their contents: the same every time.
    draws = np.random.default_rng(0).integers(
        error_table.shape[1], size=(RESAMPLES, error_table.shape[1])
    )
    scores, resampled_scores = (
        _compute_scores(error_table[:, None, :])[:, 0],
        _compute_scores(error_table[:, draws]),
    )
    best = int(np.argmin(scores))
    # Both have the same images in each draw, so that what is common to them cancels.
    is_near = (resampled_scores[best] < resampled_scores).mean(axis=1) < MIN_CONFIDENCE
    # The first that is near enough: `argmax` of truth values finds the first that holds.
    return int(finite_indices[np.argmax(is_near)])


def _compute_scores(errors: Errors) -> Errors:
    """Return the mean logarithm of the median and of the tail's mean, (candidates, draws).

    Args:
        errors: (candidates, draws, images).
    """
    ordered = np.sort(errors, axis=2)
    tail_size = -(-ordered.shape[2] // TAIL)
    tail = ordered[:, :, -tail_size:].mean(axis=2)
    # The median alone would not see the rare image that is far off, a mean would be owned by it.
    statistics = np.stack([np.median(ordered, axis=2), tail])
    scores: Errors = np.log(np.maximum(statistics, MIN_ERROR)).mean(axis=0)
    return scores


def _collect_nested_outputs(
    cross_fitting: CrossFitting, builder_outputs: Sequence[StackedOutputs], errors: Sequence[Errors]
) -> list[tuple[StackedOutputs, StackedOutputs]]:
    """Return the outputs of floats and of integers, part by part, of images that chose nothing.

    For each part the errors of the others choose anew what is taken for it.
    """
    parts = cross_fitting.compute_part_indices()
    part_outputs: list[tuple[StackedOutputs, StackedOutputs]] = []
    for part in parts:
        other_images = np.concatenate(
            [np.empty(0, np.intp), *(source for source in parts if source is not part)]
        )
        if len(other_images):
            outputs = builder_outputs[choose_candidate([error[other_images] for error in errors])]
            float_outputs, int_outputs = (
                {n: v[part] for n, v in source.items()}
                for source in (cross_fitting.expected, outputs)
            )
            part_outputs.append((float_outputs, int_outputs))
    return part_outputs


def _collect_unseen_outputs(
    lowered_model: Model,
    images: CalibrationSplit,
    cross_fitting: CrossFitting,
    part_outputs: Sequence[tuple[StackedOutputs, StackedOutputs]],
    winner: Calibration,
) -> tuple[StackedOutputs, StackedOutputs]:
    """Return the outputs of floats and of integers for images that the integers had not seen.

    They are those that judged in turn, and the held out. Of fewer different images than can judge
    in turn there are none.
    """
    if not cross_fitting.folds or images.held_out.digest == images.fit_set.digest:
        return {}, {}
    # As many beside those that judged in turn as there are held out of all: a fourth. Where only
    # one part judges, it has chosen: those held out are as many.
    share = HELD_OUT_INTERVAL - 1 if part_outputs else 1
    held_out_indices = range(
        min(len(images.held_out), max(1, len(cross_fitting.held_out_indices) // share))
    )
    held_out_outputs = [
        cross_fitting.run_images(model, images.held_out, held_out_indices)
        for model in (lowered_model, quantize(lowered_model, winner))
    ]
    all_outputs = [*part_outputs, (held_out_outputs[0], held_out_outputs[1])]
    float_outputs, int_outputs = (
        {
            name: np.concatenate([part[index][name] for part in all_outputs])
            for name in held_out_outputs[0]
        }
        for index in (0, 1)
    )
    return float_outputs, int_outputs
