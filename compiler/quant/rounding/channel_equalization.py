"""Cross-layer equalization: gives the channels of a value similar magnitudes, for a common scale.

Channel c of a value is divided by a factor f in the layer that computes it, and multiplied by f in
the weights of the layers that read it. The fp32 function does not change, since the operations in
between are linear or a relu. In the int8 program, a value still has one scale; the real value of a
channel is scale * q * f. The factors act as scales per channel.

Nagel et al., Data-Free Quantization (arXiv 1906.04721), extended to joins: channels that are
concatenated, added or moved form a class with one factor.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool,
    Pad,
    Relu,
    Resize,
    Slice,
)
from tcc.compiler.quant.observe.statistics import Float32
from tcc.compiler.quant.scale_groups import Limits, find_scale_groups
from tcc.compiler.quant.unseen_extremes import ChannelExtremes

Ids = NDArray[np.int64]
Extremes = Mapping[str, ChannelExtremes]
"""Extremes of each channel, by value."""
Factors = Mapping[str, Float32]
"""Factors of the channels (channels,) by value; values without an entry have ones."""


@dataclass(frozen=True, slots=True)
class EqualizationSetting:
    """Strength of the equalization.

    Attributes:
        floor: Minimum factor. A channel with small magnitudes can have larger ones in other images.
        power: Exponent of the factor where a reader sums over channels, because small factors cost
            its weights resolution. 0 disables equalization of such channels.
    """

    floor: float = 1 / 4
    power: float = 0.5


@dataclass(frozen=True, slots=True)
class ChannelClasses:
    """The class of each channel of each value; `free` and `fixed` are (classes,) booleans.

    All readers of a free class have a weight scale for each of its channels. A fixed class must
    have factor 1.
    """

    ids_by_value: Mapping[str, Ids]
    free: NDArray[np.bool_]
    fixed: NDArray[np.bool_]


def compute_factors(model: Model, extremes: Extremes, setting: EqualizationSetting) -> Factors:
    """Return the equalization factors of all values, except those with only factors of 1.

    Args:
        model: A lowered model.
        extremes: Extremes of each channel of its values.
        setting: Strength of the equalization.

    Returns:
        The factors (channels,) by value, float32 in (0, 1].
    """
    classes = find_channel_classes(model.graph)
    peak_shares = np.zeros(len(classes.free))
    for group in find_scale_groups(model.graph):
        peaks = {name: extremes[name].peaks for name in group if name in extremes}
        top = max((float(p.max(initial=0.0)) for p in peaks.values()), default=0.0)
        # `maximum.at`, since ids repeat if several channels of a value share a factor.
        for name, peak in peaks.items():
            if top > 0:
                np.maximum.at(peak_shares, classes.ids_by_value[name], peak / top)
    factor = np.clip(peak_shares, setting.floor, 1.0)
    # For a depthwise reader, any factor is free: the filter's weight scale absorbs it. Other
    # readers sum over channels; the power shares the cost between values and weights.
    factor = np.where(classes.free, factor, factor**setting.power)
    rounded = np.where(classes.fixed, 1.0, factor).astype(np.float32)
    factors_by_value = {name: rounded[ids] for name, ids in classes.ids_by_value.items()}
    return {
        name: value_factors
        for name, value_factors in factors_by_value.items()
        if (value_factors != 1).any()
    }


def equalize_model(model: Model, channel_factors: Factors) -> Model:
    """Return the model with channels divided by factors. Its outputs are equal, within rounding.

    Products are computed in float64 and rounded once, to minimize the rounding error.
    """
    weights = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weights.update(_equalize_conv(model, node, node.op, channel_factors))
    return Model(model.graph, weights)


def compute_limits(extremes: Extremes, channel_factors: Factors) -> Limits:
    """Return minimum and maximum of each value of the equalized model."""
    return {
        name: (
            value_extremes.normalize(channel_factors[name])
            if name in channel_factors
            else value_extremes
        ).limits
        for name, value_extremes in extremes.items()
    }


def find_channel_classes(graph: Graph) -> ChannelClasses:
    """Return the classes of channels that must share a factor."""
    ids_by_value: dict[str, Ids] = {}
    equal_pairs: list[tuple[Ids, Ids]] = []
    fixed_ids: list[Ids] = []
    shared_params = _find_shared_params(graph)
    count = 0
    for name, kind in graph.types.items():
        # One id for each channel of each value; classes are sets of ids.
        ids_by_value[name] = np.arange(count, count + kind.shape[0])
        count += kind.shape[0]
    # Inputs and outputs must not change.
    fixed_ids += [ids_by_value[network_input.name] for network_input in graph.inputs]
    fixed_ids += [ids_by_value[output.value] for output in graph.outputs]
    summed_ids: list[Ids] = []
    for node in graph.nodes:
        ids = [ids_by_value[input_name] for input_name in node.inputs]
        source_ids = _map_channels(node, ids)
        if source_ids is not None:
            equal_pairs += [(ids_by_value[node.name], part) for part in source_ids]
        elif isinstance(node.op, Conv) and not shared_params.intersection(node.params):
            # The weight scale of a depthwise filter absorbs the factor of its channel. Other
            # filters sum over channels: factors make their weights uneven under one scale.
            if node.op.groups != len(ids[0]):
                summed_ids.append(ids[0])
        else:
            # Other operations do not commute with factors: inputs and output are fixed.
            fixed_ids += [ids_by_value[node.name], *ids]
    labels = _merge_classes(count, equal_pairs)
    fixed, is_summed = np.zeros(count, bool), np.zeros(count, bool)
    fixed[labels[_concat_ids(fixed_ids)]] = True
    is_summed[labels[_concat_ids(summed_ids)]] = True
    return ChannelClasses(
        {name: labels[ids] for name, ids in ids_by_value.items()}, ~is_summed, fixed
    )


def _map_channels(  # noqa: PLR0911 - a case an operation
    node: Node, ids: Sequence[Ids]
) -> Sequence[Ids] | None:
    """Return the ids of an op's output channels, for each input; None if factors cannot pass."""
    size = node.type.shape[0]
    match node.op:
        case Concat():
            return [np.concatenate(ids)]
        case Slice(start=start, stop=stop, step=step):
            return [ids[0][start:stop:step]]
        case ChannelShuffle(groups=count):
            return [ids[0].reshape(count, -1).T.reshape(-1)]
        case Flatten():
            return [np.repeat(ids[0], size // len(ids[0]))]
        case Add():
            return ids if all(len(input_ids) == size for input_ids in ids) else None
        case Pad(value=value):  # only zeros do not change when divided
            return ids if value == 0 else None
        # f(k * x) = k * f(x) for k > 0, unlike relu6 or sigmoid.
        case (
            Relu() | LeakyRelu() | MaxPool() | GlobalMaxPool() | AvgPool() | GlobalAvgPool()
            | Resize()
        ):  # fmt: skip
            return ids
    return None


def _equalize_conv(
    model: Model, node: Node, op: Conv, channel_factors: Factors
) -> dict[str, Float32]:
    """Return the weights of a convolution between equalized values."""
    weight, *bias = (model.weights[name].astype(np.float64) for name in node.params)
    if node.inputs[0] in channel_factors:
        input_factors = (
            channel_factors[node.inputs[0]].astype(np.float64).reshape(op.groups, 1, -1, 1, 1)
        )
        by_group = weight.reshape(op.groups, -1, *weight.shape[1:])
        weight = (by_group * input_factors).reshape(weight.shape)
    if node.name in channel_factors:
        output_factors = channel_factors[node.name].astype(np.float64)
        weight = weight / output_factors[:, None, None, None]
        bias = [tensor / output_factors for tensor in bias]
    return {
        name: tensor.astype(np.float32)
        for name, tensor in zip(node.params, (weight, *bias), strict=True)
    }


def _find_shared_params(graph: Graph) -> frozenset[str]:
    """Return the weight tensors that several nodes share."""
    names = [name for node in graph.nodes for name in node.params]
    return frozenset(name for name in set(names) if names.count(name) > 1)


def _merge_classes(count: int, equal_pairs: Iterable[tuple[Ids, Ids]]) -> Ids:
    """Return the class of each of `count` elements: the smallest element that it equals.

    In each iteration, both labels of a pair become the smaller one, and each label becomes its
    label's label. The longest chain halves each time, so that about log(count) iterations suffice.
    """
    labels = np.arange(count)
    pairs = list(equal_pairs)
    if not pairs:
        return labels
    left_ids, right_ids = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    while True:
        min_labels = np.minimum(labels[left_ids], labels[right_ids])
        previous_labels = labels.copy()
        np.minimum.at(labels, left_ids, min_labels)
        np.minimum.at(labels, right_ids, min_labels)
        labels = labels[labels]
        if np.array_equal(previous_labels, labels):
            return labels


def _concat_ids(parts: Sequence[Ids]) -> Ids:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
