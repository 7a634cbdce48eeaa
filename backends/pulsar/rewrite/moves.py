"""What moves elements, in operators of at most four dimensions and steps of one."""

import numpy as np

from tcc.backends.pulsar.rewrite.operators import ChannelTranspose
from tcc.compiler.ir.graph import Model, Node, exact
from tcc.compiler.ir.rewrite import ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import ChannelShuffle, Conv, MaxPool, Resize, Slice


@exact
def transpose_shuffles(model: Model) -> Model:
    """Make each channel shuffle a transposition in four dimensions.

    Identity: exact.
    """
    return rewrite(model, _transposed)


@exact
def select_channels(model: Model) -> Model:
    """Make slices that leave channels out between others convolutions of ones and zeros.

    And resizing to fewer pixels a pooling of windows of one pixel, before what enlarges.
    Identity: exact; products with 1 and sums with 0 change nothing.
    """
    return rewrite(model, _selected)


def _transposed(node: Node, _: RewriteContext) -> Replacement | None:
    match node.op:
        case ChannelShuffle(groups=groups):
            return Replacement(ChannelTranspose(groups), node.inputs, (), node.at)
    return None


def _selected(node: Node, view: RewriteContext) -> Replacement | None:
    x = view.types[node.inputs[0]]
    match node.op:
        case Slice(step=step) as cut if step > 1 and len(x.shape) == 3:
            taken = range(*slice(cut.start, cut.stop, cut.step).indices(x.shape[0]))
            # The NPU slices with steps of one; a row of ones and zeros takes the channels that are
            # wanted.
            weight = np.eye(x.shape[0], dtype=np.float32)[list(taken), :, None, None]
            conv = Conv(len(taken), (1, 1), padding=(0, 0, 0, 0), bias=False)
            return Replacement(conv, node.inputs, (weight,), node.at)
        case Resize(mode="nearest") as resize:
            return _sampled(resize, node, x.shape)
    return None


def _sampled(resize: Resize, node: Node, shape: tuple[int, ...]) -> Replacement | None:
    """Return a pooling that leaves pixels out, and the resizing that is left after it."""
    wanted = (node.type.shape[1], node.type.shape[2])
    # Sampling is in two steps where an axis grows and the other shrinks: first what leaves out,
    # then what repeats.
    down, across = (max(1, size // out) for size, out in zip(shape[1:], wanted, strict=True))
    if (down, across) == (1, 1):
        return None
    pool = MaxPool((1, 1), (down, across), padding=(0, 0, 0, 0))
    if (shape[1] // down, shape[2] // across) == wanted:
        return Replacement(pool, node.inputs, (), node.at)
    return Replacement(pool, node.inputs, (), node.at, (ChainedOp(resize, (), node.at),))
