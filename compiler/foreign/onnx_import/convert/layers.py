"""Operators with weights: convolutions, linear layers, normalisation."""

import numpy as np

from tcc.compiler.foreign.onnx_import.convert.onnx_node import Array, OnnxNode, pads_of
from tcc.compiler.foreign.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.foreign.onnx_import.node_arguments import before, short
from tcc.compiler.foreign.onnx_import.refusal_causes import ATTENTION, attention
from tcc.compiler.foreign.onnx_import.tensor_view import View, along_last_axis, last_axis_channels
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
from tcc.compiler.ops.window import effective


def conv(node: OnnxNode) -> View:
    """Convert Conv."""
    x, weight, bias = _convolved(node)
    kernel, stride, dilation = weight.shape[2:], node.pair("strides"), node.pair("dilations")
    groups = int(node.attribute("group", 1))
    window = effective(kernel, dilation)
    pads = pads_of(node, (x.type.shape[1], x.type.shape[2]), window, stride)
    op = Conv(weight.shape[0], kernel, stride, pads, dilation, groups, bool(bias))
    return node.emit(op, x, weights=[weight, *bias])


def conv_transpose(node: OnnxNode) -> View:
    """Convert ConvTranspose.

    What is cut off its result differs from side to side: less at the end are rows that the step
    adds there; more at the end, or less than it may add, is a kernel with rows of zeros.
    """
    x, weight, bias = _convolved(node)
    stride, dilation = node.pair("strides"), node.pair("dilations")
    groups = int(node.attribute("group", 1))
    cuts = _cuts(node, x, weight.shape[2:], stride, dilation)
    each = list(zip(cuts, stride, dilation, strict=True))
    zeros = [_zeros(start - end, s, d) for (start, end), s, d in each]
    (top, bottom), (left, right) = (
        (start + before * d, end + after * d)
        for ((start, end), _, d), (before, after) in zip(each, zeros, strict=True)
    )
    # Rows of zeros change no sum; they move where the result begins and ends.
    weight = np.pad(weight, ((0, 0), (0, 0), *zeros))
    kernel, extra = weight.shape[2:], (top - bottom, left - right)
    filters = weight.shape[1] * groups
    op = ConvTranspose(filters, kernel, stride, (top, left), extra, dilation, groups, bool(bias))
    return node.emit(op, x, weights=[weight, *bias])


def _cuts(node: OnnxNode, x: View, kernel: Pair, stride: Pair, dilation: Pair) -> list[Pair]:
    """Return for each axis how much is cut off the full result at its start and its end.

    What is added at the end counts as cut off less.
    """
    window, size = effective(kernel, dilation), x.type.shape[1:]
    extra = node.pair("output_padding", (0, 0))
    auto = str(node.attribute("auto_pad", "NOTSET"))
    wanted = node.pair("output_shape", (0, 0)) if "output_shape" in node.origin.attrs else None
    # ONNX, ConvTranspose: with SAME_* the result is the input's size times the stride.
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = (size[0] * stride[0], size[1] * stride[1])
    if wanted is None:
        top, left, bottom, right = pads_of(node, (0, 0), kernel, stride)
        return [(top, bottom - extra[0]), (left, right - extra[1])]
    cuts = []
    for n, out, k, s, more in zip(size, wanted, window, stride, extra, strict=True):
        # `total_padding` of ONNX, ConvTranspose.
        room = max((n - 1) * s + k + more - out, 0)
        less = room // 2
        # ONNX, ConvTranspose: only SAME_UPPER cuts the odd row at the end.
        start = less if auto == "SAME_UPPER" else room - less
        cuts.append((start, (n - 1) * s + k - start - out))
    return cuts


def _zeros(more: int, stride: int, dilation: int) -> Pair:
    """Return rows of zeros before and after a kernel.

    With them what is cut off at the start exceeds what is cut off at the end, `more` without them,
    by nothing or more, and by no more than a step may add.
    """
    before = max(-(more // dilation), 0) if more < 0 else 0
    most = max(stride, dilation) - 1
    after = max(-((most - more) // dilation), 0) if more > most else 0
    return (before, after)


def _convolved(node: OnnxNode) -> tuple[View, Array, list[Array]]:
    """Return a convolution's input, weight and, in a list, its bias."""
    weight = node.weights(1)
    # Conv1d and Conv3d are the same operator with other ranks.
    if weight.ndim != 4:
        raise OperatorRefusal(
            f"it has {weight.ndim - 2} spatial axes; images have height and width"
        )
    bias = [node.weights(2)] if node.has(2) else []
    return node.map(), weight, bias


def gemm(node: OnnxNode) -> View:
    """Convert Gemm: alpha * x @ weight + beta * bias."""
    if node.attribute("transA", 0):
        raise OperatorRefusal(
            "it transposes its input", "export it as a linear layer, with transA 0"
        )
    weight = node.weights(1) * np.float32(node.attribute("alpha", 1.0))
    if weight.ndim != 2:
        raise OperatorRefusal(f"its weight has {weight.ndim} axes, not two")
    # The language keeps PyTorch's layout, (units, features), which is that of a Gemm with transB.
    weight = weight if node.attribute("transB", 0) else weight.T
    beta = np.float32(node.attribute("beta", 1.0))
    bias = [_per_unit(node.weights(2) * beta, weight.shape[0])] if node.has(2) else []
    return _linear(node, weight, bias)


def matmul(node: OnnxNode) -> View:
    """Convert MatMul with a constant."""
    if isinstance(node.operand(1), View):
        raise OperatorRefusal(ATTENTION, attention(before(node.origin)))
    weight = node.weights(1)
    if weight.ndim != 2:
        raise OperatorRefusal(f"its weight has {weight.ndim} axes, not two")
    # A bias comes as an Add after it, which `simplify` takes in.
    return _linear(node, weight.T, [])


def _per_unit(bias: Array, units: int) -> Array:
    try:
        return np.ascontiguousarray(np.broadcast_to(bias, (1, units)).reshape(units))
    except ValueError:
        raise OperatorRefusal(f"its bias is {list(bias.shape)}, not one number per unit") from None


def _linear(node: OnnxNode, weight: Array, bias: list[Array]) -> View:
    """Return what a matrix makes of the last axis: of a vector, or of each pixel's channels."""
    x = node.view()
    units = weight.shape[0]
    # The usual head of a classifier; the other two are a matrix of a map that was flattened with
    # channels last, and transformers' and ConvNeXt's layers of each pixel.
    if x.settled and len(x.type.shape) == 1:
        return node.emit(Linear(units, bool(bias)), x, weights=[weight, *bias])
    if len(x.shape) == 2 and x.shape[0] == 1 and x.whole():
        return _linear_of_a_map(node, x, weight, bias)
    row = last_axis_channels(x) if len(x.type.shape) == 3 else None
    if row is None:
        raise OperatorRefusal("its input is neither a vector nor the channels of each pixel")
    op = Conv(units, (1, 1), bias=bool(bias))
    made = node.build.emit(node.name, op, [x.value], [weight[:, :, None, None], *bias])
    return along_last_axis(made, node.build.type(made), row)


def _linear_of_a_map(node: OnnxNode, x: View, weight: Array, bias: list[Array]) -> View:
    """Return what a matrix makes of a map that was flattened in another order than channels."""
    flat = node.build.emit("", Flatten(), [x.value])
    # Columns go to where the language's flattening has the elements that they are for.
    ordered = np.empty_like(weight)
    ordered[:, x.positions().ravel()] = weight
    op = Linear(weight.shape[0], bool(bias))
    return node.emit(op, node.build.view(flat), weights=[ordered, *bias])


def batch_norm(node: OnnxNode) -> View:
    """Convert BatchNormalization in its inference form."""
    if node.attribute("training_mode", 0):
        raise OperatorRefusal(
            "it normalises with the batch itself", "export the network in eval mode"
        )
    # ONNX's inputs after the first, scale, B, mean and var, have the order of the op's own weights.
    op = BatchNorm(short(node.attribute("epsilon", 1e-5)))
    return node.emit(op, node.settled(), weights=[node.weights(i) for i in (1, 2, 3, 4)])


def layer_norm(node: OnnxNode) -> View:
    """Convert LayerNormalization, which normalises from an axis to the last one."""
    x = node.view()
    axis = int(node.attribute("axis", -1)) % len(x.shape)
    if axis != len(x.shape) - 1:
        help = "train it with a layer norm over the channels of each pixel, or with batch norms"
        raise OperatorRefusal("it normalises over several axes, not over the channels alone", help)
    return channel_norm(node, axis)


def channel_norm(node: OnnxNode, axis: int | None = None) -> View:
    """Convert normalisation along one axis, which must be the channels."""
    x = node.view()
    rank = len(x.shape)
    axis = int(node.attribute("axis", -1)) % rank if axis is None else axis
    # ConvNeXt transposes to channels last, normalises the last axis and transposes back: as a view
    # that is a normalisation of channels, without a transposition.
    if rank > 2 and axis == rank - 1:
        channels = last_axis_channels(x) is not None
    else:
        channels = x.settled and axis == 1
    if not channels:
        raise OperatorRefusal("it normalises over other axes than the channels")
    c = (x.type.shape[0], *(1 for _ in x.type.shape[1:]))
    # A norm without weights (`elementwise_affine=False`) was fused without any.
    weight = node.weights(1).reshape(c) if node.has(1) else np.ones(c, np.float32)
    bias = node.weights(2).reshape(c) if node.has(2) else np.zeros(c, np.float32)
    op = LayerNorm(short(node.attribute("epsilon", 1e-5)))
    value = node.build.emit(node.name, op, [x.value], [weight, bias])
    return x.other(value, node.build.type(value))


def scale_shift(node: OnnxNode, x: View, weight: Array, bias: Array) -> View:
    """Return a value times one constant per channel plus another, both shaped to broadcast.

    Args:
        node: The node that asks for it.
        x: A value of maps or vectors.
        weight: (channels, 1, 1) for maps, (features,) for vectors.
        bias: Likewise.
    """
    value = node.build.emit(node.name, ScaleShift(), [x.value], [weight, bias])
    return x.other(value, node.build.type(value))
