"""The reference executor: the float graph as written, unfused, in ONNX Runtime.

Integer graphs run in it as well, with the results that `tcc.compiler.ops.integer` defines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.support.cpu import features, products

if TYPE_CHECKING:
    from tcc.compiler.reference.onnxruntime_session import Session

NAME = "onnxruntime"
Tensor = NDArray[np.float32]


def run(model: Model, tensors: Sequence[Tensor]) -> list[Mapping[str, Tensor]]:
    """Return the raw outputs, by name, of each input tensor (without a batch axis)."""
    one = prepared(model)
    return [one(tensor) for tensor in tensors]


def every(model: Model, tensor: Tensor) -> Mapping[str, Tensor]:
    """Return the value of each node of a model, by name, for an input tensor."""
    # Outputs of the graph's own names stay out: one may be called as another's value is.
    taps = tuple(Output(node.name, node.name) for node in model.graph.nodes)
    (found,) = run(Model(replace(model.graph, outputs=taps), model.weights), [tensor])
    return found


def prepared(model: Model, *, optimised: bool = False) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Return what gives a model's raw outputs, by name, for an input tensor, without batch axes.

    Args:
        model: A float model or an integer program, with one input.
        optimised: Let ONNX Runtime fuse and reorder: faster, with integers the same and floats
            rounded otherwise. What judges many programs may; what goldens are made of may not.

    Returns:
        A function of an input tensor (its shape without batch), which several threads may call.
    """
    own = _session(model, optimised=optimised)
    names = [output.name for output in own.get_outputs()]
    (source,) = model.graph.inputs

    def one(tensor: Tensor) -> Mapping[str, Tensor]:
        # An integer program of raw pixels takes them as uint8; tensors are float32 everywhere.
        given = tensor[None].astype(source.type.dtype.value)
        return {n: v[0] for n, v in zip(names, own.run(names, {source.name: given}), strict=True)}

    return one


def evaluate(model: Model, feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the raw outputs (N, ...) by name, given every input (N, ...) by name."""
    own = _session(model)
    names = [output.name for output in own.get_outputs()]
    return dict(zip(names, own.run(names, dict(feeds)), strict=True))


def evaluate_node(
    graph: Graph, node: Node, weights: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> Tensor:
    """Return what a node of a graph gives by itself (N, ...); as for `evaluate_nodes`."""
    return np.asarray(evaluate_nodes(graph, [node], [node.name], weights, values)[node.name])


def evaluate_nodes(
    graph: Graph,
    nodes: Sequence[Node],
    kept: Sequence[str],
    weights: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
) -> Mapping[str, Tensor]:
    """Return what some nodes of a graph give by themselves (N, ...), by name.

    Args:
        graph: Has the types of the nodes' inputs.
        nodes: The nodes, in the graph's order.
        kept: Those of them whose results are returned.
        weights: By name, those of the nodes among them.
        values: (N, ...) by name, what the nodes read of others among them.
    """
    made = {node.name for node in nodes}
    # By name, as a node may read one value twice, and a graph's inputs must differ.
    inputs = dict.fromkeys(v for node in nodes for v in node.inputs if v not in made)
    sources = tuple(Input(name, graph.types[name]) for name in inputs)
    # Outputs of names that are no node's: both are names of an ONNX file.
    results = {f"result {number}": name for number, name in enumerate(kept)}
    outputs = tuple(Output(result, name) for result, name in results.items())
    alone = Graph(nodes[-1].name, sources, tuple(nodes), outputs)
    own = {name: weights[name] for node in nodes for name in node.params}
    found = evaluate(Model(alone, own), {name: values[name] for name in inputs})
    return {name: found[result] for result, name in results.items()}


def _session(model: Model, *, optimised: bool = False) -> "Session":
    """Return a model's session: without `optimised`, sums run in the graph's own order.

    Integer weights are unsigned where the processor's products of mixed signs saturate.
    """
    # What compares results that are known already loads neither onnx nor ONNX Runtime.
    from tcc.compiler.lower.integer_variants import unsigned
    from tcc.compiler.lower.onnx import lower
    from tcc.compiler.reference.onnxruntime_session import session

    fit = unsigned(model) if products(features()).unsigned else model
    # Sessions are many, and several threads run one: none keeps what it once needed.
    return session(lower(fit).SerializeToString(), optimised=optimised, lean=True)
