"""From what was seen to scales: one range a group of values, and where it comes from.

- `minmax`: the largest magnitude seen.
- `percentile`: the magnitude that one number in ten thousand exceeds.
- `mse`: the threshold at which the mean square of what quantising changes is least.
- `kl-cosine`: the DDSNet paper's: `kl.py`, then `cosine.py`.

No threshold lies above the largest magnitude seen, and a group of zeros has scale 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Range, Rounded
from tcc.compiler.quant.methods import cosine_search, kl_divergence
from tcc.compiler.quant.observe.sampling import within
from tcc.compiler.quant.observe.statistics import Float32, Statistics
from tcc.compiler.quant.rounding.nearest import allowed, bias_steps, most
from tcc.compiler.quant.scale_groups import SMALLEST, fused, groups, ranges
from tcc.compiler.support.unhandled import UnhandledError

PLAIN = ("minmax", "percentile", "mse")
"""Methods that look at each value by itself."""
SEARCHED = "kl-cosine"
"""The method that searches, by the layers that read a value."""

OUTLIERS = 1e-4
"""The share of all numbers that `percentile` clips."""
FINE = 8192
"""Bins of the histogram in which `mse` looks."""
SHARES = np.linspace(0.25, 1.0, 49)
"""Thresholds that `mse` tries, as shares of the largest magnitude."""
VALUES = 1 << 14
"""Numbers of a value that the fine search looks at where no convolution reads it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """How a group's scale came about.

    `low` and `high` are the extremes seen, `threshold` the magnitude that the largest level stands
    for; `divergence` and `cosine` what the searches found; `spread` the standard deviation of the
    range by the jackknife over the images, as a share of it (None where there is one image).
    """

    low: float
    high: float
    threshold: float
    divergence: float | None = None
    cosine: float | None = None
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Ranges and traces by value, and the weights of convolutions that are not the nearest."""

    ranges: Mapping[str, Range]
    traces: Mapping[str, Trace]
    rounded: Mapping[str, Rounded]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Values that share a scale, and what was seen of them; `samples` hold each number once.

    `range` is that of `minmax`; where it is `fixed`, it is the only one.
    """

    names: tuple[str, ...]
    range: Range
    fixed: bool
    low: float
    high: float
    spread: float | None
    samples: tuple[Float32, ...]

    @property
    def top(self) -> float:
        """The largest magnitude seen."""
        return max(abs(self.low), abs(self.high))

    @property
    def levels(self) -> int:
        """The largest level."""
        return self.range.limits[1]

    def histogram(self, bins: int) -> kl_divergence.Counts:
        """Return how many magnitudes of the samples lie in each bin up to the top."""
        counts = np.zeros(bins, np.int64)
        for sample in self.samples:
            counts += kl_divergence.histogram(sample, self.top, bins)
        return counts


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The scale of a group, what the searches found, and weight scales (filters,) by reader."""

    scale: float
    divergence: float | None = None
    cosine: float | None = None
    weights: Mapping[str, Float32] = field(default_factory=dict)


def find(method: str, model: Model, seen: Statistics, threads: int | None = None) -> Found:
    """Return what a method finds, the same whatever the number of threads."""
    every = tuple(gathered(model, seen))
    if method in PLAIN:
        return _found(model, every, [Chosen(_scale(method, group)) for group in every])
    if method != SEARCHED:
        raise UnhandledError("calibration method", method)
    readers = _readers(model.graph.nodes)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        chosen = list(pool.map(lambda group: _kl_cosine(group, readers, model, seen), every))
    return _found(model, every, chosen)


def gathered(model: Model, seen: Statistics) -> Iterator[Group]:
    """Yield the groups of a model's values with what was seen of them."""
    known = ranges(model, seen.limits)
    inside = within(model.graph)
    raw = {i.name for i in model.graph.inputs if i.preprocess and i.preprocess.raw}
    for names in groups(model.graph):
        values = [seen.seen[name] for name in names]
        tops = np.max([np.maximum(-value.low, value.high) for value in values], axis=0)
        fixed = bool(raw.intersection(names)) or known[names[0]].scale < SMALLEST
        yield Group(
            names,
            known[names[0]],
            fixed or not tops.any(),
            min(float(value.low.min()) for value in values),
            max(float(value.high.max()) for value in values),
            spread(tops),
            tuple(seen.seen[name].sample for name in names if name not in inside),
        )


def spread(tops: Float32) -> float | None:
    """Return the jackknife's standard deviation of the maximum of tops, as a share of it.

    Leaving one image out changes the maximum only where it is that image's alone.
    """
    if len(tops) < 2:
        return None
    second, first = (float(top) for top in np.sort(tops)[-2:])
    count = len(tops)
    return (count - 1) / count * (first - second) / first if first > 0 else 0.0


def _scale(method: str, group: Group) -> float:
    """Return the scale that a plain method finds; where it is fixed, there is nothing to find."""
    match method:
        case "minmax":
            share = 1.0
        case "percentile":
            share = 1.0 if group.fixed else _percentile(group)
        case "mse":
            share = 1.0 if group.fixed else _least_error(group)
        case _:
            raise UnhandledError("calibration method", method)
    return float(np.float32(group.range.scale * share))


def _percentile(group: Group) -> float:
    """Return the magnitude that a share of `OUTLIERS` exceeds, as a share of the largest one."""
    numbers = np.concatenate([np.abs(one.reshape(-1)) for one in group.samples])
    place = numbers.size - 1 - int(numbers.size * OUTLIERS)
    found = float(np.partition(numbers, place)[place]) / group.top
    return min(found, 1.0) if found * group.range.scale >= SMALLEST else 1.0


def _least_error(group: Group) -> float:
    """Return the threshold of the least mean square error, as a share; of equal ones the larger."""
    counts = group.histogram(FINE)
    middles = (np.arange(FINE) + 0.5) / FINE
    steps = SHARES[:, None] / group.levels
    errors = middles - np.minimum(np.rint(middles / steps), group.levels) * steps
    sums = (errors**2) @ counts
    return float(SHARES[len(SHARES) - 1 - int(np.argmin(sums[::-1]))])


def _kl_cosine(
    group: Group, readers: Mapping[str, tuple[Node, ...]], model: Model, seen: Statistics
) -> Chosen:
    """Return what both searches find for a group and for the weights of who reads it."""
    nodes = [node for name in group.names for node in readers.get(name, ())]
    coarse = kl_divergence.Coarse(1.0, 0.0)
    scales = np.array([group.range.scale], np.float32)
    if not group.fixed:
        coarse = kl_divergence.search(group.histogram(kl_divergence.BINS), group.levels)
        scales = cosine_search.candidates(group.range.scale * coarse.share, group.range.scale)
    value = np.concatenate([one.reshape(-1)[:: 1 + one.size // VALUES] for one in group.samples])
    layers = tuple(cosine_search.layer(seen.windows[n.name], *_params(n, model)) for n in nodes)
    scale, found, layers = cosine_search.search(layers, value, scales, group.range.limits)
    weights = {n.name: _scaled(n, model, one) for n, one in zip(nodes, layers, strict=True)}
    return Chosen(scale, coarse.divergence, found, weights)


def _scaled(node: Node, model: Model, one: cosine_search.Layer) -> Float32:
    weight, _ = _params(node, model)
    return cosine_search.start(weight.reshape(len(weight), -1))[:, 0] * np.float32(one.factor)


def _params(node: Node, model: Model) -> tuple[Float32, Float32]:
    weight, *bias = (model.weights[name] for name in node.params)
    return weight, bias[0] if bias else np.zeros(len(weight), np.float32)


def _readers(nodes: tuple[Node, ...]) -> Mapping[str, tuple[Node, ...]]:
    found: dict[str, tuple[Node, ...]] = {}
    for node in nodes:
        if isinstance(node.op, Conv):
            found[node.inputs[0]] = (*found.get(node.inputs[0], ()), node)
    return found


def _found(model: Model, every: Sequence[Group], chosen: Sequence[Chosen]) -> Found:
    pairs = tuple(zip(every, chosen, strict=True))
    found = {n: Range(one.scale, group.range.signed) for group, one in pairs for n in group.names}
    traces = {n: _trace(group, one) for group, one in pairs for n in group.names}
    weights = {name: scale for one in chosen for name, scale in one.weights.items()}
    return Found(found, traces, dict(round_at(model, found, weights)))


def _trace(group: Group, one: Chosen) -> Trace:
    threshold = one.scale * group.levels
    return Trace(group.low, group.high, threshold, one.divergence, one.cosine, group.spread)


def round_at(
    model: Model, found: Mapping[str, Range], weights: Mapping[str, Float32]
) -> Iterator[tuple[str, Rounded]]:
    """Yield the weights of convolutions, rounded to nearest at given scales."""
    inside = {source: clamp for clamp, source in fused(model.graph).items()}
    for node in model.graph.nodes:
        if node.name in weights:
            weight, bias = _params(node, model)
            x, y = found[node.inputs[0]], found[inside.get(node.name, node.name)]
            scale = allowed(weights[node.name].astype(np.float64), bias, x, y)
            limit = most(weight[0].size, x)
            steps = np.rint(weight / scale.reshape(-1, 1, 1, 1))
            whole = np.clip(steps, -limit, limit).astype(np.int8)
            yield node.name, Rounded(whole, scale, bias_steps(bias, scale, x))
