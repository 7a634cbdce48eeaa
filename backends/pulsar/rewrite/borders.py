"""Borders as the documents allow them: equal on both sides, and counted by means or not there."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.backends.pulsar.rewrite.operators import PixelScale
from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ir.types import Quad, TensorType
from tcc.compiler.ops import AvgPool, Conv, MaxPool, Pad
from tcc.compiler.ops.window import reached
from tcc.compiler.passes.fuse_clamps import ranges


@within(1e-4)
def even_borders(model: Model) -> Model:
    """Make the borders of convolutions and max poolings the same on both sides.

    What one side has more comes before the layer: zeros, or for a maximum minus infinity where
    the input may be negative. Identity: within rounding, for the order of the sums.
    """
    # Once for all nodes: a range depends on what is before it alone.
    known = ranges(model.graph)

    def rule(node: Node, view: RewriteContext) -> Replacement | None:
        x = view.types[node.inputs[0]]
        match node.op:
            case Conv() as conv if _lopsided(conv.pads):
                more, both = _split(conv.pads)
                return _padded(node, view, Pad(more), replace(conv, padding=both))
            case MaxPool() as pool if _lopsided(_emitted(pool, x, node.type)):
                more, both = _split(_whole(pool, x, node.type))
                # After a ReLU zeros are as good as minus infinity, which integers do not have.
                low, _ = known.get(node.inputs[0], (-np.inf, np.inf))
                border = Pad(more, 0.0 if low >= 0 else -np.inf)
                whole = replace(pool, stride=pool.step, padding=both, ceil=False)
                return _padded(node, view, border, whole)
        return None

    return rewrite(model, rule)


@within(1e-4)
def count_borders(model: Model) -> Model:
    """Let average poolings count their borders, and scale the windows that did not.

    Identity: within rounding.
    """
    return rewrite(model, _counting)


@within(1e-4)
def pad_means(model: Model) -> Model:
    """Put the borders that average poolings count before them.

    Identity: within rounding, for the order of the sums.
    """
    return rewrite(model, _padding)


def _counting(node: Node, view: RewriteContext) -> Replacement | None:
    x = view.types[node.inputs[0]]
    match node.op:
        case AvgPool() as pool if (share := _counted(pool, x, node.type)).min() < 1:
            size = (node.type.shape[1], node.type.shape[2])
            # A mean of the whole window, zeros included, is too small by the share that is border;
            # the factor of each pixel is known now.
            factors = (1 / share).astype(np.float32)[None]
            whole = replace(
                pool, stride=pool.step, padding=_whole(pool, x, node.type), ceil=False,
                count_include_pad=True,
            )  # fmt: skip
            scale = ChainedOp(PixelScale(size), (factors,), node.at)
            return Replacement(whole, node.inputs, (), node.at, (scale,))
    return None


def _padding(node: Node, view: RewriteContext) -> Replacement | None:
    x = view.types[node.inputs[0]]
    match node.op:
        case AvgPool(count_include_pad=True) as pool if any(_emitted(pool, x, node.type)):
            border = Pad(_whole(pool, x, node.type))
            bare = replace(pool, stride=pool.step, padding=(0, 0, 0, 0), ceil=False)
            return _padded(node, view, border, bare)
    return None


def _padded(
    node: Node, view: RewriteContext, border: Pad, op: Conv | MaxPool | AvgPool
) -> Replacement:
    last = ChainedOp(op, view.values(node), node.at)
    return Replacement(border, node.inputs, (), node.at, (last,))


def _lopsided(pads: Quad) -> bool:
    return pads[:2] != pads[2:]


def _split(pads: Quad) -> tuple[Quad, Quad]:
    """Return what one side has more than the other, and what both have."""
    top, left, bottom, right = pads
    down, across = min(top, bottom), min(left, right)
    return (top - down, left - across, bottom - down, right - across), (down, across, down, across)


def _whole(pool: AvgPool | MaxPool, x: TensorType, y: TensorType) -> Quad:
    """Return the border with which all windows are whole, and nothing is left over of it."""
    size, out = (x.shape[1], x.shape[2]), (y.shape[1], y.shape[2])
    return (*pool.pads[:2], *reached(size, pool.kernel, pool.step, pool.pads, out))


def _emitted(pool: AvgPool | MaxPool, x: TensorType, y: TensorType) -> Quad:
    """Return the border that the pooling has in a file: what it says, or what windows reach."""
    top, left, bottom, right = pool.pads
    _, _, down, across = _whole(pool, x, y)
    return top, left, max(bottom, down), max(right, across)


def _counted(pool: AvgPool, x: TensorType, y: TensorType) -> NDArray[np.float64]:
    """Return the share of each window that its mean is of, (output height, output width)."""
    rows, columns = (_overlaps(pool, axis, x.shape[axis + 1], y.shape[axis + 1]) for axis in (0, 1))
    return np.outer(rows, columns) / np.float64(pool.kernel[0] * pool.kernel[1])


def _overlaps(pool: AvgPool, axis: int, size: int, out: int) -> NDArray[np.int64]:
    """Return how many pixels of one axis each window counts."""
    before, after = pool.pads[axis], pool.pads[axis + 2]
    start = np.arange(out) * pool.step[axis] - before
    # ONNX counts a border that is declared, and not what a window in ceil mode reaches beyond it.
    low, high = (-before, size + after) if pool.count_include_pad else (0, size)
    return np.minimum(start + pool.kernel[axis], high) - np.maximum(start, low)
