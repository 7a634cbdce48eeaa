"""Replace batch norms that no layer absorbs, such as after a concat or a relu."""

import numpy as np

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import BatchNorm, ScaleShift
from tcc.compiler.passes.channel_affine import compute_batch_norm_affine


@bounded_pass(1e-4)
def lower_batch_norm(model: Model) -> Model:
    """Replace each batch norm by a scale and shift per channel.

    Identity: within rounding; scale and shift are computed in float64 and rounded once.
    """
    return rewrite(model, _lower_batch_norm_node)


def _lower_batch_norm_node(node: Node, context: RewriteContext) -> Replacement | None:
    match node.op:
        case BatchNorm(eps=eps):
            shape = (-1, *(1 for _ in node.type.shape[1:]))
            tensors = (
                v.astype(np.float32).reshape(shape)
                for v in compute_batch_norm_affine(eps, context.get_weights(node))
            )
            return Replacement(ScaleShift(), node.inputs, tuple(tensors), node.at)
    return None
