"""Reference executor of integer programs in numpy, bit-exact on every machine.

Inexact operations (see `find_inexact_nodes`) run in ONNX Runtime, one at a time.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.number_types import FloatInfluence
from tcc.compiler.ir.op import ExactIntegerOp
from tcc.compiler.ir.types import DType
from tcc.compiler.ops import ChannelShuffle, Flatten, Unflatten
from tcc.compiler.reference import float_program

NAME = "integers"
MOVES = (Flatten, Unflatten, ChannelShuffle)
"""Ops that only move floats, without changing them."""
Array = NDArray[Any]
Arrays = Mapping[str, Array]


def run(
    model: Model,
    tensors: Sequence[Array],
    *,
    keep_all: bool = False,
    overrides: Arrays = MappingProxyType({}),
) -> list[Arrays]:
    """Return the raw outputs of each input tensor, by name, without batch axes.

    Args:
        model: An integer program with one input.
        tensors: Inputs, uint8 pixels or float32.
        keep_all: Return all values of the graph by name instead; integers as int8 or uint8.
        overrides: Values by name that later nodes read instead of the computed ones.
    """
    return [_run_image(model, tensor, keep_all, overrides) for tensor in tensors]


def find_inexact_nodes(graph: Graph) -> tuple[str, ...]:
    """Return the nodes with float results that a target may round differently."""
    inexact_nodes: dict[str, None] = {}
    for node in graph.nodes:
        # Moving dequantized floats does not change them.
        is_exact_move = isinstance(node.op, MOVES) and not inexact_nodes.keys() & set(node.inputs)
        if not is_exact_move and not _is_exact(graph, node):
            inexact_nodes[node.name] = None
    return tuple(inexact_nodes)


def compute_float_reach(graph: Graph) -> FloatInfluence:
    """Return the largest influence of float layers on an output."""
    reach_by_node = compute_node_float_reach(graph)
    return max(reach_by_node.get(output.value, FloatInfluence.NONE) for output in graph.outputs)


def compute_node_float_reach(graph: Graph) -> Mapping[str, FloatInfluence]:
    """Return the influence of float layers on the value of each node."""
    reach_by_node: dict[str, FloatInfluence] = {}
    for node in graph.nodes:
        input_reach = max(
            (reach_by_node.get(v, FloatInfluence.NONE) for v in node.inputs),
            default=FloatInfluence.NONE,
        )
        if _is_exact(graph, node):  # computed floats are rounded to quantized values
            reach_by_node[node.name] = FloatInfluence.ROUNDED if input_reach else input_reach
        elif isinstance(node.op, MOVES):
            reach_by_node[node.name] = input_reach
        else:
            reach_by_node[node.name] = max(input_reach, FloatInfluence.UNROUNDED)
    return reach_by_node


def _is_exact(graph: Graph, node: Node) -> bool:
    """Whether a node computes on integers; moving floats does not count."""
    kinds = (*graph.get_input_types(node), node.type)
    return isinstance(node.op, ExactIntegerOp) and any(
        kind.dtype is not DType.F32 for kind in kinds
    )


def _run_image(model: Model, tensor: Array, keep_all: bool, overrides: Arrays) -> Arrays:
    graph = model.graph
    (network_input,) = graph.inputs
    tensors = {network_input.name: tensor[None].astype(network_input.type.dtype.value)}
    computed = dict(tensors)
    # With `keep_all` all values are kept, for layer-by-layer comparisons.
    kept_names = set(graph.types) if keep_all else {output.value for output in graph.outputs}
    # Each value is deleted after its last reader: live values take far less memory than all maps.
    last_reader = {value: index for index, node in enumerate(graph.nodes) for value in node.inputs}
    for index, node in enumerate(graph.nodes):
        computed[node.name] = _run_node(model, node, tensors)
        tensors[node.name] = (
            overrides[node.name][None] if node.name in overrides else computed[node.name]
        )
        for value in set(node.inputs) - kept_names:
            if last_reader[value] == index:
                del tensors[value], computed[value]
    if keep_all:
        return {name: value[0] for name, value in computed.items()}
    return {output.name: computed[output.value][0] for output in graph.outputs}


def _run_node(model: Model, node: Node, tensors: Mapping[str, Array]) -> Array:
    types = model.graph.get_input_types(node)
    input_tensors = tuple(tensors[value] for value in node.inputs)
    if _is_exact(model.graph, node):
        assert isinstance(node.op, ExactIntegerOp)
        node_weights = tuple(model.weights[name] for name in node.params)
        return node.op.compute(types, input_tensors, node_weights)
    return float_program.evaluate_node(model.graph, node, model.weights, tensors)
