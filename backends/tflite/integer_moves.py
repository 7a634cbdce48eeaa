"""What only moves levels, as int8 operators."""

import numpy as np

from tcc.backends.tflite.integer_draft import IntegerDraft
from tcc.compiler.ir.graph import Node
from tcc.compiler.ops import ChannelShuffle, MaxPool, Resize, Slice


def max_pool(draft: IntegerDraft, node: Node) -> None:
    """Add MAX_POOL_2D, after a border of the smallest level where SAME does not say it."""
    op, (x,) = node.op, draft.types(node)
    # A global maximum is one window over all.
    kernel, stride, pads = (x.shape[1], x.shape[2]), (1, 1), (0, 0, 0, 0)
    if isinstance(op, MaxPool):
        kernel, stride, pads = op.kernel, op.step, op.pads
    source, word = draft.placed(node, (kernel, stride, pads), smallest=True)
    options = {
        "padding": word,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
    }
    draft.run("MAX_POOL_2D", (source,), draft.value(node.name, node.type), options, 2)


def concat(draft: IntegerDraft, node: Node) -> None:
    """Add CONCATENATION along the channels."""
    draft.joined(draft.net.inputs(node), draft.value(node.name, node.type), len(node.type.shape))


def sliced(draft: IntegerDraft, node: Node) -> None:
    """Add STRIDED_SLICE of the channels."""
    op, (x,), (source,) = node.op, draft.types(node), draft.net.inputs(node)
    assert isinstance(op, Slice)
    start, stop, step = slice(op.start, op.stop, op.step).indices(x.shape[0])
    rank = len(x.shape)
    shape = draft.tensors[source].shape
    bounds = ((*(0,) * rank, start), (*shape[:-1], stop), (*(1,) * rank, step))
    output = draft.value(node.name, node.type)
    _slice(draft, source, output, bounds)


def _slice(
    draft: IntegerDraft, source: str, output: str, bounds: tuple[tuple[int, ...], ...]
) -> None:
    words = ("begin", "end", "step")
    names = [
        draft.constant(f"{output}/{word}", np.array(bound, np.int32))
        for word, bound in zip(words, bounds, strict=True)
    ]
    draft.run("STRIDED_SLICE", (source, *names), output, {}, 2)


def shuffled(draft: IntegerDraft, node: Node) -> None:
    """Add RESHAPE, TRANSPOSE and RESHAPE."""
    op, (x,), name = node.op, draft.types(node), node.name
    assert isinstance(op, ChannelShuffle)
    (channels, height, width), (source,) = x.shape, draft.net.inputs(node)
    each = channels // op.groups
    split = draft.like(source, f"{name}:split", (1, height, width, op.groups, each))
    mixed = draft.like(source, f"{name}:mixed", (1, height, width, each, op.groups))
    draft.reshaped(source, split)
    draft.transposed(split, mixed, (0, 1, 2, 4, 3))
    draft.reshaped(mixed, draft.value(name, node.type))


def resized(draft: IntegerDraft, node: Node) -> None:
    """Add GATHER of rows and of columns: the runtime's nearest are those of inexact products."""
    op, (x,), (source,), name = (
        node.op, draft.types(node), draft.net.inputs(node), node.name
    )  # fmt: skip
    assert isinstance(op, Resize)
    last = draft.value(name, node.type)
    _, *size = x.shape
    _, *target = node.type.shape
    axes = [axis for axis in (0, 1) if size[axis] != target[axis]]
    for axis in axes:
        shape = [*draft.tensors[source].shape]
        shape[axis + 1] = target[axis]
        # floor(y * in / out) in whole numbers, as the language has it.
        places = np.arange(target[axis]) * size[axis] // target[axis]
        output = last
        if axis != axes[-1]:
            output = draft.like(source, f"{name}:rows", tuple(shape))
        index = draft.constant(f"{output}/index", places.astype(np.int32))
        source = draft.run("GATHER", (source, index), output, {"axis": axis + 1}, 2)


def flattened(draft: IntegerDraft, node: Node) -> None:
    """Add RESHAPE, of a map with the channels first."""
    (x,), (source,) = draft.types(node), draft.net.inputs(node)
    if len(x.shape) == 3 and x.shape[1:] != (1, 1):
        channels, height, width = x.shape
        first = draft.like(source, f"{node.name}:first", (1, channels, height, width))
        source = draft.transposed(source, first, (0, 3, 1, 2))
    draft.reshaped(source, draft.value(node.name, node.type))
