"""Pool before a 1x1 convolution instead of after it, where that takes less work."""

from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import AvgPool, Conv, GlobalAvgPool


@within(1e-4)
def pool_first(model: Model) -> Model:
    """Move an average pooling before the 1x1 convolution that it alone reads.

    Identity: within rounding. Both are linear, one in the pixels of a channel and one in the
    channels of a pixel, so they commute; the bias stays as it is because the factors of each
    window add up to 1. Moved only where convolution and pooling together then multiply less.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    source = view.source(node)
    match node.op, source:
        case AvgPool() | GlobalAvgPool() as pool, Node(op=Conv() as conv) if _pointwise(conv) and (
            _means(pool) or not conv.bias
        ):
            assert source is not None
            before = view.types[source.inputs[0]]
            pooled = pool.infer(before)
            window = _taps(pool, before.shape)
            # A pooling's sums count as products: on devices both are one multiply-add a tap.
            now = conv.macs(before) + node.type.elements * window
            then = conv.macs(pooled) + pooled.elements * window
            if then < now:
                last = ChainedOp(conv, view.values(source), source.at)
                return Replacement(pool, source.inputs, (), node.at, (last,))
    return None


def _pointwise(conv: Conv) -> bool:
    return conv.kernel == (1, 1) == conv.stride and not any(conv.pads)


def _means(pool: AvgPool | GlobalAvgPool) -> bool:
    """Whether the factors of each window add up to 1: no zeros around the input count."""
    match pool:
        case AvgPool():
            return not (pool.count_include_pad and any(pool.pads))
    return True


def _taps(pool: AvgPool | GlobalAvgPool, shape: tuple[int, ...]) -> int:
    height, width = pool.kernel if isinstance(pool, AvgPool) else shape[1:]
    return height * width
