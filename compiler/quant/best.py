"""The default method: several ways to calibrate, judged by the model's own outputs.

All of them learn from one part of the images and are judged on another: by the mean cosine of the
integer program's outputs and the float model's; of equal ones, by the least largest difference.
`minmax` is among them, so that none that is worse there can win.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from tcc.compiler import reference
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

SETTINGS = (Setting(1.1, 0.0), Setting(1.1, 0.5), Setting(1.25, 0.5))
"""How far channels are equalised, in turn."""
SLOW = ("kl-cosine",)
"""Methods that search."""
IMAGES = 64
"""Most images that candidates are judged on."""


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
    jury = Jury(ready, held_out.first(IMAGES), threads)
    judged: list[tuple[Candidate, Quality]] = []
    total = len(methods.PLAIN) + len(SLOW) + len(SETTINGS) + 1
    for candidate in _candidates(ready, seen):
        watch("best", len(judged), total)
        judged.append((candidate, jury.quality(candidate.calibration)))
    leader = _winner(judged)
    if leader.calibration.rounded:
        corrected = bias.sequential(ready, leader.calibration, learn.first(bias.IMAGES), watch)
        last = replace(leader, name=f"{leader.name}, sequential bias", calibration=corrected)
        judged.append((last, jury.quality(corrected)))
    watch("best", total, total)
    return Best(_winner(judged), tuple((one.name, quality) for one, quality in judged))


def _winner(judged: Sequence[tuple[Candidate, Quality]]) -> Candidate:
    """Return the candidate of the highest mean cosine; of equal ones the first."""
    return max(judged, key=lambda pair: (pair[1].cosine, -pair[1].difference))[0]


def _candidates(ready: Model, seen: Statistics) -> Iterator[Candidate]:
    for method in (*methods.PLAIN, *SLOW):
        found = methods.find(method, ready, seen)
        rounded = {**round_nearest(ready, found.ranges), **found.rounded}
        yield Candidate(method, Calibration(found.ranges, rounded), found.traces)
    for setting in SETTINGS:
        yield by_moments(ready, seen, setting)


def by_moments(ready: Model, seen: Statistics, setting: Setting) -> Candidate:
    """Return equalised channels, weights by second moments, biases corrected layer by layer."""
    given = equalize.factors(ready, seen, setting)
    model = equalize.equalized(ready, given)
    limits = equalize.limits(seen, given)
    found = ranges(model, limits)
    rounded = {**round_nearest(model, found), **round_moments(model, found, seen, given)}
    name = f"moments, headroom {setting.headroom:g}, power {setting.power:g}"
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
