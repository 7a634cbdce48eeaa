"""Operators that move, select or repeat elements."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tcc.compiler.importers.onnx_import.convert.onnx_node import Array, OnnxNode, Operand
from tcc.compiler.importers.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.importers.onnx_import.node_arguments import round_to_shortest
from tcc.compiler.importers.onnx_import.tensor_view import (
    View,
    find_channels_last_pixels,
    make_channels_last_view,
)
from tcc.compiler.ir.types import Shape
from tcc.compiler.ops import Concat, Pad, Resize


def _transform_view(node: OnnxNode, change: Callable[[Any], Any]) -> Operand:
    """Return the first input after a rearrangement of its elements."""
    operand = node.get_operand(0)
    try:
        if isinstance(operand, View):
            # numpy does the same to positions as the operator does to elements: ONNX adopted its
            # rules for reshaping, slicing and taking.
            return node.builder.resolve_shuffle(operand.transform(change, node.name))
        return np.asarray(change(operand))
    except (ValueError, IndexError) as error:
        if isinstance(error, OperatorRefusal):
            raise
        raise OperatorRefusal(f"it does not fit its input: {error}") from None


def convert_reshape(node: OnnxNode) -> Operand:
    """Convert Reshape."""
    target_shape = _require_argument(node.get_integers("shape", 1), "shape")
    input_shape = node.get_operand(0).shape
    # ONNX: 0 keeps the size of the axis, unless `allowzero` makes it a size.
    if not node.get_attribute("allowzero", 0):
        # -1 has the same meaning in numpy.
        target_shape = tuple(
            input_shape[i] if n == 0 and i < len(input_shape) else n
            for i, n in enumerate(target_shape)
        )
    return _transform_view(node, lambda x: x.reshape(target_shape))


def convert_flatten(node: OnnxNode) -> Operand:
    """Convert Flatten."""
    shape = node.get_operand(0).shape
    axis = int(node.get_attribute("axis", 1))
    # Not modulo the rank: the rank itself is a valid axis, after all others.
    axis += len(shape) if axis < 0 else 0
    rows, columns = (int(np.prod(part, dtype=np.int64)) for part in (shape[:axis], shape[axis:]))
    return _transform_view(node, lambda x: x.reshape(rows, columns))


def convert_squeeze(node: OnnxNode) -> Operand:
    """Convert Squeeze."""
    axes = node.get_integers("axes", 1)
    rank = len(node.get_operand(0).shape)
    if axes is None and rank:
        # Keep the batch axis, although its size is 1.
        return _transform_view(node, lambda x: x.reshape(1, *(n for n in x.shape[1:] if n != 1)))
    return _transform_view(node, lambda x: np.squeeze(x, axes))


def convert_unsqueeze(node: OnnxNode) -> Operand:
    """Convert Unsqueeze."""
    axes = _require_argument(node.get_integers("axes", 1), "axes")
    return _transform_view(node, lambda x: np.expand_dims(x, axes))


def convert_transpose(node: OnnxNode) -> Operand:
    """Convert Transpose."""
    order = node.get_attribute("perm", None)
    return _transform_view(node, lambda x: np.transpose(x, order))


def convert_slice(node: OnnxNode) -> Operand:
    """Convert Slice."""
    starts = _require_argument(node.get_integers("starts", 1), "starts")
    stops = _require_argument(node.get_integers("ends", 2), "ends")
    # Attributes until opset 9, inputs since 10.
    axes = node.get_integers("axes", 3) or tuple(range(len(starts)))
    steps = node.get_integers("steps", 4) or (1,) * len(starts)
    cuts = [slice(None)] * len(node.get_operand(0).shape)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        # An end before the first element, counted from the last, is a large negative number.
        is_before_start = step < 0 and stop < -node.get_operand(0).shape[axis]
        cuts[axis] = slice(start, None if is_before_start else stop, step)
    return _transform_view(node, lambda x: x[tuple(cuts)])


def convert_split(node: OnnxNode) -> tuple[Operand, ...]:
    """Convert Split."""
    shape = node.get_operand(0).shape
    axis = int(node.get_attribute("axis", 0)) % len(shape)
    count = len(node.origin.outputs)
    # ONNX: parts of equal size, of which the last may be smaller. Since opset 18 `num_outputs` need
    # not divide the axis; before, exporters wrote equal parts.
    even = -(-shape[axis] // count)
    sizes = node.get_integers("split", 1) or [
        min(even, shape[axis] - i * even) for i in range(count)
    ]
    bounds = pairwise(accumulate(sizes, initial=0))
    return tuple(_take_indices(node, np.arange(start, stop), axis) for start, stop in bounds)


def _take_indices(node: OnnxNode, indices: Array, axis: int) -> Operand:
    return _transform_view(node, lambda x: np.take(x, indices, axis))


def convert_gather(node: OnnxNode) -> Operand:
    """Convert Gather with constant indices."""
    # Negative indices count from the end, as in numpy.
    indices = node.get_operand(1)
    if isinstance(indices, View):
        raise OperatorRefusal("its indices are computed at run time")
    return _take_indices(node, indices.astype(np.int64), int(node.get_attribute("axis", 0)))


def convert_expand(node: OnnxNode) -> Operand:
    """Convert Expand: one pixel becomes a map of equal pixels."""
    target_shape = _require_argument(node.get_integers("shape", 1), "shape")
    operand = node.get_operand(0)
    if not isinstance(operand, View):
        return np.broadcast_to(operand, np.broadcast_shapes(operand.shape, target_shape))
    shape = np.broadcast_shapes(operand.shape, target_shape)
    if shape == operand.shape:
        return operand
    return _expand_pixel(node, node.get_map(), shape)


def _expand_pixel(node: OnnxNode, x: View, shape: Shape) -> View:
    if len(shape) != 4 or shape[:2] != x.shape[:2] or x.type.shape[1:] != (1, 1):
        raise OperatorRefusal("it repeats axes other than height and width")
    # Nearest resampling of one pixel repeats it everywhere. For a sum or product, `find_unexpanded`
    # reverts this.
    return node.emit(Resize((shape[2], shape[3])), x)


def convert_concat(node: OnnxNode) -> Operand:
    """Convert Concat of channels."""
    operands = [node.get_operand(i) for i in range(len(node.inputs))]
    rank = len(operands[0].shape)
    axis = int(node.get_attribute("axis", 1)) % rank
    # A channel shuffle that was written as a split and a join.
    if axis != 1 and _is_one_value(operands):
        return _concat_parts(node, axis)
    if any(not isinstance(x, View) for x in operands):
        help = (
            "constants can only be added or multiplied; class tokens of transformers are"
            " not supported"
        )
        raise OperatorRefusal("it concatenates a constant with a value", help)
    if axis == 1 and rank in (2, 4):
        return node.emit(Concat(), *(node.get_materialized(i) for i in range(len(operands))))
    views = [node.get_view(i) for i in range(len(operands))]
    rows = [find_channels_last_pixels(view) if axis == rank - 1 else None for view in views]
    # Channels last, all views with the same pixel order: this is a concatenation of channels.
    pixel_order = rows[0]
    if pixel_order is None or any(
        row is None or not np.array_equal(row, pixel_order) for row in rows
    ):
        raise OperatorRefusal("its axis is not the channels")
    value = node.builder.emit(node.name, Concat(), [view.value for view in views])
    return make_channels_last_view(value, node.builder.get_type(value), pixel_order)


def _is_one_value(operands: Sequence[Operand]) -> bool:
    """Whether all are parts of one value."""
    value_names = {x.value if isinstance(x, View) else "" for x in operands}
    return len(value_names) == 1 and "" not in value_names


def _concat_parts(node: OnnxNode, axis: int) -> Operand:
    """Return parts of one value joined along another axis than channels, as in a shuffle."""
    parts = [x.compute_positions() for x in node.inputs if isinstance(x, View)]
    joined = np.concatenate(parts, axis)
    return _transform_view(node, lambda _: joined)


def convert_pad(node: OnnxNode) -> View:
    """Convert Pad with a constant around height and width."""
    mode = node.get_attribute("mode", "constant")
    if mode != "constant":
        help = "train the network with zero padding"
        raise OperatorRefusal(f"its mode is `{mode}`; only `constant` is supported", help)
    x = node.get_map()
    pad_numbers = _require_argument(node.get_integers("pads", 1), "pads")
    axes = node.get_integers("axes", 3) or tuple(range(len(pad_numbers) // 2))
    # All starts come before all ends; since opset 18 only for the axes in `axes`.
    widths = dict.fromkeys(range(4), (0, 0))
    for axis, width_before, width_after in zip(
        axes, pad_numbers, pad_numbers[len(axes) :], strict=False
    ):
        widths[axis % 4] = (width_before, width_after)
    if any(widths[0]) or any(widths[1]) or min(pad_numbers) < 0:
        raise OperatorRefusal("it crops, or pads axes other than height and width")
    (pad_top, pad_bottom), (pad_left, pad_right) = widths[2], widths[3]
    return node.emit(
        Pad(
            (pad_top, pad_left, pad_bottom, pad_right),
            round_to_shortest(node.get_scalar("value", 2, 0.0)),
        ),
        x,
    )


def _require_argument(numbers: tuple[int, ...] | None, name: str) -> tuple[int, ...]:
    if numbers is None:
        raise OperatorRefusal(f"its argument `{name}` is missing")
    return numbers
