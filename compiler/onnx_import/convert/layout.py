"""Operators that move, choose or repeat elements."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tcc.compiler.ir.types import Shape
from tcc.compiler.onnx_import.convert.call import Array, Call, Operand
from tcc.compiler.onnx_import.graph_builder import Refusal
from tcc.compiler.onnx_import.node_arguments import short
from tcc.compiler.onnx_import.tensor_view import View, along_last_axis, last_axis_channels
from tcc.compiler.ops import Concat, Pad, Resize


def _moved(call: Call, change: Callable[[Any], Any]) -> Operand:
    """Return the first input after a change of its arrangement."""
    found = call.operand(0)
    try:
        if isinstance(found, View):
            return call.build.moved(found.moved(change, call.name))
        return np.asarray(change(found))
    except (ValueError, IndexError) as error:
        if isinstance(error, Refusal):
            raise
        raise Refusal(f"it does not fit its input: {error}") from None


def reshape(call: Call) -> Operand:
    """Convert Reshape."""
    wanted = _needed(call.numbers("shape", 1), "shape")
    before = call.operand(0).shape
    if not call.attribute("allowzero", 0):
        wanted = tuple(before[i] if n == 0 and i < len(before) else n for i, n in enumerate(wanted))
    return _moved(call, lambda x: x.reshape(wanted))


def flatten(call: Call) -> Operand:
    """Convert Flatten."""
    shape = call.operand(0).shape
    axis = int(call.attribute("axis", 1))
    axis += len(shape) if axis < 0 else 0
    rows, columns = (int(np.prod(part, dtype=np.int64)) for part in (shape[:axis], shape[axis:]))
    return _moved(call, lambda x: x.reshape(rows, columns))


def squeeze(call: Call) -> Operand:
    """Convert Squeeze."""
    axes = call.numbers("axes", 1)
    rank = len(call.operand(0).shape)
    if axes is None and rank:
        # The batch axis is 1 only here.
        return _moved(call, lambda x: x.reshape(1, *(n for n in x.shape[1:] if n != 1)))
    return _moved(call, lambda x: np.squeeze(x, axes))


def unsqueeze(call: Call) -> Operand:
    """Convert Unsqueeze."""
    axes = _needed(call.numbers("axes", 1), "axes")
    return _moved(call, lambda x: np.expand_dims(x, axes))


def transpose(call: Call) -> Operand:
    """Convert Transpose."""
    order = call.attribute("perm", None)
    return _moved(call, lambda x: np.transpose(x, order))


def slice_(call: Call) -> Operand:
    """Convert Slice."""
    starts = _needed(call.numbers("starts", 1), "starts")
    ends = _needed(call.numbers("ends", 2), "ends")
    axes = call.numbers("axes", 3) or tuple(range(len(starts)))
    steps = call.numbers("steps", 4) or (1,) * len(starts)
    cuts = [slice(None)] * len(call.operand(0).shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # An end before the first element, counted from the last, is written as a huge negative.
        beyond = step < 0 and end < -call.operand(0).shape[axis]
        cuts[axis] = slice(start, None if beyond else end, step)
    return _moved(call, lambda x: x[tuple(cuts)])


def split(call: Call) -> tuple[Operand, ...]:
    """Convert Split."""
    shape = call.operand(0).shape
    axis = int(call.attribute("axis", 0)) % len(shape)
    count = len(call.node.outputs)
    even = -(-shape[axis] // count)
    sizes = call.numbers("split", 1) or [min(even, shape[axis] - i * even) for i in range(count)]
    bounds = pairwise(accumulate(sizes, initial=0))
    return tuple(_taken(call, np.arange(start, stop), axis) for start, stop in bounds)


def _taken(call: Call, chosen: Array, axis: int) -> Operand:
    return _moved(call, lambda x: np.take(x, chosen, axis))


def gather(call: Call) -> Operand:
    """Convert Gather with constant indices."""
    chosen = call.operand(1)
    if isinstance(chosen, View):
        raise Refusal("which elements it takes is computed")
    return _taken(call, chosen.astype(np.int64), int(call.attribute("axis", 0)))


def expand(call: Call) -> Operand:
    """Convert Expand: one pixel becomes a map of equal ones."""
    wanted = _needed(call.numbers("shape", 1), "shape")
    found = call.operand(0)
    if not isinstance(found, View):
        return np.broadcast_to(found, np.broadcast_shapes(found.shape, wanted))
    shape = np.broadcast_shapes(found.shape, wanted)
    if shape == found.shape:
        return found
    return _spread(call, call.map(), shape)


def _spread(call: Call, x: View, shape: Shape) -> View:
    if len(shape) != 4 or shape[:2] != x.shape[:2] or x.type.shape[1:] != (1, 1):
        raise Refusal("it repeats other axes than height and width")
    return call.emit(Resize((shape[2], shape[3])), x)


def concat(call: Call) -> Operand:
    """Convert Concat of channels."""
    raw = [call.operand(i) for i in range(len(call.inputs))]
    rank = len(raw[0].shape)
    axis = int(call.attribute("axis", 1)) % rank
    if axis != 1 and _of_one(raw):
        return _interleaved(call, axis)
    if any(not isinstance(x, View) for x in raw):
        help = "as the class token of a transformer is; constants can be added or multiplied only"
        raise Refusal("it joins a constant to a value", help)
    if axis == 1 and rank in (2, 4):
        return call.emit(Concat(), *(call.settled(i) for i in range(len(raw))))
    views = [call.view(i) for i in range(len(raw))]
    rows = [last_axis_channels(view) if axis == rank - 1 else None for view in views]
    first = rows[0]
    if first is None or any(row is None or not np.array_equal(row, first) for row in rows):
        raise Refusal("it joins along another axis than the channels")
    value = call.build.emit(call.name, Concat(), [view.value for view in views])
    return along_last_axis(value, call.build.type(value), first)


def _of_one(operands: Sequence[Operand]) -> bool:
    """Whether all are parts of one value."""
    values = {x.value if isinstance(x, View) else "" for x in operands}
    return len(values) == 1 and "" not in values


def _interleaved(call: Call, axis: int) -> Operand:
    """Return parts of one value laid along another axis than the channels, as a shuffle does."""
    parts = [x.positions() for x in call.inputs if isinstance(x, View)]
    joined = np.concatenate(parts, axis)
    return _moved(call, lambda _: joined)


def pad(call: Call) -> View:
    """Convert Pad with a constant around height and width."""
    mode = call.attribute("mode", "constant")
    if mode != "constant":
        help = "train it with a border of zeros, as convolutions have it"
        raise Refusal(f"its border is `{mode}`; only a constant one is known", help)
    x = call.map()
    given = _needed(call.numbers("pads", 1) or call.numbers("paddings", 1), "pads")
    axes = call.numbers("axes", 3) or tuple(range(len(given) // 2))
    widths = dict.fromkeys(range(4), (0, 0))
    for axis, before, after in zip(axes, given, given[len(axes) :], strict=False):
        widths[axis % 4] = (before, after)
    if any(widths[0]) or any(widths[1]) or min(given) < 0:
        raise Refusal("it pads or cuts other than by a border around height and width")
    (top, bottom), (left, right) = widths[2], widths[3]
    return call.emit(Pad((top, left, bottom, right), short(call.scalar("value", 2, 0.0))), x)


def _needed(found: tuple[int, ...] | None, what: str) -> tuple[int, ...]:
    if found is None:
        raise Refusal(f"`{what}` is not given")
    return found
