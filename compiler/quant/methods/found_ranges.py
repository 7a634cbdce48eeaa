"""What a search for ranges returns: a scale for each group of values, and how it came about."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.quant.calibration import Range, RoundedWeights
from tcc.compiler.quant.methods.value_groups import ValueGroup
from tcc.compiler.quant.observe.statistics import Float32
from tcc.compiler.quant.rounding.nearest_rounding import (
    allowed_scales,
    bias_steps,
    largest_weight,
)
from tcc.compiler.quant.scale_groups import fused_clamps
from tcc.compiler.support.json_records import OmitDefault, Record


class ScaleTrace(Record, frozen=True):
    """How a group's scale came about.

    `low` and `high` are the extremes seen, `threshold` the magnitude that the largest level stands
    for; `divergence` and `cosine` what the searches found; `spread` the standard deviation of the
    largest magnitude seen by the jackknife over the images, as a share of it (None where there is
    one image). `reach` is the magnitude that one unseen image in 10,000 is expected to exceed, with
    channels as large as they are, `error` the standard deviation of this estimate, as a share of
    it, and `shown` how much of the reach any image showed.
    """

    low: float
    high: float
    threshold: float
    divergence: float | None = None
    cosine: float | None = None
    spread: float | None = None
    reach: OmitDefault[float | None] = None
    error: OmitDefault[float | None] = None
    shown: OmitDefault[float | None] = None


@dataclass(frozen=True, slots=True)
class FoundRanges:
    """Ranges and traces by value, and the weights of convolutions that are not the nearest."""

    ranges: Mapping[str, Range]
    traces: Mapping[str, ScaleTrace]
    rounded: Mapping[str, RoundedWeights]


@dataclass(frozen=True, slots=True, eq=False)
class GroupScale:
    """The scale of a group, what the searches found, and weight scales (filters,) by reader."""

    scale: float
    divergence: float | None = None
    cosine: float | None = None
    weights: Mapping[str, Float32] = field(default_factory=dict)


class TracesOfGroups(Mapping[str, ScaleTrace]):
    """Traces by value, worked out when one is asked for: most candidates are only judged."""

    def __init__(self, pairs: Sequence[tuple[ValueGroup, GroupScale]]) -> None:
        """Take groups, each with its scale."""
        self._places = {name: pair for pair in pairs for name in pair[0].names}

    def __getitem__(self, name: str) -> ScaleTrace:
        """Return the trace of a value."""
        return _trace(*self._places[name])

    def __iter__(self) -> Iterator[str]:
        """Yield the names of values."""
        return iter(self._places)

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self._places)


def assembled(
    model: Model, groups: Sequence[ValueGroup], scales: Sequence[GroupScale]
) -> FoundRanges:
    """Return the ranges of all values, given the scale of each group of them.

    Args:
        model: A ready model.
        groups: The groups of its values.
        scales: What was found for each, in the same order.
    """
    pairs = tuple(zip(groups, scales, strict=True))
    ranges = {n: Range(one.scale, group.range.signed) for group, one in pairs for n in group.names}
    weights = {name: scale for one in scales for name, scale in one.weights.items()}
    return FoundRanges(ranges, TracesOfGroups(pairs), dict(rounded_at(model, ranges, weights)))


def rounded_at(
    model: Model, ranges: Mapping[str, Range], weights: Mapping[str, Float32]
) -> Iterator[tuple[str, RoundedWeights]]:
    """Yield the weights of convolutions, rounded to nearest at given scales.

    Args:
        model: The ready model.
        ranges: Those of its values.
        weights: The scales (filters,) of the convolutions that are wanted, by name.
    """
    # A convolution whose clamp is fused gives the clamp's value: its own range is nowhere.
    inside = {source: clamp for clamp, source in fused_clamps(model.graph).items()}
    for node in model.graph.nodes:
        if node.name in weights:
            weight, bias = conv_params(node, model)
            x, y = ranges[node.inputs[0]], ranges[inside.get(node.name, node.name)]
            # A searched scale may be too small for an int32 bias or sum; then it is the smallest
            # that is safe.
            scale = allowed_scales(weights[node.name].astype(np.float64), bias, x, y)
            # 127, or less where that many products could overflow an int32.
            limit = largest_weight(weight[0].size, x)
            steps = np.rint(weight / scale.reshape(-1, 1, 1, 1))
            whole = np.clip(steps, -limit, limit).astype(np.int8)
            yield node.name, RoundedWeights(whole, scale, bias_steps(bias, scale, x))


def conv_params(node: Node, model: Model) -> tuple[Float32, Float32]:
    """Return a convolution's weight (filters, ...) and its bias (filters,), zeros without one."""
    weight, *bias = (model.weights[name] for name in node.params)
    return weight, bias[0] if bias else np.zeros(len(weight), np.float32)


def _trace(group: ValueGroup, one: GroupScale) -> ScaleTrace:
    reach = group.estimate.reach
    return ScaleTrace(
        group.low,
        group.high,
        one.scale * group.levels,
        one.divergence,
        one.cosine,
        group.spread,
        reach,
        group.estimate.error,
        group.top / reach if reach else 1.0,
    )
