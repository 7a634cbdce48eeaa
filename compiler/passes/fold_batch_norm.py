"""Take a batch norm, whose statistics are constants at inference, into the layer before it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.graph import Model, Node, within
from tcc.compiler.ops import BatchNorm, Conv, ConvTranspose, Linear
from tcc.compiler.rewrite import Become, Values, View, rewrite


@within(1e-4)
def fold_batch_norm(model: Model) -> Model:
    """Return the model with each batch norm inside the layer whose output it alone reads.

    A layer is a convolution, a transposed one or a linear layer; it gets a bias if it has none.
    Identity: within rounding; the new weights are computed in float64 and rounded to float32 once.
    """
    return rewrite(model, _rule)


def affine(eps: float, values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and shift per channel that do what a batch norm of these tensors does."""
    weight, bias, mean, var = (tensor.astype(np.float64) for tensor in values)
    scale = weight / np.sqrt(var + eps)
    return scale, bias - mean * scale


def _rule(node: Node, view: View) -> Become | None:
    match node.op, view.source(node):
        case BatchNorm(eps=eps), Node(op=Conv() | ConvTranspose() | Linear() as layer) as source:
            scale, shift = affine(eps, view.values(node))
            weight, *bias = view.values(source)
            folded = (_scaled(layer, weight, scale), sum(bias, np.float64(0)) * scale + shift)
            as_floats = tuple(tensor.astype(np.float32) for tensor in folded)
            return Become(replace(layer, bias=True), source.inputs, as_floats, source.at)
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
