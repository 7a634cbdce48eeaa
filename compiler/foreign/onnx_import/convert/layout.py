"""Operators that move, choose or repeat elements."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tcc.compiler.foreign.onnx_import.convert.onnx_node import Array, OnnxNode, Operand
from tcc.compiler.foreign.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.foreign.onnx_import.node_arguments import short
from tcc.compiler.foreign.onnx_import.tensor_view import View, along_last_axis, last_axis_channels
from tcc.compiler.ir.types import Shape
from tcc.compiler.ops import Concat, Pad, Resize


def _moved(node: OnnxNode, change: Callable[[Any], Any]) -> Operand:
    """Return the first input after a change of its arrangement."""
    found = node.operand(0)
    try:
        if isinstance(found, View):
            # numpy does to positions what the operator does to elements: its rules for reshaping,
            # slicing and taking are those of ONNX, which were taken from it.
            return node.build.moved(found.moved(change, node.name))
        return np.asarray(change(found))
    except (ValueError, IndexError) as error:
        if isinstance(error, OperatorRefusal):
            raise
        raise OperatorRefusal(f"it does not fit its input: {error}") from None


def reshape(node: OnnxNode) -> Operand:
    """Convert Reshape."""
    wanted = _needed(node.numbers("shape", 1), "shape")
    before = node.operand(0).shape
    # ONNX: 0 keeps what the axis has, unless `allowzero` says that it is a size.
    if not node.attribute("allowzero", 0):
        # -1 is left to numpy, which means the same by it.
        wanted = tuple(before[i] if n == 0 and i < len(before) else n for i, n in enumerate(wanted))
    return _moved(node, lambda x: x.reshape(wanted))


def flatten(node: OnnxNode) -> Operand:
    """Convert Flatten."""
    shape = node.operand(0).shape
    axis = int(node.attribute("axis", 1))
    # Not modulo the rank: the rank itself is a valid axis, behind all.
    axis += len(shape) if axis < 0 else 0
    rows, columns = (int(np.prod(part, dtype=np.int64)) for part in (shape[:axis], shape[axis:]))
    return _moved(node, lambda x: x.reshape(rows, columns))


def squeeze(node: OnnxNode) -> Operand:
    """Convert Squeeze."""
    axes = node.numbers("axes", 1)
    rank = len(node.operand(0).shape)
    if axes is None and rank:
        # The batch axis is 1 only here.
        return _moved(node, lambda x: x.reshape(1, *(n for n in x.shape[1:] if n != 1)))
    return _moved(node, lambda x: np.squeeze(x, axes))


def unsqueeze(node: OnnxNode) -> Operand:
    """Convert Unsqueeze."""
    axes = _needed(node.numbers("axes", 1), "axes")
    return _moved(node, lambda x: np.expand_dims(x, axes))


def transpose(node: OnnxNode) -> Operand:
    """Convert Transpose."""
    order = node.attribute("perm", None)
    return _moved(node, lambda x: np.transpose(x, order))


def slice_(node: OnnxNode) -> Operand:
    """Convert Slice."""
    starts = _needed(node.numbers("starts", 1), "starts")
    ends = _needed(node.numbers("ends", 2), "ends")
    # Attributes until opset 9, inputs since 10.
    axes = node.numbers("axes", 3) or tuple(range(len(starts)))
    steps = node.numbers("steps", 4) or (1,) * len(starts)
    cuts = [slice(None)] * len(node.operand(0).shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # An end before the first element, counted from the last, is written as a huge negative.
        beyond = step < 0 and end < -node.operand(0).shape[axis]
        cuts[axis] = slice(start, None if beyond else end, step)
    return _moved(node, lambda x: x[tuple(cuts)])


def split(node: OnnxNode) -> tuple[Operand, ...]:
    """Convert Split."""
    shape = node.operand(0).shape
    axis = int(node.attribute("axis", 0)) % len(shape)
    count = len(node.origin.outputs)
    # ONNX: parts of equal size, of which the last may be smaller.
    # `num_outputs` of opset 18 need not divide the axis; before, exporters gave equal parts.
    even = -(-shape[axis] // count)
    sizes = node.numbers("split", 1) or [min(even, shape[axis] - i * even) for i in range(count)]
    bounds = pairwise(accumulate(sizes, initial=0))
    return tuple(_taken(node, np.arange(start, stop), axis) for start, stop in bounds)


def _taken(node: OnnxNode, chosen: Array, axis: int) -> Operand:
    return _moved(node, lambda x: np.take(x, chosen, axis))


def gather(node: OnnxNode) -> Operand:
    """Convert Gather with constant indices."""
    # Negative indices count from the end, as in numpy.
    chosen = node.operand(1)
    if isinstance(chosen, View):
        raise OperatorRefusal("its indices are computed while the network runs")
    return _taken(node, chosen.astype(np.int64), int(node.attribute("axis", 0)))


def expand(node: OnnxNode) -> Operand:
    """Convert Expand: one pixel becomes a map of equal ones."""
    wanted = _needed(node.numbers("shape", 1), "shape")
    found = node.operand(0)
    if not isinstance(found, View):
        return np.broadcast_to(found, np.broadcast_shapes(found.shape, wanted))
    shape = np.broadcast_shapes(found.shape, wanted)
    if shape == found.shape:
        return found
    return _spread(node, node.map(), shape)


def _spread(node: OnnxNode, x: View, shape: Shape) -> View:
    if len(shape) != 4 or shape[:2] != x.shape[:2] or x.type.shape[1:] != (1, 1):
        raise OperatorRefusal("it repeats other axes than height and width")
    # Nearest resampling of one pixel is that pixel everywhere. Where a sum or product reads it,
    # `unspread` takes it back.
    return node.emit(Resize((shape[2], shape[3])), x)


def concat(node: OnnxNode) -> Operand:
    """Convert Concat of channels."""
    raw = [node.operand(i) for i in range(len(node.inputs))]
    rank = len(raw[0].shape)
    axis = int(node.attribute("axis", 1)) % rank
    # A channel shuffle that was written by splitting and joining again.
    if axis != 1 and _of_one(raw):
        return _interleaved(node, axis)
    if any(not isinstance(x, View) for x in raw):
        help = "as the class token of a transformer is; constants can be added or multiplied only"
        raise OperatorRefusal("it joins a constant to a value", help)
    if axis == 1 and rank in (2, 4):
        return node.emit(Concat(), *(node.settled(i) for i in range(len(raw))))
    views = [node.view(i) for i in range(len(raw))]
    rows = [last_axis_channels(view) if axis == rank - 1 else None for view in views]
    # Channels last, all views in one order of pixels: then it is a concatenation of channels.
    first = rows[0]
    if first is None or any(row is None or not np.array_equal(row, first) for row in rows):
        raise OperatorRefusal("it joins along another axis than the channels")
    value = node.build.emit(node.name, Concat(), [view.value for view in views])
    return along_last_axis(value, node.build.type(value), first)


def _of_one(operands: Sequence[Operand]) -> bool:
    """Whether all are parts of one value."""
    values = {x.value if isinstance(x, View) else "" for x in operands}
    return len(values) == 1 and "" not in values


def _interleaved(node: OnnxNode, axis: int) -> Operand:
    """Return parts of one value laid along another axis than the channels, as a shuffle does."""
    parts = [x.positions() for x in node.inputs if isinstance(x, View)]
    joined = np.concatenate(parts, axis)
    return _moved(node, lambda _: joined)


def pad(node: OnnxNode) -> View:
    """Convert Pad with a constant around height and width."""
    mode = node.attribute("mode", "constant")
    if mode != "constant":
        help = "train it with a border of zeros, as convolutions have it"
        raise OperatorRefusal(f"its border is `{mode}`; only a constant one is known", help)
    x = node.map()
    given = _needed(node.numbers("pads", 1), "pads")
    axes = node.numbers("axes", 3) or tuple(range(len(given) // 2))
    # All starts come before all ends; since opset 18 for the axes that are named alone.
    widths = dict.fromkeys(range(4), (0, 0))
    for axis, before, after in zip(axes, given, given[len(axes) :], strict=False):
        widths[axis % 4] = (before, after)
    if any(widths[0]) or any(widths[1]) or min(given) < 0:
        raise OperatorRefusal("it pads or cuts other than by a border around height and width")
    (top, bottom), (left, right) = widths[2], widths[3]
    return node.emit(Pad((top, left, bottom, right), short(node.scalar("value", 2, 0.0))), x)


def _needed(found: tuple[int, ...] | None, what: str) -> tuple[int, ...]:
    if found is None:
        raise OperatorRefusal(f"`{what}` is not given")
    return found
