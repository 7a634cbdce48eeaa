"""Make one layer of the 1x1 convolutions that read one value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.compiler.ir.graph import Graph, Model, Node, within
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    NodeWeights,
    Replacement,
    RewriteContext,
    rewrite,
)
from tcc.compiler.ops import Conv, Slice


@within(1e-4)
def merge_parallel(model: Model) -> Model:
    """Make one convolution of all 1x1 ones that read one value.

    It multiplies as much as they did, in one go. Identity: within rounding, for the order of the
    sums. In no pipeline: a slice between a convolution and its activation costs more than it saves
    where these are one on a device.
    """
    return rewrite(model, _Rule(_groups(model.graph)))


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule: `groups` holds the convolutions that become one, by the name of each."""

    groups: Mapping[str, tuple[Node, ...]]

    def __call__(self, node: Node, view: RewriteContext) -> Replacement | None:
        group = self.groups.get(node.name, ())
        if len(group) < 2 or not isinstance(node.op, Conv):
            return None
        filters = [other.type.shape[0] for other in group]
        place = [other.name for other in group].index(node.name)
        start = sum(filters[:place])
        part = Slice(start, start + filters[place], 1)
        if place:
            return Replacement(part, (_whole(group[0], view),), (), node.at)
        whole = replace(node.op, filters=sum(filters), bias=True)
        return Replacement(
            whole, node.inputs, _joined(group, view), node.at, (ChainedOp(part, (), node.at),)
        )


def _whole(first: Node, view: RewriteContext) -> str:
    """Return the name of the convolution that a group has become."""
    (name,) = view.made[first.name].inputs
    return name


def _joined(group: tuple[Node, ...], view: RewriteContext) -> NodeWeights:
    weights, biases = [], []
    for node in group:
        weight, *bias = view.values(node)
        weights.append(weight)
        biases.append(bias[0] if bias else np.zeros(len(weight), np.float32))
    return np.concatenate(weights), np.concatenate(biases)


def _groups(graph: Graph) -> Mapping[str, tuple[Node, ...]]:
    """Return, for each 1x1 convolution, all that read its input and step alike, in order."""
    found: dict[str, tuple[Node, ...]] = {}
    for readers in graph.readers.values():
        alike: dict[Conv, list[Node]] = {}
        for node in readers:
            match node.op:
                case Conv(kernel=(1, 1), groups=1) as conv:
                    alike.setdefault(replace(conv, filters=1, bias=True), []).append(node)
        for group in alike.values():
            found |= dict.fromkeys((node.name for node in group), tuple(group))
    return found
