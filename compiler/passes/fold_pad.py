"""Take a border of zeros into the convolution that reads it."""

from dataclasses import replace

from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ir.types import Quad
from tcc.compiler.ops import Conv, Pad


@within(1e-4)
def fold_pad(model: Model) -> Model:
    """Take each border of zeros into the convolution that alone reads it.

    Two borders of one value become one. Identity: within rounding, since a convolution may sum in
    another order where its border is its own.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    source = view.source(node)
    match source, node.op:
        # Only zeros: a convolution's own border has no other number.
        case Node(op=Pad(value=0.0) as pad), Conv() as conv:
            op = replace(conv, padding=_sum(pad.pads, conv.pads))
            return Replacement(op, source.inputs, view.values(node), node.at)
        case Node(op=Pad(value=inner) as pad), Pad(value=outer) as border if inner == outer:
            both = Pad(_sum(pad.pads, border.pads), outer)
            return Replacement(both, source.inputs, (), node.at)
    return None


def _sum(one: Quad, other: Quad) -> Quad:
    top, left, bottom, right = (a + b for a, b in zip(one, other, strict=True))
    return top, left, bottom, right
