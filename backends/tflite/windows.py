"""Operators with a sliding window: convolutions and poolings; and resizing.

The format knows padding as SAME and VALID only; what neither says is a border of its own.
"""

from math import prod

import numpy as np

from tcc.backends.tflite.file_draft import Array, FileDraft, channels_last
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import Pair, Quad
from tcc.compiler.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    Mul,
    Resize,
    Slice,
    Unflatten,
)
from tcc.compiler.ops.elementwise import Elementwise
from tcc.compiler.ops.window import effective, reached
from tcc.compiler.support.diagnostics import UnhandledError

LOWEST = float(np.finfo(np.float32).min)
"""What never wins in a max pooling."""


def conv(net: FileDraft, node: Node, op: Conv) -> str:
    """Write CONV_2D or, with a filter or more for each channel, DEPTHWISE_CONV_2D."""
    (x,) = net.inputs(node)
    channels = net.tensors[x].shape[3]
    depthwise = op.groups == channels and op.groups > 1
    weight, *rest = net.weights(node)
    # The format's filters are (filters, height, width, channels), depthwise ones (1, height, width,
    # filters); the graph's are PyTorch's.
    arranged = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    bias = rest[0] if rest else np.zeros(op.filters, np.float32)
    x, padding = _placed(net, node, x, (op.window, op.stride, op.pads))
    name = node.params[0]
    inputs = (x, net.constant(name, arranged), net.constant(_bias_name(node), bias))
    options = {
        "padding": padding,
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "dilationHFactor": op.dilation[0],
        "dilationWFactor": op.dilation[1],
    }
    output = (node.name, channels_last(node.type.shape))
    if depthwise:
        more = {"depthMultiplier": op.filters // channels}
        return net.add("DEPTHWISE_CONV_2D", inputs, output, options | more, _depthwise_version(op))
    # TFLite's op_version.cc: 6 is the first version whose filters read some of the channels.
    return net.add("CONV_2D", inputs, output, options, 6 if op.groups > 1 else 1)


def conv_transpose(net: FileDraft, node: Node, op: ConvTranspose) -> str:
    """Write TRANSPOSE_CONV, what it has too much cut off, and what it lacks added.

    It knows neither groups nor dilation: the kernel has zeros there.
    """
    (x,) = net.inputs(node)
    weight, *rest = net.weights(node)
    kernel = net.constant(node.params[0], _full_kernel(weight, op))
    window = effective(op.kernel, op.dilation)
    # The operator's own padding must be SAME or VALID, neither of which is PyTorch's: it gives the
    # whole result, of which the rest is cut.
    _, height, width, _ = net.tensors[x].shape
    whole = tuple(
        (n - 1) * s + k for n, s, k in zip((height, width), op.stride, window, strict=True)
    )
    full = (1, *whole, op.filters)
    size = net.integers(f"{node.name}/size", full)
    options = {"padding": "VALID", "strideH": op.stride[0], "strideW": op.stride[1]}
    grown = f"{node.name}/grown"
    y = net.add("TRANSPOSE_CONV", (size, kernel, x), (grown, full), options)
    _, *out = node.type.shape
    # `output_padding` may ask for rows beyond the whole result, which hold the bias alone.
    ends = [min(n, p + m) for n, p, m in zip(whole, op.padding, out, strict=True)]
    if any(op.padding) or tuple(ends) != whole:
        top, left = op.padding
        y = net.cut(y, f"{node.name}/cut", (0, top, left, 0), (1, *ends, op.filters), (1,) * 4)
    lacks = tuple(m - (e - p) for m, e, p in zip(out, ends, op.padding, strict=True))
    y = net.padded(node, y, (0, 0, lacks[0], lacks[1]))
    bias = net.constant(_bias_name(node), rest[0] if rest else np.zeros(op.filters, np.float32))
    return net.add("ADD", (y, bias), (node.name, channels_last(node.type.shape)))


def max_pool(net: FileDraft, node: Node, op: MaxPool) -> str:
    """Write MAX_POOL_2D."""
    (x,) = net.inputs(node)
    # A border of zeros is PAD, which XNNPACK runs; one of other numbers is not. Where nothing is
    # below zero, zeros never win.
    fill = 0.0 if _nonnegative(net.graph, node.inputs[0]) else LOWEST
    x, padding = _placed(net, node, x, (op.kernel, op.step, op.pads), fill)
    output = (node.name, channels_last(node.type.shape))
    return net.add("MAX_POOL_2D", (x,), output, _pooling(op.kernel, op.step, padding))


def avg_pool(net: FileDraft, node: Node, op: AvgPool) -> str:
    """Write AVERAGE_POOL_2D, which counts no padding, and factors where some counts."""
    (x,) = net.inputs(node)
    place = (op.kernel, op.step, op.pads)
    shape = channels_last(node.type.shape)
    _, *size = net.graph.types[node.inputs[0]].shape
    counts = _counts(op, (size[0], size[1]), (shape[1], shape[2]))
    inside = _counts(op, (size[0], size[1]), (shape[1], shape[2]), inside=True)
    if np.array_equal(counts, inside) and padding(net, node, place)[0]:
        word = padding(net, node, place)[0]
        return net.add(
            "AVERAGE_POOL_2D", (x,), (node.name, shape), _pooling(op.kernel, op.step, word)
        )
    x = net.padded(node, x, padding(net, node, place)[1])
    options = _pooling(op.kernel, op.step, "VALID")
    if (counts == prod(op.kernel)).all():
        return net.add("AVERAGE_POOL_2D", (x,), (node.name, shape), options)
    y = net.add("AVERAGE_POOL_2D", (x,), (f"{node.name}/mean", shape), options)
    # VALID divides by the whole window; the factor makes that the number of elements that count.
    factors = (prod(op.kernel) / counts).astype(np.float32)[None, :, :, None]
    return net.add("MUL", (y, net.constant(f"{node.name}/factors", factors)), (node.name, shape))


def global_avg_pool(net: FileDraft, node: Node, _op: GlobalAvgPool) -> str:
    """Write MEAN over height and width."""
    axes = net.integers(f"{node.name}/axes", (1, 2))
    output = (node.name, channels_last(node.type.shape))
    return net.add("MEAN", (*net.inputs(node), axes), output, {"keepDims": True})


def global_max_pool(net: FileDraft, node: Node, _op: GlobalMaxPool) -> str:
    """Write MAX_POOL_2D with one window."""
    (x,) = net.inputs(node)
    _, height, width, _ = net.tensors[x].shape
    options = _pooling((height, width), (1, 1), "VALID")
    return net.add("MAX_POOL_2D", (x,), (node.name, channels_last(node.type.shape)), options)


def _placed(
    net: FileDraft, node: Node, x: str, place: tuple[Pair, Pair, Quad], fill: float = 0.0
) -> tuple[str, str]:
    """Return the input, with a border if that takes one, and the format's word for the padding."""
    word, border = padding(net, node, place)
    return (x, word) if word else (net.padded(node, x, border, fill), "VALID")


def padding(net: FileDraft, node: Node, place: tuple[Pair, Pair, Quad]) -> tuple[str, Quad]:
    """Return the format's word for a padding, or none, and the border that the windows reach."""
    window, stride, (top, left, *_) = place
    _, *size = net.graph.types[node.inputs[0]].shape
    _, *out = node.type.shape
    down, across = reached((size[0], size[1]), window, stride, (top, left, 0, 0), (out[0], out[1]))
    border = (top, left, down, across)
    if not any(border):
        return "VALID", border
    needed = [
        (max((m - 1) * s + k - n, 0), m == -(-n // s))
        for n, m, s, k in zip(size, out, stride, window, strict=True)
    ]
    befores = zip(needed, (top, left), strict=True)
    # SAME puts the odd pixel of a border at the end.
    same = all(fits and total // 2 == before for (total, fits), before in befores)
    return ("SAME" if same else ""), border


def _pooling(kernel: Pair, stride: Pair, padding: str) -> dict[str, object]:
    return {
        "padding": padding,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
    }


def _counts(op: AvgPool, size: Pair, out: Pair, *, inside: bool = False) -> Array:
    """Return how many elements each window counts; `inside`, of the input alone."""
    axes = []
    for axis in (0, 1):
        n, k, s, before, after = (
            size[axis], op.kernel[axis], op.step[axis], op.pads[axis], op.pads[axis + 2],
        )  # fmt: skip
        counted = op.count_include_pad and not inside
        low, high = (-before, n + after) if counted else (0, n)
        starts = np.arange(out[axis]) * s - before
        axes.append(np.minimum(starts + k, high) - np.maximum(starts, low))
    return np.outer(*axes)


def _depthwise_version(op: Conv) -> int:
    return 2 if op.dilation != (1, 1) else 1  # 2 is the first with dilation


def _bias_name(node: Node) -> str:
    return node.params[1] if len(node.params) > 1 else f"{node.name}/bias"


def _full_kernel(weight: Array, op: ConvTranspose) -> Array:
    """Return (filters, height, width, channels), zero between groups and between dilated taps."""
    channels, depth, *_ = weight.shape
    full = np.zeros((op.filters, *effective(op.kernel, op.dilation), channels), np.float32)
    down, across = op.dilation
    for group in range(op.groups):
        of = slice(group * depth, (group + 1) * depth)
        by = slice(group * (channels // op.groups), (group + 1) * (channels // op.groups))
        full[of, ::down, ::across, by] = weight[by].transpose(1, 2, 3, 0)
    return full


def _nonnegative(graph: Graph, value: str) -> bool:
    """Whether a value is known to hold nothing below zero."""
    makers = {node.name: node for node in graph.nodes}
    known: dict[str, bool] = {}
    for node in makers.values():
        match node.op:
            case Elementwise() if node.op.bounds[0] >= 0:
                known[node.name] = True
            case (
                MaxPool() | AvgPool() | GlobalAvgPool() | GlobalMaxPool() | Concat() | Add() | Mul()
                | Slice() | ChannelShuffle() | Flatten() | Unflatten() | Resize()
            ):  # fmt: skip
                known[node.name] = all(known.get(source, False) for source in node.inputs)
        if node.name == value:
            break
    return known.get(value, False)


_HALF_PIXELS = {"alignCorners": False, "halfPixelCenters": True}


def resize(net: FileDraft, node: Node, op: Resize) -> str:
    """Write RESIZE_BILINEAR; or every nth pixel, and RESIZE_NEAREST_NEIGHBOR of what grows.

    Half pixels make the nearest pixel certain: no product is near a whole number.
    """
    (x,) = net.inputs(node)
    match op.mode:
        case "nearest":
            return _nearest(net, node, x)
        case "bilinear":
            name, shape = node.name, channels_last(node.type.shape)
            size = net.integers(f"{name}/size", shape[1:3])
            return net.add("RESIZE_BILINEAR", (x, size), (name, shape), _HALF_PIXELS)
        case _:
            raise UnhandledError("way to resize", op.mode)


def _nearest(net: FileDraft, node: Node, x: str) -> str:
    name, shape = node.name, channels_last(node.type.shape)
    _, height, width, channels = net.tensors[x].shape
    steps = [max(1, n // out) for n, out in zip((height, width), shape[1:3], strict=True)]
    if steps != [1, 1]:
        x = net.cut(x, f"{name}/taken", (0,) * 4, (1, height, width, channels), (1, *steps, 1))
    if net.tensors[x].shape == shape:
        return x
    size = net.integers(f"{name}/size", shape[1:3])
    return net.add("RESIZE_NEAREST_NEIGHBOR", (x, size), (name, shape), _HALF_PIXELS, 3)
