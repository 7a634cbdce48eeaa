"""Passes that rewrite a model to the operators that the NPU's documents allow."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tcc.backends.pulsar.chips import Toolchain
from tcc.backends.pulsar.rules.checks import MAX_KERNEL, MAX_TAPS
from tcc.compiler.ir.graph import Model, Node, Pass, bounded_pass, exact_pass
from tcc.compiler.ir.op import Call, Const, Op, OpError, Param, require_image_shape
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
from tcc.compiler.ops.window import compute_reached_padding
from tcc.compiler.passes import INFERENCE
from tcc.compiler.passes.fuse_clamps import infer_ranges
from tcc.compiler.passes.lower_linear import find_flattened_map, lower_linear, lower_linear_node
from tcc.compiler.passes.lower_scale_shift import lower_scale_shift


@dataclass(frozen=True, slots=True)
class ChannelTranspose(Op):
    """A channel shuffle in four dimensions: height and width are one of them."""

    keyword: ClassVar[str] = "channel_transpose"
    groups: int

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x.with_shape(require_image_shape(x, self.keyword))

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return channel_shuffle."""
        return (Call("channel_shuffle", ("x0",), {"groups": self.groups}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Reshape, Transpose, Reshape; the batch axis stays open."""
        c, h, w = x.shape
        # The batch size 0 makes Reshape copy it. Height and width are one dimension, so that
        # there are four.
        split, joined = Const((0, self.groups, c // self.groups, h * w)), Const((0, c, h, w))
        return (
            Call("Reshape", ("x0", split), output="r"),
            Call("Transpose", ("r",), {"perm": [0, 2, 1, 3]}, "t"),
            Call("Reshape", ("t", joined)),
        )


@dataclass(frozen=True, slots=True)
class PixelScale(Op):
    """x * weight, per pixel: one factor for all channels. Weight: (1, height, width)."""

    keyword: ClassVar[str] = "pixel_scale"
    size: Pair

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        _, *size = require_image_shape(x, self.keyword)
        if tuple(size) != self.size:
            raise OpError("E0313", "pixel_scale needs one factor per pixel", f"{self.size} for {x}")
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


@bounded_pass(1e-4)
def lower_some_linear(model: Model) -> Model:
    """Rewrite linear layers of feature maps to convolutions, where the kernel is small enough.

    Other linear layers stay, also those whose input was never a map. Identity: within rounding.
    """
    return rewrite(model, _lower_covered)


def _lower_covered(node: Node, view: RewriteContext) -> Replacement | None:
    match node.op:
        case Linear() if not _can_be_kernel(node.inputs[0], view):
            return None
    return lower_linear_node(node, view)


def _can_be_kernel(vector: str, view: RewriteContext) -> bool:
    """Whether a vector was a map that is not larger than the largest kernel."""
    source = find_flattened_map(vector, view)
    if source is None:
        return False
    map_type = view.types[source]
    # The kernel has the size of the map.
    return max(map_type.shape[1:]) <= MAX_KERNEL and map_type.elements <= MAX_TAPS


@bounded_pass(1e-4)
def split_uneven_borders(model: Model) -> Model:
    """Make the padding of convolutions and max poolings symmetric.

    A layer before them adds the difference: zeros, or minus infinity for a maximum whose input
    may be negative. Identity: within rounding, because the order of the sums changes.
    """
    # Computed once: a value's range depends only on earlier nodes.
    ranges_by_value = infer_ranges(model.graph)

    def even_border(node: Node, view: RewriteContext) -> Replacement | None:
        input_type = view.types[node.inputs[0]]
        match node.op:
            case Conv() as conv if _is_asymmetric(conv.pads):
                extra, common = _split(conv.pads)
                return _build_padded(node, view, Pad(extra), replace(conv, padding=common))
            case MaxPool() as pool if _is_asymmetric(
                _compute_emitted_border(pool, input_type, node.type)
            ):
                extra, common = _split(_compute_full_border(pool, input_type, node.type))
                # After a ReLU zeros act like minus infinity, which int8 models do not have.
                low, _ = ranges_by_value.get(node.inputs[0], (-np.inf, np.inf))
                border = Pad(extra, 0.0 if low >= 0 else -np.inf)
                even_pool = replace(pool, stride=pool.step, padding=common, ceil=False)
                return _build_padded(node, view, border, even_pool)
        return None

    return rewrite(model, even_border)


@bounded_pass(1e-4)
def count_borders(model: Model) -> Model:
    """Make average poolings count their padding, and rescale the windows that did not.

    Identity: within rounding.
    """
    return rewrite(model, _count_border)


@bounded_pass(1e-4)
def pad_means(model: Model) -> Model:
    """Move the padding that average poolings count into a layer before them.

    Identity: within rounding, because the order of the sums changes.
    """
    return rewrite(model, _move_border)


def _count_border(node: Node, view: RewriteContext) -> Replacement | None:
    input_type = view.types[node.inputs[0]]
    match node.op:
        case AvgPool() as pool if (
            share := _compute_counted_share(pool, input_type, node.type)
        ).min() < 1:
            size = (node.type.shape[1], node.type.shape[2])
            # A mean over the full window counts padding zeros. Divide each output pixel by the
            # share of its window that counted before.
            factors = (1 / share).astype(np.float32)[None]
            full_pool = replace(
                pool,
                stride=pool.step,
                padding=_compute_full_border(pool, input_type, node.type),
                ceil=False,
                count_include_pad=True,
            )
            scale = ChainedOp(PixelScale(size), (factors,), node.at)
            return Replacement(full_pool, node.inputs, (), node.at, (scale,))
    return None


def _move_border(node: Node, view: RewriteContext) -> Replacement | None:
    input_type = view.types[node.inputs[0]]
    match node.op:
        case AvgPool(count_include_pad=True) as pool if any(
            _compute_emitted_border(pool, input_type, node.type)
        ):
            border = Pad(_compute_full_border(pool, input_type, node.type))
            bare = replace(pool, stride=pool.step, padding=(0, 0, 0, 0), ceil=False)
            return _build_padded(node, view, border, bare)
    return None


def _build_padded(
    node: Node, view: RewriteContext, border: Pad, op: Conv | MaxPool | AvgPool
) -> Replacement:
    padded_op = ChainedOp(op, view.get_weights(node), node.at)
    return Replacement(border, node.inputs, (), node.at, (padded_op,))


def _is_asymmetric(pads: Quad) -> bool:
    return pads[:2] != pads[2:]


def _split(pads: Quad) -> tuple[Quad, Quad]:
    """Return the extra padding of the larger sides, and the symmetric rest."""
    top, left, bottom, right = pads
    down, across = min(top, bottom), min(left, right)
    return (top - down, left - across, bottom - down, right - across), (down, across, down, across)


def _compute_full_border(pool: AvgPool | MaxPool, x: TensorType, y: TensorType) -> Quad:
    """Return the padding with which every window is full and no padding is unused."""
    size, out = (x.shape[1], x.shape[2]), (y.shape[1], y.shape[2])
    return (*pool.pads[:2], *compute_reached_padding(size, pool.kernel, pool.step, pool.pads, out))


def _compute_emitted_border(pool: AvgPool | MaxPool, x: TensorType, y: TensorType) -> Quad:
    """Return the pooling's padding in a file: the declared one, or what windows reach."""
    top, start_column, bottom, end_column = pool.pads
    _, _, down, across = _compute_full_border(pool, x, y)
    return top, start_column, max(bottom, down), max(end_column, across)


def _compute_counted_share(pool: AvgPool, x: TensorType, y: TensorType) -> NDArray[np.float64]:
    """Return the counted share of each window, shape (output height, output width)."""
    rows, columns = (
        _count_pixels(pool, axis, x.shape[axis + 1], y.shape[axis + 1]) for axis in (0, 1)
    )
    return np.outer(rows, columns) / np.float64(pool.kernel[0] * pool.kernel[1])


def _count_pixels(pool: AvgPool, axis: int, size: int, out: int) -> NDArray[np.int64]:
    """Return how many pixels along one axis each window counts."""
    pad_start, pad_end = pool.pads[axis], pool.pads[axis + 2]
    start = np.arange(out) * pool.step[axis] - pad_start
    # ONNX counts declared padding, but not the pixels beyond it that ceil mode reaches.
    low, high = (-pad_start, size + pad_end) if pool.count_include_pad else (0, size)
    return np.minimum(start + pool.kernel[axis], high) - np.maximum(start, low)


@exact_pass
def transpose_shuffles(model: Model) -> Model:
    """Rewrite each channel shuffle as a transpose in four dimensions.

    Identity: exact.
    """
    return rewrite(model, _transpose_shuffle)


@exact_pass
def select_channels(model: Model) -> Model:
    """Rewrite slices with a step above 1 as convolutions with weights 0 and 1.

    Resizing to fewer pixels becomes a max pooling with 1x1 windows, before any enlargement.
    Identity: exact; products with 1 and sums with 0 change nothing.
    """
    return rewrite(model, _select_channels)


def _transpose_shuffle(node: Node, _: RewriteContext) -> Replacement | None:
    match node.op:
        case ChannelShuffle(groups=groups):
            return Replacement(ChannelTranspose(groups), node.inputs, (), node.at)
    return None


def _select_channels(node: Node, view: RewriteContext) -> Replacement | None:
    input_type = view.types[node.inputs[0]]
    match node.op:
        case Slice(step=step) as cut if step > 1 and len(input_type.shape) == 3:
            selected_channels = range(
                *slice(cut.start, cut.stop, cut.step).indices(input_type.shape[0])
            )
            # The NPU slices with step 1 only; a row of zeros and one 1 selects each channel.
            weight = np.eye(input_type.shape[0], dtype=np.float32)[
                list(selected_channels), :, None, None
            ]
            conv = Conv(len(selected_channels), (1, 1), padding=(0, 0, 0, 0), bias=False)
            return Replacement(conv, node.inputs, (weight,), node.at)
        case Resize(mode="nearest") as resize:
            return _sample_pixels(resize, node, input_type.shape)
    return None


def _sample_pixels(resize: Resize, node: Node, shape: tuple[int, ...]) -> Replacement | None:
    """Return a pooling that drops pixels, followed by the remaining resize."""
    output_size = (node.type.shape[1], node.type.shape[2])
    # If one axis grows and the other shrinks, sampling has two steps: drop pixels first, then
    # repeat them.
    down, across = (max(1, size // out) for size, out in zip(shape[1:], output_size, strict=True))
    if (down, across) == (1, 1):
        return None
    pool = MaxPool((1, 1), (down, across), padding=(0, 0, 0, 0))
    if (shape[1] // down, shape[2] // across) == output_size:
        return Replacement(pool, node.inputs, (), node.at)
    return Replacement(pool, node.inputs, (), node.at, (ChainedOp(resize, (), node.at),))


@exact_pass
def gate_convolutions(model: Model) -> Model:
    """Insert an identity depthwise convolution before each hard sigmoid without a convolution.

    Identity: exact.
    """
    return rewrite(model, _insert_gate)


def _insert_gate(node: Node, view: RewriteContext) -> Replacement | None:
    match node.op:
        case HardSigmoid() | HardSwish() if len(node.type.shape) == 3:
            source = view.find_producer(node.inputs[0])
            if source is not None and isinstance(source.op, Conv):
                return None
            channels = node.type.shape[0]
            # One weight per channel is the smallest convolution.
            conv = Conv(channels, (1, 1), padding=(0, 0, 0, 0), groups=channels, bias=False)
            # x * 1 without a sum is exact for every float.
            weight = np.ones((channels, 1, 1, 1), np.float32)
            gate = ChainedOp(node.op, (), node.at)
            return Replacement(conv, node.inputs, (weight,), node.at, (gate,))
    return None


FLOAT_PASSES: Mapping[Toolchain, tuple[Pass, ...]] = {
    Toolchain.PULSAR: (
        *INFERENCE, lower_some_linear, lower_scale_shift,
        count_borders, pad_means, split_uneven_borders, transpose_shuffles, select_channels,
        gate_convolutions,
    ),
    Toolchain.PULSAR2: (
        *INFERENCE, lower_linear, lower_scale_shift, count_borders, transpose_shuffles,
    ),
}  # fmt: skip
"""The passes from the trained model to each toolchain's float model.

Passes that create convolutions come first, because hard sigmoids need one before them."""
