"""Reference executor of float graphs: the graph as written, without fusions, in ONNX Runtime.

It also runs integer graphs, with the results that `tcc.compiler.ops.integer` defines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.support.cpu import read_features, select_product_types

if TYPE_CHECKING:
    from tcc.compiler.reference.onnxruntime_session import Session

NAME = "onnxruntime"
Tensor = NDArray[np.float32]


def run(model: Model, tensors: Sequence[Tensor]) -> list[Mapping[str, Tensor]]:
    """Return the raw outputs of each input tensor, by name, without batch axes."""
    run_model = create_runner(model)
    return [run_model(tensor) for tensor in tensors]


def run_all_nodes(model: Model, tensor: Tensor) -> Mapping[str, Tensor]:
    """Return the value of each node of a model, by name, for an input tensor."""
    # The graph's own output names are omitted: one may be the name of another value.
    probes = tuple(Output(node.name, node.name) for node in model.graph.nodes)
    (node_values,) = run(Model(replace(model.graph, outputs=probes), model.weights), [tensor])
    return node_values


def create_runner(
    model: Model, *, optimised: bool = False
) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Return a function that computes a model's raw outputs, by name, without batch axes.

    Args:
        model: A float model or an integer program, with one input.
        optimised: Let ONNX Runtime fuse and reorder operations. It is faster; integers stay the
            same, floats are rounded differently. Allowed for ranking programs, not for golden
            outputs.

    Returns:
        A function of an input tensor (shape without batch); several threads may call it.
    """
    session = _create_session(model, optimised=optimised)
    names = [output.name for output in session.get_outputs()]
    (network_input,) = model.graph.inputs

    def run_model(tensor: Tensor) -> Mapping[str, Tensor]:
        # Integer programs of raw pixels read uint8; tensors are float32 everywhere else.
        batch = tensor[None].astype(network_input.type.dtype.value)
        return {
            n: v[0]
            for n, v in zip(names, session.run(names, {network_input.name: batch}), strict=True)
        }

    return run_model


def evaluate(model: Model, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the raw outputs (N, ...) by name, for all inputs (N, ...) by name."""
    session = _create_session(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def evaluate_node(
    graph: Graph, node: Node, weights: Mapping[str, Tensor], input_arrays: Mapping[str, Tensor]
) -> Tensor:
    """Return the output of one node of a graph (N, ...); see `evaluate_nodes`."""
    return np.asarray(evaluate_nodes(graph, [node], [node.name], weights, input_arrays)[node.name])


def evaluate_nodes(
    graph: Graph,
    nodes: Sequence[Node],
    output_names: Sequence[str],
    weights: Mapping[str, Tensor],
    input_arrays: Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    """Return the outputs of some nodes of a graph (N, ...), by name.

    Args:
        graph: Has the types of the nodes' inputs.
        nodes: The nodes, in the graph's order.
        output_names: Names of the nodes to return.
        weights: By name; must include those of the nodes.
        input_arrays: (N, ...) by name; must include what the nodes read from other nodes.
    """
    node_names = {node.name for node in nodes}
    # By name: a node may read one value twice, and the inputs of a graph must differ.
    inputs = dict.fromkeys(v for node in nodes for v in node.inputs if v not in node_names)
    sources = tuple(Input(name, graph.types[name]) for name in inputs)
    # Aliases that are not node names, because both are names in the ONNX file.
    name_by_alias = {f"result {number}": name for number, name in enumerate(output_names)}
    outputs = tuple(Output(alias, name) for alias, name in name_by_alias.items())
    subgraph = Graph(nodes[-1].name, sources, tuple(nodes), outputs)
    node_weights = {name: weights[name] for node in nodes for name in node.params}
    array_by_alias = evaluate(
        Model(subgraph, node_weights), {name: input_arrays[name] for name in inputs}
    )
    return {name: array_by_alias[alias] for alias, name in name_by_alias.items()}


def _create_session(model: Model, *, optimised: bool = False) -> "Session":
    """Return a model's session; without `optimised`, sums use the graph's own order.

    Integer weights are unsigned if the processor's products of mixed signs saturate.
    """
    # Imported here: comparing known results needs neither onnx nor ONNX Runtime.
    from tcc.compiler.lower.integer_variants import convert_to_unsigned
    from tcc.compiler.lower.onnx import lower
    from tcc.compiler.reference.onnxruntime_session import create_session

    variant = (
        convert_to_unsigned(model) if select_product_types(read_features()).unsigned else model
    )
    # There are many sessions and several threads per session, so memory is released after use.
    return create_session(
        lower(variant).SerializeToString(), optimised=optimised, release_memory=True
    )
