"""Add missing biases to convolutions."""

from dataclasses import replace

import numpy as np

from tcc.compiler.ir.graph import Model, Node, exact_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv


@exact_pass
def fill_bias(model: Model) -> Model:
    """Add a bias of zeros to each convolution that has none.

    Identity: exact.
    """
    return rewrite(model, _add_bias)


def _add_bias(node: Node, context: RewriteContext) -> Replacement | None:
    match node.op:
        # int8 convolutions have a bias in every format, and calibration corrects means with it.
        case Conv(bias=False) as conv:
            tensors = (*context.get_weights(node), np.zeros(conv.filters, np.float32))
            return Replacement(replace(conv, bias=True), node.inputs, tensors, node.at)
    return None
