"""What keeps a search from being worse than min-max: both are judged by the model's own outputs.

The thresholds of a search may be so low that the whole network suffers, though each layer by itself
looks well. So the scales as found, the same with none below `FLOOR` of min-max's, and min-max
itself are tried on images that none of them has seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import scale_groups
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods.cross_fitting import CalibrationSplit, held_out_judge, split
from tcc.compiler.quant.methods.found_ranges import FoundRanges, ScaleTrace, rounded_at
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.methods.range_search import Search, minmax
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import Limits
from tcc.compiler.reference.accuracy_floor import Qualities, agreement, loss

FLOOR = 0.8
"""The least share of min-max's scale that the raised scales keep: below it, what a layer's own
cosine says has little to do with the network's. On trained DDSNets the search by divergence alone
took thresholds down to 0.16 of the largest magnitude, with a mean cosine of the outputs of 0.80."""
MARGIN = 0.9
"""Min-max stands unless another's loss is below this share of its own: a difference of a few images
may be chance."""
SAFE = "minmax"
"""What min-max is called where candidates are listed."""


@dataclass(frozen=True, slots=True)
class GuardDecision:
    """Which candidate won, what each found, and how each did on the images held out.

    `reason` says why the scales as the search found them are not used; it is empty where they are.
    """

    winner: str
    reason: str
    found: Mapping[str, FoundRanges]
    judged: Mapping[str, Qualities]


def guarded(
    name: str, search: Search, ready: Model, data: DataSet, options: RunOptions
) -> CalibrationResult:
    """Return the calibration by a search, or by min-max where the search does no better.

    Args:
        name: The method's.
        search: Its search.
        ready: The ready model.
        data: Images, of which some are held out.
        options: How to run them.
    """
    # What decides is of the images to learn from: those held out are looked at by no choice.
    learn, held_out = data.split()
    images = split(ready, learn, options)
    options.progress(name, 0, 1)
    decision = decided(name, search, ready, images, options.threads)
    found = decision.found[decision.winner]
    ranges, traces = found.ranges, found.traces
    if decision.winner == SAFE and len(images.held_out) < len(learn):
        # min-max may learn from all of them: it is not what is judged
        rest = observe(ready, images.held_out, options, positions=0)
        limits = _wider(images.statistics.limits, rest.limits)
        ranges = scale_groups.minmax_ranges(ready, limits)
        traces = _learnt_more(ready, traces, limits)
    # What the search found is told even where min-max is used: the user asked for it.
    searched = decision.found[name].traces
    traces = {
        value: replace(
            own,
            threshold=ranges[value].scale * ranges[value].limits[1],
            divergence=searched[value].divergence,
            cosine=searched[value].cosine,
        )
        for value, own in traces.items()
    }
    return CalibrationResult(
        Calibration(ranges, found.rounded),
        traces,
        decision.winner,
        len(held_out),
        decision.judged,
        () if decision.winner == name else (_notice(decision, name),),
    )


def decided(
    name: str,
    search: Search,
    ready: Model,
    images: CalibrationSplit,
    threads: int | None = None,
) -> GuardDecision:
    """Return which of a search, its raised scales and min-max is used, by images held out.

    Args:
        name: The method's.
        search: Its search.
        ready: The ready model.
        images: Those that it learns from, with what was seen of them, and those that judge.
        threads: How many images run side by side; None is one a processor.
    """
    own, safe = (one(ready, images.statistics, threads) for one in (search, minmax))
    found = {SAFE: safe, name: own, raised_name(name): raised(ready, own, safe)}
    judge = held_out_judge(ready, images.held_out, threads=threads)
    judged = {
        each: judge.qualities(Calibration(one.ranges, one.rounded)) for each, one in found.items()
    }
    return GuardDecision(*_choose_winner(judged, name), found, judged)


def raised_name(name: str) -> str:
    """Return what the raised scales of a method are called where candidates are listed."""
    return f"{name}, raised"


def raised(ready: Model, found: FoundRanges, safe: FoundRanges) -> FoundRanges:
    """Return scales as found where they are at least `FLOOR` of min-max's, else that share.

    Args:
        ready: The ready model.
        found: What a search found.
        safe: What min-max found.
    """
    ranges, traces = {}, {}
    for value, own in found.ranges.items():
        least = float(np.float32(safe.ranges[value].scale * FLOOR))
        # Value by value: what the search left alone stays as it found it.
        ranges[value] = Range(max(own.scale, least), own.signed)
        threshold = ranges[value].scale * own.limits[1]
        traces[value] = replace(found.traces[value], threshold=threshold)
    weights = {node: rounded.scale for node, rounded in found.rounded.items()}
    return FoundRanges(ranges, traces, dict(rounded_at(ready, ranges, weights)))


def _choose_winner(qualities: Mapping[str, Qualities], name: str) -> tuple[str, str]:
    """Return the candidate that is used, and why the scales as found are not; empty if they are."""
    minmax_quality = qualities[SAFE]
    # Equal losses leave the scales as found, which stand first.
    best = min((name, raised_name(name)), key=lambda each: loss(qualities[each]))
    best_quality = qualities[best]
    # Both must hold: a smaller loss that changes more classes is no gain to a user.
    if not loss(best_quality) < MARGIN * loss(minmax_quality):
        return SAFE, _explain_loss(name, loss(qualities[name]), loss(minmax_quality))
    if agreement(best_quality) < agreement(minmax_quality):
        return SAFE, _explain_agreement(best, agreement(best_quality), agreement(minmax_quality))
    if best == name:
        return name, ""
    searched, raised_loss = _format_distinct(loss(qualities[name]), loss(best_quality))
    return best, f"`{name}` loses more than `{best}`: {searched}, not {raised_loss}"


def _explain_loss(name: str, searched: float, minmax_loss: float) -> str:
    """Return how the loss of the scales as found keeps them from being used."""
    searched_text, minmax_text = _format_distinct(searched, minmax_loss)
    if searched > minmax_loss:
        return f"`{name}` loses more than `{SAFE}`: {searched_text}, not {minmax_text}"
    if searched == minmax_loss:
        return f"`{name}` loses as much as `{SAFE}`: {searched_text}"
    return (
        f"`{name}` loses less than `{SAFE}` ({searched_text}, not {minmax_text}), but not less than"
        f" {MARGIN:.0%} of it, so that the difference may be chance"
    )


def _explain_agreement(name: str, share: float, minmax_share: float) -> str:
    """Return how the decisions of the best candidate keep it from being used."""
    return (
        f"`{name}` loses the least, but changes more decisions than `{SAFE}`: {1 - share:.1%} of"
        f" the images, not {1 - minmax_share:.1%}"
    )


def _format_distinct(a: float, b: float) -> tuple[str, str]:
    """Return two numbers with as few digits as tell them apart, if they differ."""
    texts = ((f"{a:.{digits}e}", f"{b:.{digits}e}") for digits in range(1, 17))
    return next(pair for pair in texts if a == b or pair[0] != pair[1])


def _wider(a: Limits, b: Limits) -> Limits:
    return {name: (min(a[name][0], b[name][0]), max(a[name][1], b[name][1])) for name in a}


def _learnt_more(
    ready: Model, traces: Mapping[str, ScaleTrace], limits: Limits
) -> Mapping[str, ScaleTrace]:
    """Return traces with the extremes of each group's limits."""
    found: dict[str, ScaleTrace] = {}
    for group in scale_groups.scale_groups(ready.graph):
        low, high = (pick(limits[n][i] for n in group) for i, pick in ((0, min), (1, max)))
        found |= {name: replace(traces[name], low=low, high=high) for name in group}
    return found


def _notice(decision: GuardDecision, name: str) -> str:
    return (
        f"`{decision.winner}` is used in place of `{name}` as published; on images held out"
        f" {decision.reason}"
    )
