"""Take what scales channels, such as a batch norm at inference, into the layer before it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, ConvTranspose, Linear
from tcc.compiler.passes.channel_affine import rounded, scaling


@within(1e-4)
def fold_scale(model: Model) -> Model:
    """Take each batch norm and scale into the layer that it alone reads.

    A layer is a convolution, a transposed one or a linear layer; it gets a bias if it has none.
    Identity: within rounding; the new weights are computed in float64 and rounded to float32 once.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    source, found = view.source(node), scaling(node, view)
    match source, found:
        case Node(op=Conv() | ConvTranspose() | Linear() as layer), (scale, shift):
            weight, *bias = view.values(source)
            # (W x + b) * s + t = (s W) x + (b s + t).
            added = sum(bias, np.float64(0)) * scale + shift
            tensors = rounded(_scaled(layer, weight, scale), added)
            return Replacement(replace(layer, bias=True), source.inputs, tensors, source.at)
    return None


def _scaled(
    layer: Conv | ConvTranspose | Linear, weight: NDArray[np.float32], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a weight with each output channel scaled."""
    match layer:
        case ConvTranspose(groups=groups):  # (channels, filters / groups, height, width)
            _, *rest = weight.shape
            grouped = weight.reshape(groups, -1, *rest) * scale.reshape(groups, 1, -1, 1, 1)
            return grouped.reshape(weight.shape)
    return weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
