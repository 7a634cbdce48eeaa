"""Pool before a 1x1 convolution instead of after it, if that takes less work."""

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import AvgPool, Conv, GlobalAvgPool


@bounded_pass(1e-4)
def pool_first(model: Model) -> Model:
    """Move an average pooling before a 1x1 convolution, if nothing else reads that.

    Identity: within rounding. Both are linear, one in the pixels of a channel and one in the
    channels of a pixel, so they commute. The bias is unchanged, because the factors of each window
    add up to 1. It moves only if convolution and pooling together then multiply less.
    """
    return rewrite(model, _move_pool)


def _move_pool(node: Node, context: RewriteContext) -> Replacement | None:
    source = context.find_sole_producer(node)
    match node.op, source:
        case AvgPool() | GlobalAvgPool() as pool, Node(op=Conv() as conv) if _is_pointwise(
            conv
        ) and (_is_true_mean(pool) or not conv.bias):
            assert source is not None
            input_type = context.types[source.inputs[0]]
            pooled = pool.infer(input_type)
            window = _count_taps(pool, input_type.shape)
            # A pooling's sums count as multiplications: devices use one multiply-add per tap.
            current_macs = conv.macs(input_type) + node.type.elements * window
            moved_macs = conv.macs(pooled) + pooled.elements * window
            if moved_macs < current_macs:
                conv_step = ChainedOp(conv, context.get_weights(source), source.at)
                return Replacement(pool, source.inputs, (), node.at, (conv_step,))
    return None


def _is_pointwise(conv: Conv) -> bool:
    return conv.kernel == (1, 1) == conv.stride and not any(conv.pads)


def _is_true_mean(pool: AvgPool | GlobalAvgPool) -> bool:
    """Whether the factors of each window add up to 1, which padding that counts would prevent."""
    match pool:
        case AvgPool():
            return not (pool.count_include_pad and any(pool.pads))
    return True


def _count_taps(pool: AvgPool | GlobalAvgPool, shape: tuple[int, ...]) -> int:
    height, width = pool.kernel if isinstance(pool, AvgPool) else shape[1:]
    return height * width
