"""Ways to calibrate that compete: the usual methods, and one of no method's own.

The latter equalises channels, with room for what unseen images need, rounds weights by second
moments, and corrects biases one layer after another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods.bias_correction import SequentialCorrection
from tcc.compiler.quant.methods.cross_fitting import Fit
from tcc.compiler.quant.methods.found_ranges import ScaleTrace
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.observe.statistics import Statistics
from tcc.compiler.quant.rounding import channel_equalization
from tcc.compiler.quant.rounding.channel_equalization import EqualizationSetting
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.rounding.second_moments import round_by_moments
from tcc.compiler.quant.scale_groups import minmax_ranges
from tcc.compiler.quant.unseen_extremes import seen_extremes, unseen_extremes

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
