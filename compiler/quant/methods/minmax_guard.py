"""Guard that compares a search with min-max by the model's outputs, and uses the better one.

A search can clip so much that the network suffers, although each layer on its own looks good. Three
candidates are evaluated on held-out images: the searched scales, the same scales raised to at least
`MIN_SCALE_SHARE` of min-max's, and min-max.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import scale_groups
from tcc.compiler.quant.calibration import Calibration
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
"""Minimum of raised scales, as a share of min-max's. Below it, a layer's cosine says little about
the network's. On trained DDSNets, the search by divergence alone gave thresholds down to 0.16 of
the largest magnitude, with a mean cosine of the outputs of 0.80."""
MARGIN = 0.9
"""Another candidate replaces min-max only if its loss is below this share of min-max's: a smaller
difference between a few images may be chance."""
MINMAX_NAME = "minmax"
"""The name of min-max in lists of candidates."""


@dataclass(frozen=True, slots=True)
class GuardDecision:
    """The chosen candidate, and the ranges and quality of each candidate.

    `reason` explains why the searched scales are not used; it is empty if they are used.
    """

    winner: str
    reason: str
    ranges_by_candidate: Mapping[str, SearchedRanges]
    qualities_by_candidate: Mapping[str, Qualities]


def calibrate_guarded(
    name: str, search: Search, lowered_model: Model, dataset: DataSet, options: RunOptions
) -> CalibrationResult:
    """Calibrate by a search, or by min-max if the search is not better.

    Args:
        name: The method's name.
        search: Its search.
        lowered_model: The lowered model.
        dataset: Images, of which some are held out.
        options: How to run them.
    """
    # The choice uses only images of the fit set; the held-out images influence nothing.
    fit_set, held_out = dataset.split()
    calibration_split = split_dataset(lowered_model, fit_set, options)
    options.progress(name, 0, 1)
    decision = choose_ranges(name, search, lowered_model, calibration_split, options.threads)
    winner_ranges = decision.ranges_by_candidate[decision.winner]
    ranges, traces = winner_ranges.ranges, winner_ranges.traces
    if decision.winner == MINMAX_NAME and len(calibration_split.held_out) < len(fit_set):
        # min-max uses the full fit set: its evaluation is over
        held_out_statistics = observe(
            lowered_model, calibration_split.held_out, options, positions=0
        )
        limits = _merge_limits(calibration_split.statistics.limits, held_out_statistics.limits)
        ranges = scale_groups.compute_minmax_ranges(lowered_model, limits)
        traces = _extend_traces(lowered_model, traces, limits)
    # Traces show the search's results even if min-max is used, since the user chose the search.
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
    """Choose between searched scales, raised scales and min-max by held-out images.

    Args:
        name: The method's name.
        search: Its search.
        lowered_model: The lowered model.
        calibration_split: The fit set with its statistics, and the held-out set.
        threads: Number of images run in parallel; None for one per processor.
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
    """Return the name of a method's raised scales in lists of candidates."""
    return f"{name}, raised"


def raise_scales(
    lowered_model: Model, searched_ranges: SearchedRanges, minmax_ranges: SearchedRanges
) -> SearchedRanges:
    """Raise scales to at least `MIN_SCALE_SHARE` of min-max's.

    Args:
        lowered_model: The lowered model.
        searched_ranges: The ranges of a search.
        minmax_ranges: The ranges of min-max.
    """
    ranges, traces = {}, {}
    for value_name, value_range in searched_ranges.ranges.items():
        min_scale = float(np.float32(minmax_ranges.ranges[value_name].scale * MIN_SCALE_SHARE))
        # Per value: scales above the minimum do not change.
        ranges[value_name] = value_range.with_scale(max(value_range.scale, min_scale))
        threshold = ranges[value_name].scale * ranges[value_name].limits[1]
        traces[value_name] = replace(searched_ranges.traces[value_name], threshold=threshold)
    weights = {node: rounded.scale for node, rounded in searched_ranges.rounded.items()}
    return SearchedRanges(ranges, traces, dict(round_at_scales(lowered_model, ranges, weights)))


def _choose_winner(qualities: Mapping[str, Qualities], name: str) -> tuple[str, str]:
    """Return the chosen candidate, and why it is not the searched scales; empty if it is."""
    minmax_quality = qualities[MINMAX_NAME]
    # Of equal losses, the first: the searched scales.
    best = min(
        (name, format_raised_name(name)),
        key=lambda candidate_name: compute_mean_loss(qualities[candidate_name]),
    )
    best_quality = qualities[best]
    # Both conditions: a smaller loss with more changed classes is no gain for the user.
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
    return best, f"`{name}` has a larger loss than `{best}`: {searched} against {raised_loss}"


def _explain_loss(name: str, searched: float, minmax_loss: float) -> str:
    """Explain why the loss of the searched scales excludes them."""
    searched_text, minmax_text = _format_distinct(searched, minmax_loss)
    losses = f"{searched_text} against {minmax_text}"
    if searched > minmax_loss:
        return f"`{name}` has a larger loss than `{MINMAX_NAME}`: {losses}"
    if searched == minmax_loss:
        return f"`{name}` has the same loss as `{MINMAX_NAME}`: {searched_text}"
    return (
        f"`{name}` has a smaller loss than `{MINMAX_NAME}` ({losses}), but not below"
        f" {MARGIN:.0%} of it; the difference may be chance"
    )


def _explain_agreement(name: str, share: float, minmax_share: float) -> str:
    """Explain why the changed decisions of the best candidate exclude it."""
    return (
        f"`{name}` has the smallest loss, but changes more decisions than `{MINMAX_NAME}`:"
        f" {1 - share:.1%} of the images against {1 - minmax_share:.1%}"
    )


def _format_distinct(a: float, b: float) -> tuple[str, str]:
    """Format two numbers with as few digits as needed to differ."""
    texts = ((f"{a:.{digits}e}", f"{b:.{digits}e}") for digits in range(1, 17))
    return next(pair for pair in texts if a == b or pair[0] != pair[1])


def _merge_limits(a: Limits, b: Limits) -> Limits:
    return {name: (min(a[name][0], b[name][0]), max(a[name][1], b[name][1])) for name in a}


def _extend_traces(
    lowered_model: Model, traces: Mapping[str, ScaleTrace], limits: Limits
) -> Mapping[str, ScaleTrace]:
    """Return traces with the minimum and maximum of each group's limits."""
    extended_traces: dict[str, ScaleTrace] = {}
    for group in scale_groups.find_scale_groups(lowered_model.graph):
        low, high = (pick(limits[n][i] for n in group) for i, pick in ((0, min), (1, max)))
        extended_traces |= {name: replace(traces[name], low=low, high=high) for name in group}
    return extended_traces


def _format_notice(decision: GuardDecision, name: str) -> str:
    return (
        f"`{decision.winner}` is used instead of the published `{name}`: on held-out images,"
        f" {decision.reason}"
    )
