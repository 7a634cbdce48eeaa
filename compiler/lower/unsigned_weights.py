"""The integer program with unsigned weights: right where products of mixed signs saturate."""

from dataclasses import fields, replace

import numpy as np

from tcc.compiler.ir.graph import Model, verify
from tcc.compiler.ops.integer import QConv, UnsignedQConv


def unsigned(model: Model) -> Model:
    """Return the integer program with its weights as uint8 of zero point 128: the same results."""
    weights = dict(model.weights)
    nodes = []
    for node in model.graph.nodes:
        # Not by `isinstance`: what derives from it has a form of its own already.
        if type(node.op) is QConv:
            op = UnsignedQConv(**{f.name: getattr(node.op, f.name) for f in fields(QConv)})
            levels = np.asarray(model.weights[node.params[0]])
            # By way of int16, since int8 ends below 128. The instruction that saturates, AVX2's
            # `vpmaddubsw`, multiplies unsigned by signed bytes; where both are unsigned, ONNX
            # Runtime's kernels widen them to 16 bits first.
            weights[node.params[0]] = (levels.astype(np.int16) + 128).astype(np.uint8)
            node = replace(node, op=op)  # noqa: PLW2901
        nodes.append(node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)
