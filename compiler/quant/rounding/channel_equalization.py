"""Channels brought to one size, so that a scale for all of them suits each of them.

Channel c of a value is divided by a factor f in the layer that makes it, and multiplied by f in the
weights of the layers that read it: the same function in floats, since what stands between is linear
or a relu. In the integer program a value still has one scale; the real value of a channel is then
scale * q * f. So scales per channel are nothing else than such factors.

Nagel et al., Data-Free Quantization (arXiv 1906.04721), extended over joins: channels that are
joined, added or moved form a class with one factor.
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
from tcc.compiler.quant.scale_groups import Limits, scale_groups
from tcc.compiler.quant.unseen_extremes import ChannelExtremes

Ids = NDArray[np.int64]
Extremes = Mapping[str, ChannelExtremes]
"""How far each channel reaches by value."""
Factors = Mapping[str, Float32]
"""The factor of each channel by value; a value that is not named has ones."""


@dataclass(frozen=True, slots=True)
class EqualizationSetting:
    """How far channels are brought to one size.

    A channel's levels end at its largest magnitude, but at no less than `floor` times its value's:
    other images may have more of what was hardly seen in these. Where a reader sums over channels,
    so that small factors cost its weights their resolution, the factor is raised to `power`: 0
    leaves such channels alone.
    """

    floor: float = 1 / 4
    power: float = 0.5


@dataclass(frozen=True, slots=True)
class ChannelClasses:
    """The class of each channel of each value; `free` and `fixed` are (classes,) booleans.

    A free class is read by layers alone that have weight scales for each of its channels; a fixed
    one must keep the factor 1.
    """

    of: Mapping[str, Ids]
    free: NDArray[np.bool_]
    fixed: NDArray[np.bool_]


def factors(model: Model, extremes: Extremes, setting: EqualizationSetting) -> Factors:
    """Return factors of all values with a channel whose factor is not 1.

    Args:
        model: A ready model.
        extremes: How far each channel of its values reaches.
        setting: How far channels are brought to one size.

    Returns:
        The factors (channels,) by value, float32 in (0, 1].
    """
    found = channel_classes(model.graph)
    size = np.zeros(len(found.free))
    for group in scale_groups(model.graph):
        peaks = {name: extremes[name].peaks for name in group if name in extremes}
        top = max((float(p.max(initial=0.0)) for p in peaks.values()), default=0.0)
        # `at`, as ids repeat where several channels of one value share a factor.
        for name, peak in peaks.items():
            if top > 0:
                np.maximum.at(size, found.of[name], peak / top)
    factor = np.clip(size, setting.floor, 1.0)
    # A depthwise reader loses nothing by any factor: its filter's own scale takes it up. Where
    # others sum over channels, half of the way (in logarithms) shares the cost between values and
    # weights.
    factor = np.where(found.free, factor, factor**setting.power)
    rounded = np.where(found.fixed, 1.0, factor).astype(np.float32)
    values = {name: rounded[ids] for name, ids in found.of.items()}
    return {name: value for name, value in values.items() if (value != 1).any()}


def equalized(model: Model, given: Factors) -> Model:
    """Return the model with channels divided by factors: the same outputs, within rounding.

    Products are in float64 and rounded once, so that a factor and its inverse leave the least
    behind.
    """
    weights = dict(model.weights)
    for node in model.graph.nodes:
        if isinstance(node.op, Conv):
            weights.update(_conv(model, node, node.op, given))
    return Model(model.graph, weights)


def limits(extremes: Extremes, given: Factors) -> Limits:
    """Return the smallest and the largest number of each value of the equalised model."""
    return {
        name: (own.divided(given[name]) if name in given else own).limits
        for name, own in extremes.items()
    }


def channel_classes(graph: Graph) -> ChannelClasses:
    """Return which channels of a graph must share a factor."""
    of: dict[str, Ids] = {}
    same: list[tuple[Ids, Ids]] = []
    bound: list[Ids] = []
    shared = _shared(graph)
    count = 0
    for name, kind in graph.types.items():
        # Numbers of all channels of all values: classes are then sets of numbers, united at once.
        of[name] = np.arange(count, count + kind.shape[0])
        count += kind.shape[0]
    # What goes in and comes out means what it did: no factors there.
    bound += [of[source.name] for source in graph.inputs]
    bound += [of[output.value] for output in graph.outputs]
    summed: list[Ids] = []
    for node in graph.nodes:
        ids = [of[value] for value in node.inputs]
        through = _through(node, ids)
        if through is not None:
            same += [(of[node.name], part) for part in through]
        elif isinstance(node.op, Conv) and not shared.intersection(node.params):
            # A depthwise filter reads one channel, whose factor its own weight scale takes up.
            # Others sum over channels: factors make their weights uneven under one scale.
            if node.op.groups != len(ids[0]):
                summed.append(ids[0])
        else:
            # Whatever is not known to let a factor through keeps 1 on both sides.
            bound += [of[node.name], *ids]
    label = _united(count, same)
    fixed, full = np.zeros(count, bool), np.zeros(count, bool)
    fixed[label[_joined(bound)]] = True
    full[label[_joined(summed)]] = True
    return ChannelClasses({name: label[ids] for name, ids in of.items()}, ~full, fixed)


def _through(  # noqa: PLR0911 - a case an operation
    node: Node, ids: Sequence[Ids]
) -> Sequence[Ids] | None:
    """Return the classes that an op's channels belong to, once for each input that is added."""
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
            return ids if all(len(one) == size for one in ids) else None
        case Pad(value=value):  # zeros alone are the same whatever they are divided by
            return ids if value == 0 else None
        # Each of these gives k * f(x) for k * x with k > 0; a relu6 or a sigmoid does not.
        case (
            Relu() | LeakyRelu() | MaxPool() | GlobalMaxPool() | AvgPool() | GlobalAvgPool()
            | Resize()
        ):  # fmt: skip
            return ids
    return None


def _conv(model: Model, node: Node, op: Conv, given: Factors) -> dict[str, Float32]:
    """Return the tensors of a convolution between equalised values."""
    weight, *bias = (model.weights[name].astype(np.float64) for name in node.params)
    if node.inputs[0] in given:
        read = given[node.inputs[0]].astype(np.float64).reshape(op.groups, 1, -1, 1, 1)
        by_group = weight.reshape(op.groups, -1, *weight.shape[1:])
        weight = (by_group * read).reshape(weight.shape)
    if node.name in given:
        made = given[node.name].astype(np.float64)
        weight = weight / made[:, None, None, None]
        bias = [value / made for value in bias]
    return {
        name: value.astype(np.float32)
        for name, value in zip(node.params, (weight, *bias), strict=True)
    }


def _shared(graph: Graph) -> frozenset[str]:
    """Return the tensors that several nodes read."""
    names = [name for node in graph.nodes for name in node.params]
    return frozenset(name for name in set(names) if names.count(name) > 1)


def _united(count: int, same: Iterable[tuple[Ids, Ids]]) -> Ids:
    """Return the least element that each of `count` elements is one with.

    Labels of pairs fall to the lesser one and then jump to their label's label, all at once: the
    longest chain halves each time, so that it takes about log(count) rounds over arrays.
    """
    label = np.arange(count)
    pairs = list(same)
    if not pairs:
        return label
    left, right = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    while True:
        least = np.minimum(label[left], label[right])
        before = label.copy()
        np.minimum.at(label, left, least)
        np.minimum.at(label, right, least)
        label = label[label]
        if np.array_equal(before, label):
            return label


def _joined(parts: Sequence[Ids]) -> Ids:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
