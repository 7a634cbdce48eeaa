"""Candidate selection of the default method, by cross-validation on the model's outputs.

Each candidate is fitted to a part of the images and evaluated on the others, in turn. Its score
combines the median and the tail of the output error, relative to the spread of the outputs.
Candidates are ordered by headroom for unseen images, largest first. The first one that is not
significantly worse than the best one wins, so that one or two outliers never decide. `minmax` comes
last, and wins only if all others are significantly worse.
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
"""Equalization settings to try; each leaves less headroom than the one before."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A candidate: its name, calibration and traces."""

    name: str
    calibration: Calibration
    traces: Traces = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CandidateBuilder:
    """Function that fits a candidate to statistics, with the candidate's name.

    `trace_ranges` gives the traces of a calibration; it is only called for the winner.
    """

    name: str
    fit: Fit
    trace_ranges: Callable[[Statistics, Calibration], Traces]

    def build_candidate(self, statistics: Statistics) -> Candidate:
        """Fit the candidate to statistics."""
        calibration = self.fit(statistics)
        return Candidate(self.name, calibration, self.trace_ranges(statistics, calibration))


def list_equalizing_builders(
    lowered_model: Model, dataset: DataSet, threads: int | None = None
) -> Sequence[CandidateBuilder]:
    """Return the equalizing candidates, the one with the largest headroom first.

    They equalize channels with headroom for unseen images, round weights by second moments, and
    correct biases sequentially.

    Args:
        lowered_model: The lowered model.
        dataset: A dataset that contains the fit set.
        threads: Number of layers processed in parallel; None for one per processor.
    """
    correction = SequentialCorrection(lowered_model, dataset)

    def make_builder(setting: EqualizationSetting) -> CandidateBuilder:
        def fit(statistics: Statistics) -> Calibration:
            # Only on the fit set: a bias must not be evaluated on images that it was fitted to.
            return correction.correct_biases(
                calibrate_by_moments(lowered_model, setting, statistics, threads), statistics.images
            )

        name = f"moments, floor {setting.floor:g}, sequential bias"
        return CandidateBuilder(name, fit, partial(_build_equalized_traces, lowered_model))

    return [make_builder(setting) for setting in SETTINGS]


def make_method_builder(lowered_model: Model, method: RangeMethod) -> CandidateBuilder:
    """Return the candidate of a range method.

    Args:
        lowered_model: The lowered model.
        method: The method.
    """

    def fit(statistics: Statistics) -> Calibration:
        searched_ranges = method.search(lowered_model, statistics, None)
        # All weights are included, so that a build does not round any itself.
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
    """Return a calibration with equalized channels and weights rounded by second moments.

    Args:
        lowered_model: The lowered model.
        setting: The equalization setting.
        statistics: Condensed statistics of the model's values.
        threads: Number of layers processed in parallel; None for one per processor.
    """
    # Both factors and ranges come from the extremes estimated for unseen images.
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
    """Return the trace of an equalized value; its relative errors are taken from min-max's trace.

    Args:
        minmax_trace: The trace before equalization.
        value_range: The value's range.
        observed_limits: Observed minimum and maximum, after equalization.
        estimated_limits: Minimum and maximum estimated for unseen images.
    """
    observed_peak, estimated_peak = (
        max(abs(max(low, value_range.min_real)), abs(high))
        for low, high in (observed_limits, estimated_limits)
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
"""One image in `TAIL` belongs to the tail."""
RESAMPLES = 1000
"""Bootstrap resamples for the significance of a difference."""
MIN_CONFIDENCE = 0.95
"""Share of the resamples in which a candidate must be better to be significantly better. One
outlier is absent from 37 % of the resamples, two from 14 %, three from 5 %: one or two outliers
cannot decide."""
MIN_ERROR = 1e-12
"""A smaller error counts as zero."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The winner, its builder, and each candidate's quality on images that it was not fitted to.

    `expected` is the winner's expected loss on unseen images, by output.
    """

    builder: CandidateBuilder
    winner: Candidate
    candidate_qualities: tuple[tuple[str, Qualities], ...]
    expected: Mapping[str, ExpectedLoss]

    @property
    def quality(self) -> Qualities:
        """The winner's quality."""
        return dict(self.candidate_qualities)[self.winner.name]


def select_best(
    lowered_model: Model,
    images: CalibrationSplit,
    searches: Sequence[RangeMethod],
    options: RunOptions,
) -> Selection:
    """Select the best candidate by cross-validation.

    Args:
        lowered_model: The lowered model.
        images: The fit set for cross-validation, and the held-out set, which influences no choice.
        searches: Range methods; those that are `in_best` become candidates.
        options: How to run images; the result does not depend on them.
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
    # A single image allows no evaluation: take the candidate with the largest headroom.
    winning_builder = builders[choose_candidate(errors) if cross_fitting.folds else 0]
    # Fit again to the full fit set: the folds' fits only served evaluation.
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
    # Without folds there is no estimate.
    expected = (
        estimate_losses(
            lowered_model, float_outputs, int_outputs, clipped=winning_builder in method_builders
        )
        if float_outputs
        else {}
    )
    return Selection(winning_builder, winner, candidate_qualities, expected)


def choose_candidate(errors: Sequence[Errors]) -> int:
    """Return the index of the first candidate that is not significantly worse than the best.

    Args:
        errors: Error of each image (images,) for each candidate, relative to the output's spread.
    """
    error_table = np.stack(errors)
    # Candidates with a non-finite error cannot win.
    finite_indices = np.flatnonzero(np.isfinite(error_table).all(axis=1))
    if not finite_indices.size:
        return 0
    error_table = error_table[finite_indices]
    # Fixed seed, and images in order of their digests: the result is reproducible.
    draws = np.random.default_rng(0).integers(
        error_table.shape[1], size=(RESAMPLES, error_table.shape[1])
    )
    scores, resampled_scores = (
        _compute_scores(error_table[:, None, :])[:, 0],
        _compute_scores(error_table[:, draws]),
    )
    best = int(np.argmin(scores))
    # Paired bootstrap: both have the same images in each resample.
    is_near = (resampled_scores[best] < resampled_scores).mean(axis=1) < MIN_CONFIDENCE
    # `argmax` of booleans gives the first True.
    return int(finite_indices[np.argmax(is_near)])


def _compute_scores(errors: Errors) -> Errors:
    """Return scores: the mean logarithm of the median and of the tail's mean.

    Args:
        errors: Errors (candidates, resamples, images).

    Returns:
        The scores (candidates, resamples).
    """
    ordered = np.sort(errors, axis=2)
    tail_size = -(-ordered.shape[2] // TAIL)
    tail = ordered[:, :, -tail_size:].mean(axis=2)
    # The median alone would ignore a rare large error, and the mean would be dominated by it.
    statistics = np.stack([np.median(ordered, axis=2), tail])
    scores: Errors = np.log(np.maximum(statistics, MIN_ERROR)).mean(axis=0)
    return scores


def _collect_nested_outputs(
    cross_fitting: CrossFitting, builder_outputs: Sequence[StackedOutputs], errors: Sequence[Errors]
) -> list[tuple[StackedOutputs, StackedOutputs]]:
    """Return the fp32 and int8 outputs of each fold, with the candidate chosen by the other folds.

    With this nested cross-validation, the images of a fold do not influence its choice.
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
    """Return the fp32 and int8 outputs of images that the int8 model was not fitted to.

    These are the images of the folds and the held-out images. Both are empty without folds.
    """
    if not cross_fitting.folds or images.held_out.digest == images.fit_set.digest:
        return {}, {}
    # Held-out images make up the same share, a fourth, as in the dataset. If there is only one
    # fold, it made the choice; then as many held-out images as in that fold are used.
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
