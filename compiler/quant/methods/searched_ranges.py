"""Result of a search for ranges: a scale for each group of values, and its trace."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.quant.calibration import Range, RoundedWeights
from tcc.compiler.quant.methods.value_groups import ValueGroup
from tcc.compiler.quant.observe.statistics import Float32
from tcc.compiler.quant.rounding.nearest_rounding import (
    bound_scales,
    compute_max_weight,
    quantize_bias,
)
from tcc.compiler.quant.scale_groups import find_fused_clamps
from tcc.compiler.support.json_records import OmitDefault, Record


class ScaleTrace(Record, frozen=True):
    """Trace of how a group's scale was found.

    Attributes:
        low: Observed minimum.
        high: Observed maximum.
        threshold: The magnitude of the largest quantized value.
        divergence: Divergence of the coarse search.
        cosine: Cosine of the fine search.
        spread: Jackknife standard error of the largest observed magnitude, as a share of it; None
            for a single image.
        reach: The magnitude that one unseen image in 10,000 is expected to exceed.
        error: Jackknife standard error of `reach`, as a share of it.
        shown: Largest observed magnitude, as a share of `reach`.
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
class SearchedRanges:
    """Ranges and traces by value, and weights of convolutions with searched scales."""

    ranges: Mapping[str, Range]
    traces: Mapping[str, ScaleTrace]
    rounded: Mapping[str, RoundedWeights]


@dataclass(frozen=True, slots=True, eq=False)
class GroupScale:
    """The scale of a group, the search's results, and weight scales (filters,) by reader."""

    scale: float
    divergence: float | None = None
    cosine: float | None = None
    weights: Mapping[str, Float32] = field(default_factory=dict)


class GroupTraces(Mapping[str, ScaleTrace]):
    """Traces by value, computed on demand: most candidates are only evaluated."""

    def __init__(self, pairs: Sequence[tuple[ValueGroup, GroupScale]]) -> None:
        """Create traces of groups, each with its scale."""
        self._pair_by_name = {name: pair for pair in pairs for name in pair[0].names}

    def __getitem__(self, name: str) -> ScaleTrace:
        """Return the trace of a value."""
        return _build_trace(*self._pair_by_name[name])

    def __iter__(self) -> Iterator[str]:
        """Yield the names of values."""
        return iter(self._pair_by_name)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._pair_by_name)


def assemble_ranges(
    model: Model, groups: Sequence[ValueGroup], scales: Sequence[GroupScale]
) -> SearchedRanges:
    """Return the ranges of all values from the scale of each group.

    Args:
        model: A lowered model.
        groups: The groups of its values.
        scales: The scale of each group, in the same order.
    """
    pairs = tuple(zip(groups, scales, strict=True))
    ranges = {
        n: group.range.with_scale(group_scale.scale)
        for group, group_scale in pairs
        for n in group.names
    }
    weights = {name: scale for group_scale in scales for name, scale in group_scale.weights.items()}
    return SearchedRanges(ranges, GroupTraces(pairs), dict(round_at_scales(model, ranges, weights)))


def round_at_scales(
    model: Model, ranges: Mapping[str, Range], weights: Mapping[str, Float32]
) -> Iterator[tuple[str, RoundedWeights]]:
    """Yield the weights of convolutions, rounded to nearest at given scales.

    Args:
        model: The lowered model.
        ranges: The ranges of its values.
        weights: The weight scales (filters,) of convolutions, by name.
    """
    # A convolution with a fused clamp has the clamp's range.
    clamp_by_source = {source: clamp for clamp, source in find_fused_clamps(model.graph).items()}
    for node in model.graph.nodes:
        if node.name in weights:
            weight, bias = get_conv_params(node, model)
            input_range, output_range = (
                ranges[node.inputs[0]],
                ranges[clamp_by_source.get(node.name, node.name)],
            )
            # A searched scale can be too small for an int32 bias or sum; then use the smallest safe
            # scale.
            scale = bound_scales(
                weights[node.name].astype(np.float64), bias, input_range, output_range
            )
            # 127, or less if so many products could overflow an int32.
            limit = compute_max_weight(weight[0].size, input_range)
            steps = np.rint(weight / scale.reshape(-1, 1, 1, 1))
            quantized_weight = np.clip(steps, -limit, limit).astype(np.int8)
            yield (
                node.name,
                RoundedWeights(quantized_weight, scale, quantize_bias(bias, scale, input_range)),
            )


def get_conv_params(node: Node, model: Model) -> tuple[Float32, Float32]:
    """Return a convolution's weight (filters, ...) and bias (filters,); zeros if it has none."""
    weight, *bias = (model.weights[name] for name in node.params)
    return weight, bias[0] if bias else np.zeros(len(weight), np.float32)


def _build_trace(group: ValueGroup, group_scale: GroupScale) -> ScaleTrace:
    peak = group.estimate.peak
    value_range = group.range.with_scale(group_scale.scale)
    return ScaleTrace(
        group.low,
        group.high,
        value_range.scale * value_range.limits[1],
        group_scale.divergence,
        group_scale.cosine,
        group.spread,
        peak,
        group.estimate.relative_error,
        group.top / peak if peak else 1.0,
    )
