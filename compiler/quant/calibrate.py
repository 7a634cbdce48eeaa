"""From a ready model and a data set to its calibration, by a method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tcc.compiler.data.dataset import DAMAGED, HELD_OUT, DataSet, check
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import scale_groups
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import value_ranges
from tcc.compiler.quant.methods.best import best
from tcc.compiler.quant.methods.guard import PAPER, SAFE, Verdict, guarded
from tcc.compiler.quant.methods.value_ranges import Trace
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.scale_groups import Limits
from tcc.compiler.reference.quality import Qualities, loss
from tcc.compiler.support.diagnostics import Span, UserError, fail, nearest
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.support.unhandled import UnhandledError

METHODS = (*value_ranges.PLAIN, value_ranges.SEARCHED, "best")
"""Every method; the last is the default."""
DEFAULT = METHODS[-1]

ENOUGH = 0.05
"""The median spread of the ranges above which a data set is said to be too small."""
MANY = 128
"""So many images are not few; where their ranges are uncertain, there are odd ones among them."""


@dataclass(frozen=True, slots=True)
class How:
    """How to run: images at a time and threads, which change no bit, and who is told."""

    threads: int | None = None
    batch: int = 1
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Outcome:
    """A calibration and how it came about.

    `used` is the candidate that won; `judged` says how each did on `held_out` images, which none
    had learnt from. `notices` are what the user must know.
    """

    calibration: Calibration
    traces: Mapping[str, Trace]
    used: str
    held_out: int = 0
    judged: Mapping[str, Qualities] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def known(method: str | None, at: Span) -> str:
    """Return a method that is asked for, or the default.

    Raises:
        UserError: There is no such method (E0617).
    """
    if method is None or method in METHODS:
        return method or DEFAULT
    close = nearest(method, METHODS)
    listed = f"known methods: {', '.join(METHODS)}"
    help = f"did you mean `{close}`? {listed}" if close else listed
    raise fail("E0617", f"there is no method `{method[:80]}`", at, help=help)


def calibrate(
    ready: Model, data: DataSet, method: str = DEFAULT, how: How | None = None
) -> Outcome:
    """Return what a method makes of a ready model and images.

    Neither names nor order of the images nor anything of `how` changes it.

    Raises:
        UserError: The network does not take these images, or gives no finite numbers for them.
    """
    source = ready.graph.inputs[0]
    check(data, source)
    run = _RUNS.get(method)
    if run is None:
        raise UnhandledError("calibration method", method)
    try:
        found = run(ready, data, method, how or How())
    except UserError as error:
        if error.diagnostics[0].code in DAMAGED:  # one of a part: look for them in all
            raise data.damaged(source) from None
        raise
    return _noticed(found, data)


def _plain(ready: Model, data: DataSet, method: str, how: How) -> Outcome:
    seen = observe(ready, data, how.threads, how.batch, how.progress)
    found = value_ranges.find(method, ready, seen, how.threads)
    return Outcome(Calibration(found.ranges, found.rounded), found.traces, method)


def _kl_cosine(ready: Model, data: DataSet, method: str, how: How) -> Outcome:
    learn, held_out = data.split()
    seen = observe(ready, learn, how.threads, how.batch, how.progress)
    how.progress(method, 0, 1)
    verdict = guarded(ready, seen, held_out, how.threads)
    found = verdict.found[verdict.winner]
    ranges, traces = found.ranges, found.traces
    if verdict.winner == SAFE and len(held_out) < len(data):
        # min-max may learn from all images: it is not what is judged
        rest = observe(ready, held_out, how.threads, how.batch, how.progress)
        limits = _wider(seen.limits, rest.limits)
        ranges = scale_groups.ranges(ready, limits)
        traces = _learnt_more(ready, traces, limits)
    paper = verdict.found[PAPER].traces
    traces = {
        name: replace(
            own,
            threshold=ranges[name].scale * ranges[name].limits[1],
            divergence=paper[name].divergence,
            cosine=paper[name].cosine,
        )
        for name, own in traces.items()
    }
    notices = () if verdict.winner == PAPER else (_guarded(verdict, method),)
    calibration = Calibration(ranges, found.rounded)
    return Outcome(calibration, traces, verdict.winner, len(held_out), verdict.judged, notices)


def _best(ready: Model, data: DataSet, _: str, how: How) -> Outcome:
    learn, held_out = data.split()
    seen = observe(ready, learn, how.threads, how.batch, how.progress)
    found = best(ready, seen, learn, held_out, how.progress, how.threads)
    winner = found.winner
    judged = dict(found.judged)
    return Outcome(winner.calibration, winner.traces, winner.name, len(held_out), judged)


def _wider(a: Limits, b: Limits) -> Limits:
    return {name: (min(a[name][0], b[name][0]), max(a[name][1], b[name][1])) for name in a}


def _learnt_more(ready: Model, traces: Mapping[str, Trace], limits: Limits) -> Mapping[str, Trace]:
    """Return traces with the extremes of each group's limits."""
    found: dict[str, Trace] = {}
    for group in scale_groups.groups(ready.graph):
        low, high = (pick(limits[n][i] for n in group) for i, pick in ((0, min), (1, max)))
        found |= {name: replace(traces[name], low=low, high=high) for name in group}
    return found


def _guarded(verdict: Verdict, method: str) -> str:
    lost, won = (loss(verdict.judged[name]) for name in (PAPER, verdict.winner))
    return (
        f"`{method}` as published loses more on images held out than `{verdict.winner}`"
        f" ({lost:.1e}, not {won:.1e}): the latter is used"
    )


def _noticed(found: Outcome, data: DataSet) -> Outcome:
    """Return the outcome with what is to be said of the data set."""
    different = len(set(data.digests))
    notices = []
    if found.held_out and different < HELD_OUT:
        notices.append(f"with {_images(different)}, what is learnt from is also what judges")
    spreads = [trace.spread for trace in found.traces.values() if trace.spread is not None]
    middle = float(np.median(spreads)) if spreads else 0.0
    if not spreads:
        notices.append("one image says nothing of how much the scales depend on the images")
    elif middle > ENOUGH:
        said = f"{_images(different)} are few" if different < MANY else "single images decide much"
        notices.append(
            f"{said}: by the jackknife, half of the ranges are uncertain by {middle:.0%} or more"
        )
    return replace(found, notices=(*found.notices, *notices))


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


_RUNS: Mapping[str, Callable[[Model, DataSet, str, How], Outcome]] = {
    **dict.fromkeys(value_ranges.PLAIN, _plain),
    value_ranges.SEARCHED: _kl_cosine,
    "best": _best,
}
