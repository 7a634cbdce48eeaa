"""The default method: several ways to calibrate, judged by the model's own outputs.

All of them learn from one part of the images and are judged on another: by the loss of the
integer program's outputs against the float model's; of equal ones, by the least largest difference.
`minmax` is among them, so that none that is worse there can win. Equalised channels fit the images
more closely the less room they leave; of those that hardly differ, the roomiest is taken.
Differences so small are measured on all images, since those held out are too few to tell them.
Last, the winner's biases are corrected in sequence, which is kept unless it is seen to do harm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods import bias_correction
from tcc.compiler.quant.methods.calibration_split import CalibrationSplit
from tcc.compiler.quant.methods.found_ranges import ScaleTrace
from tcc.compiler.quant.methods.held_out_judge import WORK, HeldOutJudge, held_out_judge
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.observe.statistics import Statistics
from tcc.compiler.quant.rounding import channel_equalization
from tcc.compiler.quant.rounding.channel_equalization import EqualizationSetting
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.scale_groups import minmax_ranges
from tcc.compiler.quant.unseen_extremes import seen_extremes, unseen_extremes
from tcc.compiler.reference.accuracy_floor import Qualities, agreement, difference, loss

SETTINGS = (EqualizationSetting(1 / 4), EqualizationSetting(1 / 16))
"""How far channels are equalised, in turn: each leaves less room than the one before."""
LARGE = SETTINGS[:1]
"""The same for large networks."""
ROOM = 1e-5
"""Loss that is accepted for room: other data may have more of what was hardly seen. What a few
images rank first changes with the draw of the images, while room about halves what is lost on
others."""
SMALL = 1 << 21
"""Most weights of a network for which the methods that take long are tried."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to calibrate: its name, and what it found."""

    name: str
    calibration: Calibration
    traces: Mapping[str, ScaleTrace] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class JudgedCandidate:
    """A candidate, how it did on images held out, and how on others as well."""

    candidate: Candidate
    quality: Qualities
    overall: Qualities

    @property
    def equalised(self) -> bool:
        """Whether channels have factors."""
        return bool(self.candidate.calibration.factors)

    @property
    def rank(self) -> tuple[float, float]:
        """What is larger for a better one."""
        return -loss(self.quality), -difference(self.quality)


@dataclass(frozen=True, slots=True)
class Selection:
    """The winner, and how all candidates did on images held out, in order."""

    winner: Candidate
    judged: tuple[tuple[str, Qualities], ...]

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
    """Return the best of all candidates by the outputs of images held out.

    Args:
        ready: The ready model.
        images: Those to learn from and those held out.
        searches: Methods, of which those that are `in_best` are tried beside its own candidates.
        options: How to run images; none of them changes the result.
    """
    progress, learn = options.progress, images.learn
    judge = held_out_judge(ready, images.held_out, learn, options.threads)
    judged: list[JudgedCandidate] = []
    plan = _plan(ready, images.statistics, searches)
    for candidate in plan:
        progress("best", len(judged), len(plan) + 1)
        judged.append(_judged(judge, candidate()))
    winner = _winner(judged)
    # The network runs on `IMAGES` images, node by node: as much work as judging may take.
    if cost(ready.graph).macs * bias_correction.IMAGES <= WORK:
        old = winner.candidate
        found = bias_correction.sequential(
            ready, old.calibration, learn.first(bias_correction.IMAGES), progress
        )
        made = replace(old, name=f"{old.name}, sequential bias", calibration=found)
        last = _judged(judge, made)
        judged.append(last)
        gains = winner.equalised or last.rank > winner.rank
        winner = last if gains and _hardly_worse(last, winner.overall, judged) else winner
    progress("best", len(plan) + 1, len(plan) + 1)
    return Selection(winner.candidate, tuple((one.candidate.name, one.quality) for one in judged))


def _judged(judge: HeldOutJudge, candidate: Candidate) -> JudgedCandidate:
    return JudgedCandidate(candidate, *judge.both_qualities(candidate.calibration))


def _plan(
    ready: Model, seen: Statistics, searches: Sequence[RangeMethod]
) -> Sequence[Callable[[], Candidate]]:
    """Return what to try, in order."""
    small = sum(tensor.size for tensor in ready.weights.values()) <= SMALL
    tried = [one for one in searches if one.in_best and (small or not one.slow)]
    own = SETTINGS if small else LARGE
    return (
        *(partial(by_method, ready, seen, method) for method in tried),
        *(partial(by_moments, ready, seen, setting) for setting in own),
    )


def _winner(judged: Sequence[JudgedCandidate]) -> JudgedCandidate:
    """Return the best on images held out; of equalised ones the first that is hardly worse."""
    best = max(judged, key=lambda one: one.rank)
    equal = [one for one in judged if one.equalised]
    if best not in equal:
        return best
    top = min((one.overall for one in equal), key=loss)
    return next((one for one in equal if _hardly_worse(one, top, judged)), best)


def _hardly_worse(one: JudgedCandidate, than: Qualities, judged: Sequence[JudgedCandidate]) -> bool:
    """Whether one is nearly as good on all images, and on those held out no worse than any plain.

    A plain one is without equalised channels.
    """
    plain = max((other.rank for other in judged if not other.equalised), default=(-inf, -inf))
    near = loss(one.overall) <= loss(than) + ROOM and agreement(one.overall) >= agreement(than)
    return near and one.rank >= plain


def by_method(ready: Model, seen: Statistics, method: RangeMethod) -> Candidate:
    """Return what one of the usual methods finds.

    Args:
        ready: The ready model.
        seen: What was seen of its values.
        method: The method.
    """
    found = method.search(ready, seen, None)
    rounded = {**round_nearest(ready, found.ranges), **found.rounded}
    return Candidate(method.name, Calibration(found.ranges, rounded), found.traces)


def by_moments(ready: Model, seen: Statistics, setting: EqualizationSetting) -> Candidate:
    """Return equalised channels, weights by second moments, biases corrected layer by layer.

    Args:
        ready: The ready model.
        seen: What was seen of its values.
        setting: How far channels are brought to one size.
    """
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
    return Candidate(
        f"moments, floor {setting.floor:g}", Calibration(found, rounded, given), traces
    )


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
