"""What keeps a search from being worse than min-max: both are judged by the model's own outputs.

The thresholds of a search may be so low that the whole network suffers, though each layer by itself
looks well. So the scales as found, the same with none below `MIN_SCALE_SHARE` of min-max's, and
min-max itself are tried on images that none of them has seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import scale_groups
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods.cross_fitting import (
    CalibrationSplit,
    create_evaluator,
    split_dataset,
)
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.methods.range_search import Search, minmax
from tcc.compiler.quant.methods.searched_ranges import ScaleTrace, SearchedRanges, round_at_scales
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import Limits
from tcc.compiler.reference.accuracy_floor import Qualities, compute_mean_loss, find_min_agreement

MIN_SCALE_SHARE = 0.8
"""The least share of min-max's scale that the raised scales keep: below it, what a layer's own
cosine says has little to do with the network's. On trained DDSNets the search by divergence alone
took thresholds down to 0.16 of the largest magnitude, with a mean cosine of the outputs of 0.80."""
MARGIN = 0.9
"""Min-max stands unless another's loss is below this share of its own: a difference of a few images
may be chance."""
MINMAX_NAME = "minmax"
"""What min-max is called where candidates are listed."""


@dataclass(frozen=True, slots=True)
class GuardDecision:
    """Which candidate won, what each found, and how each did on the images held out.

    `reason` says why the scales as the search found them are not used; it is empty where they are.
    """

    winner: str
    reason: str
    ranges_by_candidate: Mapping[str, SearchedRanges]
    qualities_by_candidate: Mapping[str, Qualities]


def calibrate_guarded(
    name: str, search: Search, lowered_model: Model, dataset: DataSet, options: RunOptions
) -> CalibrationResult:
    """Return the calibration by a search, or by min-max where the search does no better.

    Args:
        name: The method's.
        search: Its search.
        lowered_model: The ready model.
        dataset: Images, of which some are held out.
        options: How to run them.
    """
    # What decides is of the images to learn from: those held out are looked at by no choice.
    fit_set, held_out = dataset.split()
    calibration_split = split_dataset(lowered_model, fit_set, options)
    options.progress(name, 0, 1)
    decision = choose_ranges(name, search, lowered_model, calibration_split, options.threads)
    winner_ranges = decision.ranges_by_candidate[decision.winner]
    ranges, traces = winner_ranges.ranges, winner_ranges.traces
    if decision.winner == MINMAX_NAME and len(calibration_split.held_out) < len(fit_set):
        # min-max may learn from all of them: it is not what is judged
        held_out_statistics = observe(
            lowered_model, calibration_split.held_out, options, positions=0
        )
        limits = _merge_limits(calibration_split.statistics.limits, held_out_statistics.limits)
        ranges = scale_groups.compute_minmax_ranges(lowered_model, limits)
        traces = _extend_traces(lowered_model, traces, limits)
    # What the search found is told even where min-max is used: the user asked for it.
    searched_traces = decision.ranges_by_candidate[name].traces
    traces = {
        value_name: replace(
            scale_trace,
            threshold=ranges[value_name].scale * ranges[value_name].limits[1],
            divergence=searched_traces[value_name].divergence,
            cosine=searched_traces[value_name].cosine,
        )
        for value_name, scale_trace in traces.items()
    }
    return CalibrationResult(
        Calibration(ranges, winner_ranges.rounded),
        traces,
        decision.winner,
        len(held_out),
        decision.qualities_by_candidate,
        () if decision.winner == name else (_format_notice(decision, name),),
    )


def choose_ranges(
    name: str,
    search: Search,
    lowered_model: Model,
    calibration_split: CalibrationSplit,
    threads: int | None = None,
) -> GuardDecision:
    """Return which of a search, its raised scales and min-max is used, by images held out.

    Args:
        name: The method's.
        search: Its search.
        lowered_model: The ready model.
        calibration_split: Those that it learns from, with what was seen of them, and those that
            judge.
        threads: How many images run side by side; None is one a processor.
    """
    searched_ranges, minmax_ranges = (
        candidate(lowered_model, calibration_split.statistics, threads)
        for candidate in (search, minmax)
    )
    ranges_by_candidate = {
        MINMAX_NAME: minmax_ranges,
        name: searched_ranges,
        format_raised_name(name): raise_scales(lowered_model, searched_ranges, minmax_ranges),
    }
    evaluator = create_evaluator(lowered_model, calibration_split.held_out, threads=threads)
    qualities_by_candidate = {
        candidate_name: evaluator.compute_qualities(
            Calibration(candidate.ranges, candidate.rounded)
        )
        for candidate_name, candidate in ranges_by_candidate.items()
    }
    return GuardDecision(
        *_choose_winner(qualities_by_candidate, name), ranges_by_candidate, qualities_by_candidate
    )


def format_raised_name(name: str) -> str:
    """Return what the raised scales of a method are called where candidates are listed."""
    return f"{name}, raised"


def raise_scales(
    lowered_model: Model, searched_ranges: SearchedRanges, minmax_ranges: SearchedRanges
) -> SearchedRanges:
    """Raise scales to at least `MIN_SCALE_SHARE` of min-max's.

    Args:
        lowered_model: The ready model.
        searched_ranges: What a search found.
        minmax_ranges: What min-max found.
    """
    ranges, traces = {}, {}
    for value_name, value_range in searched_ranges.ranges.items():
        min_scale = float(np.float32(minmax_ranges.ranges[value_name].scale * MIN_SCALE_SHARE))
        # Value by value: what the search left alone stays as it found it.
        ranges[value_name] = Range(max(value_range.scale, min_scale), value_range.signed)
        threshold = ranges[value_name].scale * value_range.limits[1]
        traces[value_name] = replace(searched_ranges.traces[value_name], threshold=threshold)
    weights = {node: rounded.scale for node, rounded in searched_ranges.rounded.items()}
    return SearchedRanges(ranges, traces, dict(round_at_scales(lowered_model, ranges, weights)))


def _choose_winner(qualities: Mapping[str, Qualities], name: str) -> tuple[str, str]:
    """Return the candidate that is used, and why the scales as found are not; empty if they are."""
    minmax_quality = qualities[MINMAX_NAME]
    # Equal losses leave the scales as found, which stand first.
    best = min(
        (name, format_raised_name(name)),
        key=lambda candidate_name: compute_mean_loss(qualities[candidate_name]),
    )
    best_quality = qualities[best]
    # Both must hold: a smaller loss that changes more classes is no gain to a user.
    if not compute_mean_loss(best_quality) < MARGIN * compute_mean_loss(minmax_quality):
        return MINMAX_NAME, _explain_loss(
            name, compute_mean_loss(qualities[name]), compute_mean_loss(minmax_quality)
        )
    if find_min_agreement(best_quality) < find_min_agreement(minmax_quality):
        return MINMAX_NAME, _explain_agreement(
            best, find_min_agreement(best_quality), find_min_agreement(minmax_quality)
        )
    if best == name:
        return name, ""
    searched, raised_loss = _format_distinct(
        compute_mean_loss(qualities[name]), compute_mean_loss(best_quality)
    )
    return best, f"`{name}` loses more than `{best}`: {searched}, not {raised_loss}"


def _explain_loss(name: str, searched: float, minmax_loss: float) -> str:
    """Return how the loss of the scales as found keeps them from being used."""
    searched_text, minmax_text = _format_distinct(searched, minmax_loss)
    if searched > minmax_loss:
        return f"`{name}` loses more than `{MINMAX_NAME}`: {searched_text}, not {minmax_text}"
    if searched == minmax_loss:
        return f"`{name}` loses as much as `{MINMAX_NAME}`: {searched_text}"
    return (
        f"`{name}` loses less than `{MINMAX_NAME}` ({searched_text}, not {minmax_text}), "
        "but not less than"
        f" {MARGIN:.0%} of it, so that the difference may be chance"
    )


def _explain_agreement(name: str, share: float, minmax_share: float) -> str:
    """Return how the decisions of the best candidate keep it from being used."""
    return (
        f"`{name}` loses the least, but changes more decisions than `{MINMAX_NAME}`: "
        f"{1 - share:.1%} of"
        f" the images, not {1 - minmax_share:.1%}"
    )


def _format_distinct(a: float, b: float) -> tuple[str, str]:
    """Return two numbers with as few digits as tell them apart, if they differ."""
    texts = ((f"{a:.{digits}e}", f"{b:.{digits}e}") for digits in range(1, 17))
    return next(pair for pair in texts if a == b or pair[0] != pair[1])


def _merge_limits(a: Limits, b: Limits) -> Limits:
    return {name: (min(a[name][0], b[name][0]), max(a[name][1], b[name][1])) for name in a}


def _extend_traces(
    lowered_model: Model, traces: Mapping[str, ScaleTrace], limits: Limits
) -> Mapping[str, ScaleTrace]:
    """Return traces with the extremes of each group's limits."""
    extended_traces: dict[str, ScaleTrace] = {}
    for group in scale_groups.find_scale_groups(lowered_model.graph):
        low, high = (pick(limits[n][i] for n in group) for i, pick in ((0, min), (1, max)))
        extended_traces |= {name: replace(traces[name], low=low, high=high) for name in group}
    return extended_traces


def _format_notice(decision: GuardDecision, name: str) -> str:
    return (
        f"`{decision.winner}` is used in place of `{name}` as published; on images held out"
        f" {decision.reason}"
    )
