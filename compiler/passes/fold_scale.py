"""Fold ops that scale channels, such as batch norms, into the layer before them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, ConvTranspose, Linear
from tcc.compiler.passes.channel_affine import extract_channel_affine, to_float32


@bounded_pass(1e-4)
def fold_scale(model: Model) -> Model:
    """Fold each batch norm and scale into the previous layer, if nothing else reads that.

    A layer is a convolution, a transposed convolution or a linear layer; it gets a bias if it has
    none. Identity: within rounding; the new weights are computed in float64 and rounded to float32
    once.
    """
    return rewrite(model, _fold_into_source)


def _fold_into_source(node: Node, context: RewriteContext) -> Replacement | None:
    source, channel_affine = context.find_sole_producer(node), extract_channel_affine(node, context)
    match source, channel_affine:
        case Node(op=Conv() | ConvTranspose() | Linear() as layer), (scale, shift):
            weight, *bias = context.get_weights(source)
            # (W x + b) * s + t = (s W) x + (b s + t).
            new_bias = sum(bias, np.float64(0)) * scale + shift
            tensors = to_float32(_scale_filters(layer, weight, scale), new_bias)
            return Replacement(replace(layer, bias=True), source.inputs, tensors, source.at)
    return None


def _scale_filters(
    layer: Conv | ConvTranspose | Linear, weight: NDArray[np.float32], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a weight with each output channel scaled."""
    match layer:
        case ConvTranspose(groups=groups):  # (channels, filters / groups, height, width)
            _, *filter_shape = weight.shape
            grouped = weight.reshape(groups, -1, *filter_shape) * scale.reshape(groups, 1, -1, 1, 1)
            return grouped.reshape(weight.shape)
    return weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
