"""The default method: several ways to calibrate, judged by the model's own outputs.

All of them learn from one part of the images and are judged on another: by the mean cosine of the
integer program's outputs and the float model's; of equal ones, by the least largest difference.
`minmax` is among them, so that none that is worse there can win. Equalised channels fit the images
more closely the less room they leave; of those that hardly differ, the roomiest is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from tcc.compiler import reference
from tcc.compiler.cost import cost
from tcc.compiler.floor import Quality
from tcc.compiler.graph import Model
from tcc.compiler.quant import bias, equalize, judge, methods
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.data import DataSet
from tcc.compiler.quant.equalize import Setting
from tcc.compiler.quant.groups import Limits, ranges
from tcc.compiler.quant.judge import Rows
from tcc.compiler.quant.moments import round_moments
from tcc.compiler.quant.nearest import round_nearest
from tcc.compiler.quant.quantize import quantize
from tcc.compiler.quant.statistics import Statistics

Watch = Callable[[str, int, int], None]

SETTINGS = (Setting(1.5, 1 / 2), Setting(1.25, 1 / 4), Setting(1.25, 1 / 8), Setting(1.1, 1 / 32))
"""How far channels are equalised, in turn: each leaves less room than the one before."""
LARGE = SETTINGS[1:2]
"""The same for large networks."""
ROOM = 2e-5
"""Mean cosine that is given for room: other data may have more of what was hardly seen."""
SEARCHES = ("kl-cosine",)
"""Methods that take long: small networks try them."""
SMALL = 1 << 21
"""Most weights of a small network."""
FEWEST, MOST = 8, 64
"""Images that candidates are judged on: as many as `WORK` allows."""
WORK = 1 << 36
"""Multiply-accumulates that a candidate's images may take, and a sequential correction's."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to calibrate: its name, and what it found."""

    name: str
    calibration: Calibration
    traces: Mapping[str, methods.Trace] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Best:
    """The winner, and how all candidates did, in order."""

    winner: Candidate
    judged: tuple[tuple[str, Quality], ...]

    @property
    def quality(self) -> Quality:
        """The winner's."""
        return dict(self.judged)[self.winner.name]


def best(
    ready: Model,
    seen: Statistics,
    learn: DataSet,
    held_out: DataSet,
    watch: Watch,
    threads: int | None = None,
) -> Best:
    """Return the best of all candidates by the outputs of `held_out` images.

    `seen` is what was seen of `learn`. Neither the order of the images nor the number of threads
    changes the result.
    """
    macs = cost(ready.graph).macs
    jury = convened(ready, held_out, threads)
    judged: list[tuple[Candidate, Quality]] = []
    plan = _plan(ready, seen)
    for candidate in plan:
        watch("best", len(judged), len(plan) + 1)
        found = candidate()
        judged.append((found, jury.quality(found.calibration)))
    leader = _winner(judged)
    if macs * bias.IMAGES <= WORK:
        corrected = bias.sequential(ready, leader.calibration, learn.first(bias.IMAGES), watch)
        last = replace(leader, name=f"{leader.name}, sequential bias", calibration=corrected)
        judged.append((last, jury.quality(corrected)))
        before = next(found for one, found in judged if one is leader)
        leader = last if judged[-1][1].cosine > before.cosine else leader
    watch("best", len(plan) + 1, len(plan) + 1)
    return Best(leader, tuple((one.name, quality) for one, quality in judged))


def _plan(ready: Model, seen: Statistics) -> Sequence[Callable[[], Candidate]]:
    """Return what to try, in order."""
    small = sum(tensor.size for tensor in ready.weights.values()) <= SMALL
    plain = (*methods.PLAIN, *(SEARCHES if small else ()))
    own = SETTINGS if small else LARGE
    return (
        *(partial(by_method, ready, seen, method) for method in plain),
        *(partial(by_moments, ready, seen, setting) for setting in own),
    )


def _winner(judged: Sequence[tuple[Candidate, Quality]]) -> Candidate:
    """Return the candidate of the highest mean cosine, or one with more room that is hardly worse.

    Of equal ones, the first.
    """
    best, top = max(judged, key=lambda pair: (pair[1].cosine, -pair[1].difference))
    if not best.calibration.factors:
        return best
    plain = max((q.cosine for one, q in judged if not one.calibration.factors), default=0.0)
    least = max(top.cosine - ROOM, plain)
    return next(
        one
        for one, found in judged
        if one.calibration.factors and found.cosine >= least and found.agreement >= top.agreement
    )


def by_method(ready: Model, seen: Statistics, method: str) -> Candidate:
    """Return what one of the usual methods finds."""
    found = methods.find(method, ready, seen)
    rounded = {**round_nearest(ready, found.ranges), **found.rounded}
    return Candidate(method, Calibration(found.ranges, rounded), found.traces)


def by_moments(ready: Model, seen: Statistics, setting: Setting) -> Candidate:
    """Return equalised channels, weights by second moments, biases corrected layer by layer."""
    given = equalize.factors(ready, seen, setting)
    model = equalize.equalized(ready, given)
    limits = equalize.limits(seen, given)
    found = ranges(model, limits)
    rounded = {**round_nearest(model, found), **round_moments(model, found, seen, given)}
    name = f"moments, headroom {setting.headroom:g}, floor {setting.floor:g}"
    plain = methods.find("minmax", ready, seen).traces
    return Candidate(name, Calibration(found, rounded, given), _traces(plain, found, limits))


def _traces(
    plain: Mapping[str, methods.Trace], found: Mapping[str, Range], limits: Limits
) -> Mapping[str, methods.Trace]:
    """Return the traces of equalised values; how sure a range is, equalising does not change."""
    return {
        name: replace(
            trace, low=low, high=high, threshold=found[name].scale * found[name].limits[1]
        )
        for name, trace in plain.items()
        for low, high in [limits[name]]
    }


def convened(ready: Model, held_out: DataSet, threads: int | None = None) -> "Jury":
    """Return a jury over as many images as the network's size allows."""
    count = WORK // max(cost(ready.graph).macs, 1)
    return Jury(ready, held_out.first(min(MOST, max(FEWEST, count))), threads)


class Jury:
    """Images that integer programs are judged on, with what the float model says of them."""

    def __init__(self, ready: Model, data: DataSet, threads: int | None = None) -> None:
        (source,) = ready.graph.inputs
        self.ready, self.threads = ready, threads
        self.tensors = [data.tensor(index, source) for index in range(len(data))]
        self.expected = self._rows(ready)

    def quality(self, calibration: Calibration) -> Quality:
        """Return how near the integer program of a calibration comes to the float model."""
        return judge.quality(self.expected, self._rows(quantize(self.ready, calibration)))

    def _rows(self, model: Model) -> Rows:
        run = reference.prepared(model)
        name = model.graph.outputs[0].name
        with ThreadPoolExecutor(self.threads) as pool:
            found = [out[name].reshape(-1) for out in pool.map(run, self.tensors)]
        return np.array(found, np.float64)
