"""Operators with weights: convolutions, linear layers, normalization."""

import numpy as np

from tcc.compiler.importers.onnx_import.convert.onnx_node import Array, OnnxNode, get_padding
from tcc.compiler.importers.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.importers.onnx_import.node_arguments import (
    get_computed_input_name,
    round_to_shortest,
)
from tcc.compiler.importers.onnx_import.refusal_causes import ATTENTION, explain_attention
from tcc.compiler.importers.onnx_import.tensor_view import (
    View,
    find_channels_last_pixels,
    make_channels_last_view,
)
from tcc.compiler.ir.types import Pair
from tcc.compiler.ops import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Flatten,
    LayerNorm,
    Linear,
    ScaleShift,
)
from tcc.compiler.ops.window import compute_dilated_extent


def convert_conv(node: OnnxNode) -> View:
    """Convert Conv."""
    x, weight, bias = _get_conv_operands(node)
    kernel, stride, dilation = (
        weight.shape[2:],
        node.get_pair("strides"),
        node.get_pair("dilations"),
    )
    groups = int(node.get_attribute("group", 1))
    window = compute_dilated_extent(kernel, dilation)
    pads = get_padding(node, (x.type.shape[1], x.type.shape[2]), window, stride)
    op = Conv(weight.shape[0], kernel, stride, pads, dilation, groups, bool(bias))
    return node.emit(op, x, weights=[weight, *bias])


def convert_conv_transpose(node: OnnxNode) -> View:
    """Convert ConvTranspose.

    The crop of its result can differ between sides. A smaller crop at the end is extra rows, which
    the op supports. Other differences are expressed with rows of zeros in the kernel.
    """
    x, weight, bias = _get_conv_operands(node)
    stride, dilation = node.get_pair("strides"), node.get_pair("dilations")
    groups = int(node.get_attribute("group", 1))
    cuts = _compute_cuts(node, x, weight.shape[2:], stride, dilation)
    axis_settings = list(zip(cuts, stride, dilation, strict=True))
    zeros = [_compute_zero_rows(start - end, s, d) for (start, end), s, d in axis_settings]
    (cut_top, cut_bottom), (cut_left, cut_right) = (
        (start + rows_before * d, end + rows_after * d)
        for ((start, end), _, d), (rows_before, rows_after) in zip(
            axis_settings, zeros, strict=True
        )
    )
    # Rows of zeros do not change sums; they only move the start and end of the result.
    weight = np.pad(weight, ((0, 0), (0, 0), *zeros))
    kernel, extra = weight.shape[2:], (cut_top - cut_bottom, cut_left - cut_right)
    filters = weight.shape[1] * groups
    op = ConvTranspose(
        filters, kernel, stride, (cut_top, cut_left), extra, dilation, groups, bool(bias)
    )
    return node.emit(op, x, weights=[weight, *bias])


def _compute_cuts(
    node: OnnxNode, x: View, kernel: Pair, stride: Pair, dilation: Pair
) -> list[Pair]:
    """Return the crop at the start and end of the full result, for each axis.

    Rows added at the end reduce the crop there.
    """
    window, size = compute_dilated_extent(kernel, dilation), x.type.shape[1:]
    extra = node.get_pair("output_padding", (0, 0))
    auto = str(node.get_attribute("auto_pad", "NOTSET"))
    output_shape = (
        node.get_pair("output_shape", (0, 0)) if "output_shape" in node.origin.attrs else None
    )
    # ONNX, ConvTranspose: with SAME_* the output size is the input size times the stride.
    if output_shape is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        output_shape = (size[0] * stride[0], size[1] * stride[1])
    if output_shape is None:
        cut_top, cut_left, cut_bottom, cut_right = get_padding(node, (0, 0), kernel, stride)
        return [(cut_top, cut_bottom - extra[0]), (cut_left, cut_right - extra[1])]
    cuts = []
    for n, out, k, s, extra_rows in zip(size, output_shape, window, stride, extra, strict=True):
        # `total_padding` of ONNX, ConvTranspose.
        total_cut = max((n - 1) * s + k + extra_rows - out, 0)
        half_cut = total_cut // 2
        # ONNX, ConvTranspose: only SAME_UPPER cuts the odd row at the end.
        start = half_cut if auto == "SAME_UPPER" else total_cut - half_cut
        cuts.append((start, (n - 1) * s + k - start - out))
    return cuts


def _compute_zero_rows(excess: int, stride: int, dilation: int) -> Pair:
    """Return the number of zero rows to add before and after a kernel.

    `excess` is the crop at the start minus the crop at the end. The rows bring it into the range
    from 0 to the largest number of rows that the op can add.
    """
    rows_before = max(-(excess // dilation), 0) if excess < 0 else 0
    max_excess = max(stride, dilation) - 1
    rows_after = max(-((max_excess - excess) // dilation), 0) if excess > max_excess else 0
    return (rows_before, rows_after)


def _get_conv_operands(node: OnnxNode) -> tuple[View, Array, list[Array]]:
    """Return a convolution's input, weight and, in a list, its bias."""
    weight = node.get_weights(1)
    # Conv1d and Conv3d are the same operator with another rank.
    if weight.ndim != 4:
        raise OperatorRefusal(
            f"it has {weight.ndim - 2} spatial axes; only 2 are supported (height, width)"
        )
    bias = [node.get_weights(2)] if node.has_input(2) else []
    return node.get_map(), weight, bias


def convert_gemm(node: OnnxNode) -> View:
    """Convert Gemm: alpha * x @ weight + beta * bias."""
    if node.get_attribute("transA", 0):
        raise OperatorRefusal(
            "it transposes its input", "export it as a linear layer, with transA=0"
        )
    weight = node.get_weights(1) * np.float32(node.get_attribute("alpha", 1.0))
    if weight.ndim != 2:
        raise OperatorRefusal(f"its weight has {weight.ndim} axes, not 2")
    # Weights use PyTorch's layout, (units, features), which is that of Gemm with transB.
    weight = weight if node.get_attribute("transB", 0) else weight.T
    beta = np.float32(node.get_attribute("beta", 1.0))
    bias = (
        [_broadcast_bias(node.get_weights(2) * beta, weight.shape[0])] if node.has_input(2) else []
    )
    return _build_linear(node, weight, bias)


def convert_matmul(node: OnnxNode) -> View:
    """Convert MatMul with a constant."""
    if isinstance(node.get_operand(1), View):
        raise OperatorRefusal(ATTENTION, explain_attention(get_computed_input_name(node.origin)))
    weight = node.get_weights(1)
    if weight.ndim != 2:
        raise OperatorRefusal(f"its weight has {weight.ndim} axes, not 2")
    # The bias is an Add after it, which `simplify` merges.
    return _build_linear(node, weight.T, [])


def _broadcast_bias(bias: Array, units: int) -> Array:
    try:
        return np.ascontiguousarray(np.broadcast_to(bias, (1, units)).reshape(units))
    except ValueError:
        raise OperatorRefusal(
            f"its bias has shape {list(bias.shape)}, not one number per unit"
        ) from None


def _build_linear(node: OnnxNode, weight: Array, bias: list[Array]) -> View:
    """Return a matrix product over the last axis: of a vector, or of each pixel's channels."""
    x = node.get_view()
    units = weight.shape[0]
    # First the usual classifier head, then a matrix on a map flattened with channels last, then
    # the per-pixel layers of transformers and ConvNeXt.
    if x.is_materialized and len(x.type.shape) == 1:
        return node.emit(Linear(units, bool(bias)), x, weights=[weight, *bias])
    if len(x.shape) == 2 and x.shape[0] == 1 and x.is_complete():
        return _build_linear_of_map(node, x, weight, bias)
    row = find_channels_last_pixels(x) if len(x.type.shape) == 3 else None
    if row is None:
        raise OperatorRefusal("its input is neither a vector nor the channels of each pixel")
    op = Conv(units, (1, 1), bias=bool(bias))
    conv_value = node.builder.emit(node.name, op, [x.value], [weight[:, :, None, None], *bias])
    return make_channels_last_view(conv_value, node.builder.get_type(conv_value), row)


def _build_linear_of_map(node: OnnxNode, x: View, weight: Array, bias: list[Array]) -> View:
    """Return a matrix product with a map that was flattened in another order."""
    flat = node.builder.emit("", Flatten(), [x.value])
    # Move the columns to the positions of their elements in a flattening by channels.
    ordered = np.empty_like(weight)
    ordered[:, x.compute_positions().ravel()] = weight
    op = Linear(weight.shape[0], bool(bias))
    return node.emit(op, node.builder.make_view(flat), weights=[ordered, *bias])


def convert_batch_norm(node: OnnxNode) -> View:
    """Convert BatchNormalization in inference mode."""
    if node.get_attribute("training_mode", 0):
        raise OperatorRefusal(
            "it normalizes with batch statistics", "export the network in eval mode"
        )
    # ONNX's inputs after the first, scale, B, mean and var, are in the order of the op's weights.
    op = BatchNorm(round_to_shortest(node.get_attribute("epsilon", 1e-5)))
    return node.emit(
        op, node.get_materialized(), weights=[node.get_weights(i) for i in (1, 2, 3, 4)]
    )


def convert_layer_norm(node: OnnxNode) -> View:
    """Convert LayerNormalization, which normalizes from an axis to the last one."""
    x = node.get_view()
    axis = int(node.get_attribute("axis", -1)) % len(x.shape)
    if axis != len(x.shape) - 1:
        help = (
            "train the network with layer norms over the channels of each pixel, or with"
            " batch norms"
        )
        raise OperatorRefusal("it normalizes over several axes, not only over the channels", help)
    return convert_channel_norm(node, axis)


def convert_channel_norm(node: OnnxNode, axis: int | None = None) -> View:
    """Convert normalization along one axis, which must be the channels."""
    x = node.get_view()
    rank = len(x.shape)
    axis = int(node.get_attribute("axis", -1)) % rank if axis is None else axis
    # ConvNeXt transposes to channels last, normalizes the last axis and transposes back. As a view
    # this is a normalization of channels, without a transposition.
    if rank > 2 and axis == rank - 1:
        is_channel_axis = find_channels_last_pixels(x) is not None
    else:
        is_channel_axis = x.is_materialized and axis == 1
    if not is_channel_axis:
        raise OperatorRefusal("its axis is not the channels")
    c = (x.type.shape[0], *(1 for _ in x.type.shape[1:]))
    # A norm without weights (`elementwise_affine=False`) was fused without weight inputs.
    weight = node.get_weights(1).reshape(c) if node.has_input(1) else np.ones(c, np.float32)
    bias = node.get_weights(2).reshape(c) if node.has_input(2) else np.zeros(c, np.float32)
    op = LayerNorm(round_to_shortest(node.get_attribute("epsilon", 1e-5)))
    value = node.builder.emit(node.name, op, [x.value], [weight, bias])
    return x.replace_value(value, node.builder.get_type(value))


def add_scale_shift(node: OnnxNode, x: View, weight: Array, bias: Array) -> View:
    """Return a value times one constant per channel plus another; both broadcast.

    Args:
        node: The node to convert.
        x: A value of maps or vectors.
        weight: (channels, 1, 1) for maps, (features,) for vectors.
        bias: The same shape.
    """
    value = node.builder.emit(node.name, ScaleShift(), [x.value], [weight, bias])
    return x.replace_value(value, node.builder.get_type(value))
