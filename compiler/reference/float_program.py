"""The reference executor: the float graph as written, unfused, in ONNX Runtime.

Integer graphs run in it as well, with the results that `tcc.compiler.ops.integer` defines.
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
    """Return the raw outputs, by name, of each input tensor (without a batch axis)."""
    run_model = create_runner(model)
    return [run_model(tensor) for tensor in tensors]


def run_all_nodes(model: Model, tensor: Tensor) -> Mapping[str, Tensor]:
    """Return the value of each node of a model, by name, for an input tensor."""
    # Outputs of the graph's own names stay out: one may be called as another's value is.
    probes = tuple(Output(node.name, node.name) for node in model.graph.nodes)
    (node_values,) = run(Model(replace(model.graph, outputs=probes), model.weights), [tensor])
    return node_values


def create_runner(
    model: Model, *, optimised: bool = False
) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Return what gives a model's raw outputs, by name, for an input tensor, without batch axes.

    Args:
        model: A float model or an integer program, with one input.
        optimised: Let ONNX Runtime fuse and reorder: faster, with integers the same and floats
            rounded otherwise. What judges many programs may; what goldens are made of may not.

    Returns:
        A function of an input tensor (its shape without batch), which several threads may call.
    """
    session = _create_session(model, optimised=optimised)
    names = [output.name for output in session.get_outputs()]
    (source,) = model.graph.inputs

    def run_model(tensor: Tensor) -> Mapping[str, Tensor]:
        # An integer program of raw pixels takes them as uint8; tensors are float32 everywhere.
        batch = tensor[None].astype(source.type.dtype.value)
        return {
            n: v[0] for n, v in zip(names, session.run(names, {source.name: batch}), strict=True)
        }

    return run_model


def evaluate(model: Model, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the raw outputs (N, ...) by name, given every input (N, ...) by name."""
    session = _create_session(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def evaluate_node(
    graph: Graph, node: Node, weights: Mapping[str, Tensor], input_arrays: Mapping[str, Tensor]
) -> Tensor:
    """Return what a node of a graph gives by itself (N, ...); as for `evaluate_nodes`."""
    return np.asarray(evaluate_nodes(graph, [node], [node.name], weights, input_arrays)[node.name])


def evaluate_nodes(
    graph: Graph,
    nodes: Sequence[Node],
    output_names: Sequence[str],
    weights: Mapping[str, Tensor],
    input_arrays: Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    """Return what some nodes of a graph give by themselves (N, ...), by name.

    Args:
        graph: Has the types of the nodes' inputs.
        nodes: The nodes, in the graph's order.
        output_names: Those of them whose results are returned.
        weights: By name, those of the nodes among them.
        input_arrays: (N, ...) by name, what the nodes read of others among them.
    """
    node_names = {node.name for node in nodes}
    # By name, as a node may read one value twice, and a graph's inputs must differ.
    inputs = dict.fromkeys(v for node in nodes for v in node.inputs if v not in node_names)
    sources = tuple(Input(name, graph.types[name]) for name in inputs)
    # Outputs of names that are no node's: both are names of an ONNX file.
    name_by_alias = {f"result {number}": name for number, name in enumerate(output_names)}
    outputs = tuple(Output(alias, name) for alias, name in name_by_alias.items())
    subgraph = Graph(nodes[-1].name, sources, tuple(nodes), outputs)
    node_weights = {name: weights[name] for node in nodes for name in node.params}
    array_by_alias = evaluate(
        Model(subgraph, node_weights), {name: input_arrays[name] for name in inputs}
    )
    return {name: array_by_alias[alias] for alias, name in name_by_alias.items()}


def _create_session(model: Model, *, optimised: bool = False) -> "Session":
    """Return a model's session: without `optimised`, sums run in the graph's own order.

    Integer weights are unsigned where the processor's products of mixed signs saturate.
    """
    # What compares results that are known already loads neither onnx nor ONNX Runtime.
    from tcc.compiler.lower.integer_variants import convert_to_unsigned
    from tcc.compiler.lower.onnx import lower
    from tcc.compiler.reference.onnxruntime_session import create_session

    variant = (
        convert_to_unsigned(model) if select_product_types(read_features()).unsigned else model
    )
    # Sessions are many, and several threads run one: none keeps what it once needed.
    return create_session(
        lower(variant).SerializeToString(), optimised=optimised, release_memory=True
    )
