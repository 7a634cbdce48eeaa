"""The integer program with zeros beside few channels: faster in ONNX Runtime, the same results."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Slice
from tcc.compiler.ops.integer import QConv, WideQConv
from tcc.compiler.ops.integer.conv import WORD

LANES = 16
"""Filters that ONNX Runtime needs to multiply windows where their pixels lie, rather than copies of
them (`MlasConvSymPackWSize`). It multiplies 16 channels, each by its own filter, faster than 4."""
WIDE = ":wide"
"""Ends the name of a value with zeros beside the channels of the value that the rest of it names."""
Tensors = Mapping[str, NDArray[Any]]


def wide(model: Model) -> Model:
    """Return the integer program whose convolutions have whole words of channels, and 16 filters.

    What has fewer filters gets others of zeros where the readers' weights can be zero beside them.
    Its value has `:wide` behind its name then, and that of the program is a slice of it, which only
    readers of another kind need.
    """
    graph = model.graph
    lanes, weights = _lanes(graph), dict(model.weights)
    nodes, types = list[Node](), {source.name: source.type for source in graph.inputs}
    for old in graph.nodes:
        node = old
        if kind := _kind(graph, node):
            if node.inputs[0] in lanes and (kind == "dense" or node.name in lanes):
                node = replace(node, inputs=(f"{node.inputs[0]}{WIDE}",))
            node, tensors = _widened(node, types[node.inputs[0]], kind, model.weights, lanes)
            weights.update(tensors)
        nodes.append(node)
        if node.name != old.name:
            own = Slice(0, old.type.shape[0], 1)
            nodes.append(Node(old.name, own, (node.name,), (), old.type, old.at))
        types |= {each.name: each.type for each in nodes[-2:]}
    return Model(verify(replace(graph, nodes=tuple(nodes))), weights)


def _lanes(graph: Graph) -> frozenset[str]:
    """Return the convolutions that get filters of zeros beside their own."""
    found = frozenset(
        node.name for node in graph.nodes if _kind(graph, node) and node.type.shape[0] < LANES
    )
    # What one of them is bears on those before and behind it: who cannot be goes, until all can.
    while True:
        kept = frozenset(n.name for n in graph.nodes if n.name in found and _can(graph, n, found))
        if kept == found:
            return found
        found = kept


def _can(graph: Graph, node: Node, found: frozenset[str]) -> bool:
    """Whether filters of zeros gain time, if `found` have them too."""
    # With a window, or a filter a channel, they save more than it takes to slice the map for readers
    # of another kind.
    if _kind(graph, node) == "depthwise":
        return node.inputs[0] in found
    if _has_window(node):
        return True
    readers = graph.readers[node.name]
    return all(output.value != node.name for output in graph.outputs) and all(
        _kind(graph, reader) == "dense" or reader.name in found for reader in readers
    )


def _widened(
    node: Node, x: TensorType, kind: Literal["dense", "depthwise"], weights: Tensors,
    lanes: frozenset[str],
) -> tuple[Node, Tensors]:  # fmt: skip
    """Return a convolution as it reads a type, with its tensors."""
    assert isinstance(node.op, QConv)
    weight, scale, bias = (np.asarray(weights[name]) for name in node.params)
    filters, depth = weight.shape[:2]
    op, name = node.op, node.name
    more = LANES - filters if name in lanes else 0
    channels = x.shape[0] - depth if kind == "dense" else 0
    if more:
        name = f"{name}{WIDE}"
        groups = LANES if kind == "depthwise" else 1
        op = replace(op, conv=replace(op.conv, filters=LANES, groups=groups))
    if kind == "dense" and _has_window(node) and x.shape[0] % WORD:
        op = WideQConv(**{f.name: getattr(op, f.name) for f in fields(QConv)})
        channels = op.beside(x)
    if not (more or channels or op is not node.op):
        return node, {}
    tensors = (
        np.pad(weight, ((0, more), (0, channels), (0, 0), (0, 0))),
        np.pad(scale, (0, more), constant_values=1),
        np.pad(bias, (0, more)),
    )
    return (
        replace(node, name=name, op=op, type=op.infer(x)),
        dict(zip(node.params, tensors, strict=True)),
    )


def _kind(graph: Graph, node: Node) -> Literal["dense", "depthwise"] | None:
    """Return which of the convolutions that ONNX Runtime has kernels for a node is, if it is."""
    # Not by `isinstance`: what derives from it has a form of its own already.
    if type(node.op) is not QConv:
        return None
    (channels, *_), conv = graph.input_types(node)[0].shape, node.op.conv
    if conv.groups == 1:
        return "dense"
    return "depthwise" if conv.groups == conv.filters == channels else None


def _has_window(node: Node) -> bool:
    assert isinstance(node.op, QConv)
    return node.op.conv.kernel != (1, 1)
