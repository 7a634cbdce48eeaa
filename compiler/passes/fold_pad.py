"""Fold zero padding into the convolution that reads it."""

from dataclasses import replace

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ir.types import Quad
from tcc.compiler.ops import Conv, Pad


@bounded_pass(1e-4)
def fold_pad(model: Model) -> Model:
    """Fold each zero padding into the next convolution, if only that one reads it.

    Two pads in a row with the same value become one. Identity: within rounding, because a
    convolution with its own padding may sum in another order.
    """
    return rewrite(model, _fold_border)


def _fold_border(node: Node, context: RewriteContext) -> Replacement | None:
    source = context.find_sole_producer(node)
    match source, node.op:
        # Only zeros: a convolution's own padding has no other value.
        case Node(op=Pad(value=0.0) as pad), Conv() as conv:
            op = replace(conv, padding=_add_padding(pad.pads, conv.pads))
            return Replacement(op, source.inputs, context.get_weights(node), node.at)
        case Node(op=Pad(value=inner) as pad), Pad(value=outer) as border if inner == outer:
            both = Pad(_add_padding(pad.pads, border.pads), outer)
            return Replacement(both, source.inputs, (), node.at)
    return None


def _add_padding(inner: Quad, outer: Quad) -> Quad:
    pad_top, pad_left, pad_bottom, pad_right = (a + b for a, b in zip(inner, outer, strict=True))
    return pad_top, pad_left, pad_bottom, pad_right
