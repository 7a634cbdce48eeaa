"""Replace scales of feature maps by convolutions, which int8 models compute exactly."""

import numpy as np

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, Scale, ScaleShift


@bounded_pass(1e-4)
def lower_scale_shift(model: Model) -> Model:
    """Replace each scale of a map by a depthwise 1x1 convolution.

    Identity: within rounding; a device may round product and sum together.
    """
    return rewrite(model, _lower_scale_node)


def _lower_scale_node(node: Node, context: RewriteContext) -> Replacement | None:
    channels, *size = node.type.shape
    if not size:
        return None
    match node.op:
        case ScaleShift():
            weight, bias = context.get_weights(node)
        case Scale(factor=factor, offset=offset):
            weight, bias = (np.full(channels, v, np.float32) for v in (factor, offset))
        case _:
            return None
    conv = Conv(channels, (1, 1), padding=(0, 0, 0, 0), groups=channels)
    tensors = (weight.reshape(channels, 1, 1, 1), bias.reshape(channels))
    return Replacement(conv, node.inputs, tensors, node.at)
