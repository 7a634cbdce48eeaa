"""Remove ops that do nothing at inference."""

from tcc.compiler.ir.graph import Model, Node, exact_pass
from tcc.compiler.ir.rewrite import Bypass, RewriteContext, rewrite
from tcc.compiler.ops import (
    AvgPool,
    ChannelShuffle,
    Concat,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    Pad,
    Scale,
    ScaleShift,
    Slice,
    StochasticDepth,
)


@exact_pass
def drop_identity(model: Model) -> Model:
    """Remove nodes that return their input, and connect their readers to the input.

    That is dropout at inference, and ops that move, pool, pad or scale nothing. Identity: exact.
    """
    return rewrite(model, _bypass_identity)


def _bypass_identity(node: Node, context: RewriteContext) -> Bypass | None:
    return Bypass(node.inputs[0]) if _is_identity(node, context) else None


def _is_identity(node: Node, context: RewriteContext) -> bool:
    input_type = context.types[node.inputs[0]]
    match node.op:
        case Dropout() | StochasticDepth() | Identity() | Scale(factor=1.0, offset=0.0):
            return True
        case ScaleShift():
            # Exactly 1 and 0: other factors would change bits.
            weight, bias = context.get_weights(node)
            return bool((weight == 1).all()) and not bias.any()
        case MaxPool() | AvgPool() as pool:
            return pool.kernel == (1, 1) == pool.step
        case ChannelShuffle(groups=groups):
            # One group, or groups of one channel: interleaving does not change either.
            return groups in {1, input_type.shape[0]}
        case Concat() | Flatten() | Pad() | Slice():  # any effect would change the shape
            return node.type == input_type
    return False
