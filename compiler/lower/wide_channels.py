"""The integer program with zeros beside odd numbers of channels: faster in ONNX Runtime."""

from dataclasses import fields, replace

import numpy as np

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ops.integer import QConv, WideQConv
from tcc.compiler.ops.integer.conv import WORD


def wide(model: Model) -> Model:
    """Return the integer program whose windows read whole words of channels: the same results."""
    graph, weights = model.graph, dict(model.weights)
    nodes = []
    for node in graph.nodes:
        if _gains(graph, node):
            op = WideQConv(**{f.name: getattr(node.op, f.name) for f in fields(QConv)})
            beside = op.beside(*graph.input_types(node))
            levels = np.asarray(model.weights[node.params[0]])
            weights[node.params[0]] = np.pad(levels, ((0, 0), (0, beside), (0, 0), (0, 0)))
            node = replace(node, op=op)  # noqa: PLW2901
        nodes.append(node)
    return Model(verify(replace(graph, nodes=tuple(nodes))), weights)


def _gains(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution with a window over channels that fill no whole words."""
    # Not by `isinstance`: what derives from it has a form of its own already.
    if type(node.op) is not QConv:
        return False
    conv, (x,) = node.op.conv, graph.input_types(node)
    return conv.groups == 1 and conv.kernel != (1, 1) and x.shape[0] % WORD != 0
