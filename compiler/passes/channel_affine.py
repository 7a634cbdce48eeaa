"""Ops that scale each channel, in one form that several passes share.

Everything is computed in float64 and rounded to float32 once. In float32, a weight would be rounded
at each step, and the factor of a nearly zero variance would magnify these errors.
"""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Node
from tcc.compiler.ir.rewrite import NodeWeights, RewriteContext
from tcc.compiler.ops import BatchNorm, Conv, Linear, Scale, ScaleShift

Array = NDArray[np.float64]


def extract_channel_affine(node: Node, context: RewriteContext) -> tuple[Array, Array] | None:
    """Return factor and shift of each channel in float64, if a node does nothing else.

    Returns:
        Two arrays (channels,), or None for a node that does something else.
    """
    match node.op:
        case BatchNorm(eps=eps):
            return compute_batch_norm_affine(eps, context.get_weights(node))
        case ScaleShift():
            scale, shift = (v.reshape(-1).astype(np.float64) for v in context.get_weights(node))
            return scale, shift
        # One number for all channels is the same number for each.
        case Scale(factor=factor, offset=offset):
            channels = node.type.shape[0]
            return np.full(channels, factor), np.full(channels, offset)
    return None


def compute_batch_norm_affine(eps: float, node_weights: NodeWeights) -> tuple[Array, Array]:
    """Return the factor and shift per channel that equal a batch norm with these tensors."""
    # `eps` is under the root, as in PyTorch and in ONNX's BatchNormalization.
    weight, bias, mean, var = (tensor.astype(np.float64) for tensor in node_weights)
    scale = weight / np.sqrt(var + eps)
    return scale, bias - mean * scale


def fold_affine_ahead(
    layer: Conv | Linear, node_weights: NodeWeights, scale: Array, shift: Array
) -> NodeWeights:
    """Return the weight and bias of a layer on x that equals the layer on x * scale + shift.

    Args:
        layer: A layer without zero padding.
        node_weights: Its tensors.
        scale: A factor for each channel of the input.
        shift: An offset that is then added to each channel.
    """
    weight, *bias = (tensor.astype(np.float64) for tensor in node_weights)
    groups = layer.groups if isinstance(layer, Conv) else 1
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    factors, offsets = (v.reshape(groups, 1, -1, 1) for v in (scale, shift))
    # Without padding each window reads all its taps, so the shift adds one number per filter.
    new_bias = (grouped * offsets).sum((2, 3)).reshape(-1) + sum(bias, np.float64(0))
    return to_float32((grouped * factors).reshape(weight.shape), new_bias)


def to_float32(*tensors: Array) -> NodeWeights:
    """Return tensors as float32."""
    return tuple(tensor.astype(np.float32) for tensor in tensors)
