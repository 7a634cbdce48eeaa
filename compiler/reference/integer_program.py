"""The reference executor of the integer program: numpy, the same to the bit everywhere.

What is not exact (`inexact` names it) runs in ONNX Runtime, an operation at a time.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.number_types import FloatReach
from tcc.compiler.ir.op import Exact
from tcc.compiler.ir.types import DType
from tcc.compiler.ops import ChannelShuffle, Flatten, Unflatten
from tcc.compiler.reference import float_program

NAME = "integers"
MOVES = (Flatten, Unflatten, ChannelShuffle)
"""What leaves floats as they are, and only puts them elsewhere."""
Array = NDArray[Any]
Values = Mapping[str, Array]


def run(
    model: Model,
    tensors: Sequence[Array],
    *,
    every: bool = False,
    read: Values = MappingProxyType({}),
) -> list[Values]:
    """Return the raw outputs, by name, of each input tensor (without a batch axis).

    Args:
        model: An integer program with one input.
        tensors: Inputs, uint8 pixels or float32.
        every: Return all values of the graph by their names instead: integers as int8 or uint8.
        read: Values by name that later nodes read, whatever was computed for them.
    """
    return [_one(model, tensor, every, read) for tensor in tensors]


def inexact(graph: Graph) -> tuple[str, ...]:
    """Return the nodes whose results are floats that a target may round differently."""
    found: dict[str, None] = {}
    for node in graph.nodes:
        # Moving floats that were only read off levels changes none of them.
        moved = isinstance(node.op, MOVES) and not found.keys() & set(node.inputs)
        if not moved and not _exact(graph, node):
            found[node.name] = None
    return tuple(found)


def reach(graph: Graph) -> FloatReach:
    """Return how layers in float bear on the outputs: on the one that they bear on the most."""
    found = reaches(graph)
    return max(found.get(output.value, FloatReach.NONE) for output in graph.outputs)


def reaches(graph: Graph) -> Mapping[str, FloatReach]:
    """Return how layers in float bear on the value of each node."""
    found: dict[str, FloatReach] = {}
    for node in graph.nodes:
        before = max((found.get(v, FloatReach.NONE) for v in node.inputs), default=FloatReach.NONE)
        if _exact(graph, node):  # what takes computed floats rounds them to levels
            found[node.name] = FloatReach.ROUNDED if before else before
        elif isinstance(node.op, MOVES):
            found[node.name] = before
        else:
            found[node.name] = max(before, FloatReach.UNROUNDED)
    return found


def _exact(graph: Graph, node: Node) -> bool:
    """Whether a node computes on integers; what moves them does not when it moves floats."""
    kinds = (*graph.input_types(node), node.type)
    return isinstance(node.op, Exact) and any(kind.dtype is not DType.F32 for kind in kinds)


def _one(model: Model, tensor: Array, every: bool, read: Values) -> Values:
    graph = model.graph
    (source,) = graph.inputs
    values = {source.name: tensor[None].astype(source.type.dtype.value)}
    found = dict(values)
    # All values are kept where all are asked for: what is compared layer by layer is a whole
    # network's.
    wanted = set(graph.types) if every else {output.value for output in graph.outputs}
    # Each value goes when its last reader has run: what is alive is far less than all maps.
    last = {value: place for place, node in enumerate(graph.nodes) for value in node.inputs}
    for place, node in enumerate(graph.nodes):
        found[node.name] = _node(model, node, values)
        values[node.name] = read[node.name][None] if node.name in read else found[node.name]
        for value in set(node.inputs) - wanted:
            if last[value] == place:
                del values[value], found[value]
    if every:
        return {name: value[0] for name, value in found.items()}
    return {output.name: found[output.value][0] for output in graph.outputs}


def _node(model: Model, node: Node, values: Mapping[str, Array]) -> Array:
    types = model.graph.input_types(node)
    xs = tuple(values[value] for value in node.inputs)
    if _exact(model.graph, node):
        assert isinstance(node.op, Exact)
        own = tuple(model.weights[name] for name in node.params)
        return node.op.integer(types, xs, own)
    return float_program.evaluate_node(model.graph, node, model.weights, values)
