"""Passes that make of a model one that the NPU's documents allow, and the ops that they make."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tcc.backends.pulsar.chips import Toolchain
from tcc.backends.pulsar.rules.checks import LARGEST_KERNEL, MOST_TAPS
from tcc.compiler.ir.graph import Model, Node, Pass, exact, within
from tcc.compiler.ir.op import Call, Const, Op, OpError, Param, image
from tcc.compiler.ir.rewrite import ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ir.types import Pair, Quad, TensorType
from tcc.compiler.ops import (
    AvgPool,
    ChannelShuffle,
    Conv,
    HardSigmoid,
    HardSwish,
    Linear,
    MaxPool,
    Pad,
    Resize,
    Slice,
)
from tcc.compiler.ops.window import reached
from tcc.compiler.passes import INFERENCE
from tcc.compiler.passes.fuse_clamps import ranges
from tcc.compiler.passes.lower_linear import flattened_map, lower_linear, on_maps
from tcc.compiler.passes.lower_scale_shift import lower_scale_shift


@dataclass(frozen=True, slots=True)
class ChannelTranspose(Op):
    """A channel shuffle in four dimensions: the pixels are one of them."""

    word: ClassVar[str] = "channel_transpose"
    groups: int

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x.like(image(x, self.word))

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return channel_shuffle."""
        return (Call("channel_shuffle", ("x0",), {"groups": self.groups}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Reshape, Transpose, Reshape; the batch axis stays open."""
        c, h, w = x.shape
        # The batch is 0, which a Reshape copies; height and width are one dimension, so that there
        # are four.
        split, joined = Const((0, self.groups, c // self.groups, h * w)), Const((0, c, h, w))
        return (
            Call("Reshape", ("x0", split), output="r"),
            Call("Transpose", ("r",), {"perm": [0, 2, 1, 3]}, "t"),
            Call("Reshape", ("t", joined)),
        )


@dataclass(frozen=True, slots=True)
class PixelScale(Op):
    """x * weight, per pixel: one factor for all channels. Weight: (1, height, width)."""

    word: ClassVar[str] = "pixel_scale"
    size: Pair

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        _, *size = image(x, self.word)
        if tuple(size) != self.size:
            raise OpError("E0313", "pixel_scale needs a factor a pixel", f"{self.size} for {x}")
        return x

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the factors."""
        return (Param("weight", (1, *self.size)),)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return mul."""
        return (Call("mul", ("x0", "weight")),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Mul."""
        return (Call("Mul", ("x0", "weight")),)


@within(1e-4)
def lower_some_linear(model: Model) -> Model:
    """Make each linear layer of a map that a convolution may cover a convolution.

    Others stay, as does one of a vector, which was no map. Identity: within rounding.
    """
    return rewrite(model, _lower_covered)


def _lower_covered(node: Node, view: RewriteContext) -> Replacement | None:
    match node.op:
        case Linear() if not _covered(node.inputs[0], view):
            return None
    return on_maps(node, view)


def _covered(value: str, view: RewriteContext) -> bool:
    """Whether a vector was a map that is no larger than a kernel may be."""
    source = flattened_map(value, view)
    if source is None:
        return False
    x = view.types[source]
    # The kernel would be the whole map.
    return max(x.shape[1:]) <= LARGEST_KERNEL and x.elements <= MOST_TAPS


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


@exact
def gate_convolutions(model: Model) -> Model:
    """Put a depthwise convolution that changes nothing before each hard sigmoid without one.

    Identity: exact.
    """
    return rewrite(model, _gate)


def _gate(node: Node, view: RewriteContext) -> Replacement | None:
    match node.op:
        case HardSigmoid() | HardSwish() if len(node.type.shape) == 3:
            source = view.producer(node.inputs[0])
            if source is not None and isinstance(source.op, Conv):
                return None
            channels = node.type.shape[0]
            # One product a channel, the least that counts as a convolution.
            conv = Conv(channels, (1, 1), padding=(0, 0, 0, 0), groups=channels, bias=False)
            # x * 1, with nothing added: exact for every float.
            weight = np.ones((channels, 1, 1, 1), np.float32)
            gate = ChainedOp(node.op, (), node.at)
            return Replacement(conv, node.inputs, (weight,), node.at, (gate,))
    return None


FLOAT: Mapping[Toolchain, tuple[Pass, ...]] = {
    Toolchain.PULSAR: (
        *INFERENCE, lower_some_linear, lower_scale_shift,
        count_borders, pad_means, even_borders, transpose_shuffles, select_channels,
        gate_convolutions,
    ),
    Toolchain.PULSAR2: (
        *INFERENCE, lower_linear, lower_scale_shift, count_borders, transpose_shuffles,
    ),
}  # fmt: skip
"""From what is trained to the float model that each toolchain is given.

What is a convolution comes first, since hard sigmoids look for it."""
