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
    """Return what a node of a graph gives by itself (N, ...).

    Args:
        graph: Has the types of the node's inputs.
        node: The node.
        weights: By name, those of the node among them.
        values: (N, ...) by name, the node's inputs among them.
    """
    # By name, as a node may read one value twice, and a graph's inputs must differ.
    inputs = dict.fromkeys(node.inputs)
    sources = tuple(Input(name, graph.types[name]) for name in inputs)
    alone = Graph(node.name, sources, (node,), (Output("result", node.name),))
    own = {name: weights[name] for name in node.params}
    feeds = {name: values[name] for name in inputs}
    return np.asarray(evaluate(Model(alone, own), feeds)["result"])


def _session(model: Model, *, optimised: bool = False) -> "Session":
    """Return a model's session: without `optimised`, sums run in the graph's own order.

    Integer weights are unsigned where the processor's products of mixed signs saturate.
    """
    # What compares results that are known already loads neither onnx nor ONNX Runtime.
    from tcc.compiler.lower.onnx import lower
    from tcc.compiler.lower.unsigned_weights import unsigned
    from tcc.compiler.reference.onnxruntime_session import session

    fit = unsigned(model) if products(features()).unsigned else model
    # What judges many programs is run by several threads.
    return session(lower(fit).SerializeToString(), optimised=optimised, lean=optimised)
