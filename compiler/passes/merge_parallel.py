"""Merge 1x1 convolutions that read the same value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.compiler.ir.graph import Graph, Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    NodeWeights,
    Replacement,
    RewriteContext,
    rewrite,
)
from tcc.compiler.ops import Conv, Slice


@bounded_pass(1e-4)
def merge_parallel(model: Model) -> Model:
    """Merge all 1x1 convolutions that read one value.

    The result needs as many multiplications, in one convolution. Identity: within rounding, because
    of the order of the sums. It is in no pipeline: on devices that fuse a convolution with its
    activation, the slices between them cost more than it saves.
    """
    return rewrite(model, _Rule(_group_convolutions(model.graph)))


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule: `groups` has the convolutions to merge, by the name of each."""

    groups: Mapping[str, tuple[Node, ...]]

    def __call__(self, node: Node, context: RewriteContext) -> Replacement | None:
        group = self.groups.get(node.name, ())
        if len(group) < 2 or not isinstance(node.op, Conv):
            return None
        filters = [member.type.shape[0] for member in group]
        index = [member.name for member in group].index(node.name)
        start = sum(filters[:index])
        channel_slice = Slice(start, start + filters[index], 1)
        if index:
            return Replacement(channel_slice, (_find_merged_conv(group[0], context),), (), node.at)
        merged_conv = replace(node.op, filters=sum(filters), bias=True)
        return Replacement(
            merged_conv,
            node.inputs,
            _concat_weights(group, context),
            node.at,
            (ChainedOp(channel_slice, (), node.at),),
        )


def _find_merged_conv(head: Node, context: RewriteContext) -> str:
    """Return the name of the convolution that replaces a group."""
    (name,) = context.rewritten[head.name].inputs
    return name


def _concat_weights(group: tuple[Node, ...], context: RewriteContext) -> NodeWeights:
    weights, biases = [], []
    for node in group:
        weight, *bias = context.get_weights(node)
        weights.append(weight)
        biases.append(bias[0] if bias else np.zeros(len(weight), np.float32))
    return np.concatenate(weights), np.concatenate(biases)


def _group_convolutions(graph: Graph) -> Mapping[str, tuple[Node, ...]]:
    """Return, for each 1x1 convolution, all with the same input and stride, in order."""
    group_by_name: dict[str, tuple[Node, ...]] = {}
    for readers in graph.readers.values():
        nodes_by_conv: dict[Conv, list[Node]] = {}
        for node in readers:
            match node.op:
                case Conv(kernel=(1, 1), groups=1) as conv:
                    nodes_by_conv.setdefault(replace(conv, filters=1, bias=True), []).append(node)
        for group in nodes_by_conv.values():
            group_by_name |= dict.fromkeys((node.name for node in group), tuple(group))
    return group_by_name
