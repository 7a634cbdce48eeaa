"""Fold a scale and shift per channel into the layer after it, if that is possible."""

from dataclasses import replace

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, ConvTranspose, Linear
from tcc.compiler.passes.channel_affine import extract_channel_affine, fold_affine_ahead, to_float32


@bounded_pass(1e-4)
def fold_ahead(model: Model) -> Model:
    """Fold each batch norm and scale into the next layer, if only that layer reads it.

    A layer is a convolution, a transposed convolution or a linear layer. A shift before a window
    with zero padding stays, because the padding is not shifted. Identity: within rounding; the new
    weights are computed in float64 and rounded to float32 once.
    """
    return rewrite(model, _fold_source)


def _fold_source(node: Node, context: RewriteContext) -> Replacement | None:
    source = context.find_sole_producer(node)
    if source is None or (channel_affine := extract_channel_affine(source, context)) is None:
        return None
    scale, shift = channel_affine
    match node.op:
        case Linear() as layer:
            tensors = fold_affine_ahead(layer, context.get_weights(node), scale, shift)
            return Replacement(replace(layer, bias=True), source.inputs, tensors, node.at)
        case Conv() as layer if not (any(layer.pads) and shift.any()):
            tensors = fold_affine_ahead(layer, context.get_weights(node), scale, shift)
            return Replacement(replace(layer, bias=True), source.inputs, tensors, node.at)
        # Pixels at its border read fewer taps, so the shift would not be the same for all.
        case ConvTranspose() if not shift.any():
            weight, *bias = context.get_weights(node)
            tensors = (*to_float32(weight * scale.reshape(-1, 1, 1, 1)), *bias)
            return Replacement(node.op, source.inputs, tensors, node.at)
    return None
