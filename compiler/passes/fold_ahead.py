"""Take a scale and shift per channel into the layer after it, where algebra allows."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.graph import Model, Node, within
from tcc.compiler.ops import BatchNorm, Conv, ConvTranspose, Linear, Scale, ScaleShift
from tcc.compiler.passes.fold_batch_norm import affine
from tcc.compiler.rewrite import Become, Values, View, rewrite

Array = NDArray[np.float64]


@within(1e-4)
def fold_ahead(model: Model) -> Model:
    """Return the model with each batch norm and scale inside the layer that alone reads it.

    A layer is a convolution, a transposed one or a linear layer. A shift stays before a window
    that reaches a border of zeros, since the border is not shifted. Identity: within rounding;
    the new weights are computed in float64 and rounded to float32 once.
    """
    return rewrite(model, _rule)


def folded(layer: Conv | Linear, values: Values, scale: Array, shift: Array) -> Values:
    """Return the weight and bias with which a layer reads x as it reads x * scale + shift.

    Args:
        layer: A layer without a border of zeros.
        values: Its tensors.
        scale: A factor for each channel of the input.
        shift: What is added to each channel then.
    """
    weight, *bias = (tensor.astype(np.float64) for tensor in values)
    groups = layer.groups if isinstance(layer, Conv) else 1
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    factors, offsets = (v.reshape(groups, 1, -1, 1) for v in (scale, shift))
    added = (grouped * offsets).sum((2, 3)).reshape(-1) + sum(bias, np.float64(0))
    scaled = (grouped * factors).reshape(weight.shape)
    return scaled.astype(np.float32), added.astype(np.float32)


def _rule(node: Node, view: View) -> Become | None:
    source = view.source(node)
    if source is None or (found := _scaling(source, view)) is None:
        return None
    scale, shift = found
    match node.op:
        case Linear() as layer:
            tensors = folded(layer, view.values(node), scale, shift)
        case Conv() as layer if not (any(layer.pads) and shift.any()):
            tensors = folded(layer, view.values(node), scale, shift)
        case ConvTranspose() if not shift.any():
            weight, *bias = view.values(node)
            factors = scale.reshape(-1, 1, 1, 1)
            scaled = (weight * factors).astype(np.float32)
            return Become(node.op, source.inputs, (scaled, *bias), node.at)
        case _:
            return None
    return Become(replace(layer, bias=True), source.inputs, tensors, node.at)


def _scaling(node: Node, view: View) -> tuple[Array, Array] | None:
    """Return scale and shift of each channel, if that is all a node does."""
    match node.op:
        case BatchNorm(eps=eps):
            return affine(eps, view.values(node))
        case ScaleShift():
            scale, shift = (v.reshape(-1).astype(np.float64) for v in view.values(node))
            return scale, shift
        case Scale(factor=factor, offset=offset):
            channels = node.type.shape[0]
            return np.full(channels, factor), np.full(channels, offset)
    return None
