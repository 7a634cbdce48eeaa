"""Pooling."""

from collections.abc import Iterator

import numpy as np

from tcc.compiler.importers.onnx_import.convert.onnx_node import OnnxNode, get_padding
from tcc.compiler.importers.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.importers.onnx_import.tensor_view import View
from tcc.compiler.ir.op import OpError
from tcc.compiler.ir.types import Pair, Quad, TensorType
from tcc.compiler.ops import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool, Op, Scale
from tcc.compiler.ops.window import compute_output_size


def convert_max_pool(node: OnnxNode) -> View:
    """Convert MaxPool."""
    x, kernel, stride, pads, ceil = _get_window(node)
    if len(node.origin.outputs) > 1 and node.origin.outputs[1].outputs:
        raise OperatorRefusal("its output `Indices` is used")
    # Exporters write ceil_mode as more padding at the end. Equal numbers of windows mean the same,
    # because a maximum ignores padding.
    choices = (MaxPool(kernel, stride, p, c) for p, c in _iterate_windows(pads, ceil=ceil))
    return node.emit(
        _choose_fitting(choices, x.type, _compute_output_size(x.type, kernel, stride, pads, ceil)),
        x,
    )


def convert_avg_pool(node: OnnxNode) -> View:
    """Convert AveragePool."""
    x, kernel, stride, pads, ceil = _get_window(node)
    out = _compute_output_size(x.type, kernel, stride, pads, ceil)
    # Here the padding is part of the mean, so it has to be the same as in the file. PyTorch counts
    # it by default, ONNX does not.
    if bool(node.get_attribute("count_include_pad", 0)):
        return node.emit(AvgPool(kernel, stride, pads, ceil), x)
    # Padding that is not counted only moves windows, so equivalent padding is allowed.
    choices = (
        AvgPool(kernel, stride, p, c, count_include_pad=not any(p))
        for p, c in _iterate_windows(pads, ceil=ceil)
    )
    return node.emit(_choose_fitting(choices, x.type, out), x)


def _get_window(node: OnnxNode) -> tuple[View, Pair, Pair, Quad, bool]:
    """Return input, kernel, stride, padding and whether partial windows count."""
    kernel = node.get_pair("kernel_shape", (0, 0))
    # Dilation has no effect on a window of size one.
    if any(d > 1 < k for d, k in zip(node.get_pair("dilations"), kernel, strict=True)):
        raise OperatorRefusal(
            "its window is dilated", "export it without dilation; pooling here has none"
        )
    x, stride = node.get_map(), node.get_pair("strides")
    pads = get_padding(node, (x.type.shape[1], x.type.shape[2]), kernel, stride)
    return x, kernel, stride, pads, bool(node.get_attribute("ceil_mode", 0))


def _compute_output_size(x: TensorType, kernel: Pair, stride: Pair, pads: Quad, ceil: bool) -> Pair:
    try:
        return compute_output_size((x.shape[1], x.shape[2]), kernel, stride, pads, ceil=ceil)
    except OpError as error:
        raise OperatorRefusal(str(error)) from None


def _iterate_windows(pads: Quad, *, ceil: bool) -> Iterator[tuple[Quad, bool]]:
    """Yield paddings and modes that may give the same windows, the simplest first.

    If padding adds nothing to a window, only the number of windows matters.
    """
    even = (pads[0], pads[1], pads[0], pads[1])
    yield even, False
    yield even, True
    yield pads, ceil


def _choose_fitting(choices: Iterator[Op], x: TensorType, out: Pair) -> Op:
    """Return the first op with this output height and width."""
    reason = ""
    for op in choices:
        try:
            if op.infer(x).shape[1:] == out:
                return op
        except OpError as error:
            reason = str(error)
    raise OperatorRefusal(reason or f"no supported padding gives {out[0]}x{out[1]} windows")


def convert_global_avg_pool(node: OnnxNode) -> View:
    """Convert GlobalAveragePool."""
    return node.emit(GlobalAvgPool(), node.get_map())


def convert_global_max_pool(node: OnnxNode) -> View:
    """Convert GlobalMaxPool."""
    return node.emit(GlobalMaxPool(), node.get_map())


def convert_reduce_mean(node: OnnxNode) -> View:
    """Convert ReduceMean over all pixels."""
    return _convert_reduction(node, GlobalAvgPool())


def convert_reduce_sum(node: OnnxNode) -> View:
    """Convert ReduceSum over all pixels: the mean times the number of pixels."""
    # Exact except for the rounding of the mean: it divides by the number of pixels and multiplies
    # by it again, because there is no sum op.
    input_view, mean_view = node.get_view(), _convert_reduction(node, GlobalAvgPool())
    pixels = input_view.type.elements // input_view.type.shape[0]
    return (
        node.emit_elementwise(Scale(float(pixels)), mean_view)
        if mean_view.value != input_view.value
        else mean_view
    )


def convert_reduce_max(node: OnnxNode) -> View:
    """Convert ReduceMax over all pixels."""
    return _convert_reduction(node, GlobalMaxPool())


def _convert_reduction(node: OnnxNode, op: Op) -> View:
    x = node.get_view()
    rank = len(x.shape)
    axis_numbers = node.get_integers("axes", 1)
    # Since opset 18 (13 for sums), no axes means all axes, unless this attribute disables it.
    if not axis_numbers and node.get_attribute("noop_with_empty_axes", 0):
        return x
    axes = sorted({axis % rank for axis in axis_numbers or range(rank)})
    channels, *size = x.type.shape
    pixels = int(np.prod(size, dtype=np.int64))
    reduced_count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    # The order of reduced elements does not matter. Move the reduced axes last, so that each row
    # has the positions reduced to one number. This supports transposed or flattened maps too.
    rows = np.moveaxis(x.compute_positions(), axes, range(-len(axes), 0)).reshape(-1, pixels or 1)
    channel_positions = np.arange(channels * pixels).reshape(channels, pixels)
    is_channel_reduction = reduced_count == pixels and rows.shape == channel_positions.shape
    if not size or not is_channel_reduction or not np.array_equal(np.sort(rows), channel_positions):
        help = "use the mean or maximum of each channel over all pixels"
        raise OperatorRefusal("it reduces axes other than height and width", help)
    pooled = node.emit(op, node.builder.make_view(x.value))
    output_shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    if not node.get_attribute("keepdims", 1):
        output_shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return pooled.transform(lambda index: index.reshape(output_shape), node.name)
