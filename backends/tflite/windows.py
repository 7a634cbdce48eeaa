"""Operators with sliding windows (convolutions and poolings), and resizing.

The format has only SAME and VALID padding. Other paddings become an explicit border.
"""

from math import prod

import numpy as np

from tcc.backends.tflite.file_draft import Array, FileDraft, to_channels_last
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
from tcc.compiler.ops.window import compute_dilated_extent, compute_reached_padding
from tcc.compiler.support.diagnostics import UnhandledError

MIN_FLOAT32 = float(np.finfo(np.float32).min)
"""Smallest float32, so that padding never wins in a max pooling."""


def write_conv(net: FileDraft, node: Node, op: Conv) -> str:
    """Write CONV_2D, or DEPTHWISE_CONV_2D if there are as many groups as channels."""
    (x,) = net.get_inputs(node)
    channels = net.tensors[x].shape[3]
    depthwise = op.groups == channels and op.groups > 1
    weight, *optional_bias = net.get_weights(node)
    # The format's filters are (filters, height, width, channels), for depthwise (1, height, width,
    # filters). The graph uses PyTorch's layout.
    arranged = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    bias = optional_bias[0] if optional_bias else np.zeros(op.filters, np.float32)
    x, padding = _prepare_input(net, node, x, (op.window, op.stride, op.pads))
    name = node.params[0]
    inputs = (x, net.add_constant(name, arranged), net.add_constant(_get_bias_name(node), bias))
    options = {
        "padding": padding,
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "dilationHFactor": op.dilation[0],
        "dilationWFactor": op.dilation[1],
    }
    output = (node.name, to_channels_last(node.type.shape))
    if depthwise:
        depthwise_options = {"depthMultiplier": op.filters // channels}
        return net.add_operator(
            "DEPTHWISE_CONV_2D",
            inputs,
            output,
            options | depthwise_options,
            _get_depthwise_version(op),
        )
    # TFLite's op_version.cc: version 6 is the first that supports groups.
    return net.add_operator("CONV_2D", inputs, output, options, 6 if op.groups > 1 else 1)


def write_conv_transpose(net: FileDraft, node: Node, op: ConvTranspose) -> str:
    """Write TRANSPOSE_CONV, a crop of its result, and padding of missing rows.

    It supports neither groups nor dilation: the kernel has zeros for these.
    """
    (x,) = net.get_inputs(node)
    weight, *optional_bias = net.get_weights(node)
    kernel = net.add_constant(node.params[0], _expand_kernel(weight, op))
    window = compute_dilated_extent(op.kernel, op.dilation)
    # The operator supports only SAME or VALID padding, which both differ from PyTorch's. VALID
    # gives the full result, which is then cropped.
    _, height, width, _ = net.tensors[x].shape
    full_size = tuple(
        (n - 1) * s + k for n, s, k in zip((height, width), op.stride, window, strict=True)
    )
    full_shape = (1, *full_size, op.filters)
    size = net.add_integers(f"{node.name}/size", full_shape)
    options = {"padding": "VALID", "strideH": op.stride[0], "strideW": op.stride[1]}
    grown = f"{node.name}/grown"
    y = net.add_operator("TRANSPOSE_CONV", (size, kernel, x), (grown, full_shape), options)
    _, *out = node.type.shape
    # `output_padding` may add rows beyond the full result; these contain only the bias.
    crop_ends = [min(n, p + m) for n, p, m in zip(full_size, op.padding, out, strict=True)]
    if any(op.padding) or tuple(crop_ends) != full_size:
        top, left = op.padding
        y = net.add_slice(
            y, f"{node.name}/cut", (0, top, left, 0), (1, *crop_ends, op.filters), (1,) * 4
        )
    missing = tuple(m - (e - p) for m, e, p in zip(out, crop_ends, op.padding, strict=True))
    y = net.add_padding(node, y, (0, 0, missing[0], missing[1]))
    bias = net.add_constant(
        _get_bias_name(node),
        optional_bias[0] if optional_bias else np.zeros(op.filters, np.float32),
    )
    return net.add_operator("ADD", (y, bias), (node.name, to_channels_last(node.type.shape)))


def write_max_pool(net: FileDraft, node: Node, op: MaxPool) -> str:
    """Write MAX_POOL_2D."""
    (x,) = net.get_inputs(node)
    # XNNPACK runs PAD, which pads with zeros, but not padding with other values. Zeros never win
    # if no value is negative.
    fill = 0.0 if _is_nonnegative(net.graph, node.inputs[0]) else MIN_FLOAT32
    x, padding = _prepare_input(net, node, x, (op.kernel, op.step, op.pads), fill)
    output = (node.name, to_channels_last(node.type.shape))
    return net.add_operator(
        "MAX_POOL_2D", (x,), output, _build_pool_options(op.kernel, op.step, padding)
    )


def write_avg_pool(net: FileDraft, node: Node, op: AvgPool) -> str:
    """Write AVERAGE_POOL_2D, which ignores padding, and factors if padding counts."""
    (x,) = net.get_inputs(node)
    geometry = (op.kernel, op.step, op.pads)
    shape = to_channels_last(node.type.shape)
    _, *size = net.graph.types[node.inputs[0]].shape
    counts = _count_elements(op, (size[0], size[1]), (shape[1], shape[2]))
    inside = _count_elements(op, (size[0], size[1]), (shape[1], shape[2]), inside=True)
    if np.array_equal(counts, inside) and choose_padding(net, node, geometry)[0]:
        padding_mode = choose_padding(net, node, geometry)[0]
        return net.add_operator(
            "AVERAGE_POOL_2D",
            (x,),
            (node.name, shape),
            _build_pool_options(op.kernel, op.step, padding_mode),
        )
    x = net.add_padding(node, x, choose_padding(net, node, geometry)[1])
    options = _build_pool_options(op.kernel, op.step, "VALID")
    if (counts == prod(op.kernel)).all():
        return net.add_operator("AVERAGE_POOL_2D", (x,), (node.name, shape), options)
    y = net.add_operator("AVERAGE_POOL_2D", (x,), (f"{node.name}/mean", shape), options)
    # VALID divides by the window size; the factors correct it to the number of counted elements.
    factors = (prod(op.kernel) / counts).astype(np.float32)[None, :, :, None]
    return net.add_operator(
        "MUL", (y, net.add_constant(f"{node.name}/factors", factors)), (node.name, shape)
    )


def write_global_avg_pool(net: FileDraft, node: Node, _op: GlobalAvgPool) -> str:
    """Write MEAN over height and width."""
    axes = net.add_integers(f"{node.name}/axes", (1, 2))
    output = (node.name, to_channels_last(node.type.shape))
    return net.add_operator("MEAN", (*net.get_inputs(node), axes), output, {"keepDims": True})


def write_global_max_pool(net: FileDraft, node: Node, _op: GlobalMaxPool) -> str:
    """Write MAX_POOL_2D with one window."""
    (x,) = net.get_inputs(node)
    _, height, width, _ = net.tensors[x].shape
    options = _build_pool_options((height, width), (1, 1), "VALID")
    return net.add_operator(
        "MAX_POOL_2D", (x,), (node.name, to_channels_last(node.type.shape)), options
    )


def _prepare_input(
    net: FileDraft, node: Node, x: str, geometry: tuple[Pair, Pair, Quad], fill: float = 0.0
) -> tuple[str, str]:
    """Return the input, with a border if one is needed, and the padding keyword."""
    padding_mode, border = choose_padding(net, node, geometry)
    return (x, padding_mode) if padding_mode else (net.add_padding(node, x, border, fill), "VALID")


def choose_padding(
    net: FileDraft, node: Node, geometry: tuple[Pair, Pair, Quad]
) -> tuple[str, Quad]:
    """Return the padding keyword, or an empty text, and the border that the windows read."""
    window, stride, (top, left, *_) = geometry
    _, *size = net.graph.types[node.inputs[0]].shape
    _, *out = node.type.shape
    down, across = compute_reached_padding(
        (size[0], size[1]), window, stride, (top, left, 0, 0), (out[0], out[1])
    )
    border = (top, left, down, across)
    if not any(border):
        return "VALID", border
    needed = [
        (max((m - 1) * s + k - n, 0), m == -(-n // s))
        for n, m, s, k in zip(size, out, stride, window, strict=True)
    ]
    befores = zip(needed, (top, left), strict=True)
    # SAME puts the odd pixel of a border at the end.
    is_same = all(
        has_same_size and total // 2 == leading for (total, has_same_size), leading in befores
    )
    return ("SAME" if is_same else ""), border


def _build_pool_options(kernel: Pair, stride: Pair, padding: str) -> dict[str, object]:
    return {
        "padding": padding,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
    }


def _count_elements(op: AvgPool, size: Pair, out: Pair, *, inside: bool = False) -> Array:
    """Return the number of elements that each window counts; `inside`: only input elements."""
    axes = []
    for axis in (0, 1):
        n, k, s, leading, trailing = (
            size[axis], op.kernel[axis], op.step[axis], op.pads[axis], op.pads[axis + 2],
        )  # fmt: skip
        counted = op.count_include_pad and not inside
        low, high = (-leading, n + trailing) if counted else (0, n)
        starts = np.arange(out[axis]) * s - leading
        axes.append(np.minimum(starts + k, high) - np.maximum(starts, low))
    return np.outer(*axes)


def _get_depthwise_version(op: Conv) -> int:
    return 2 if op.dilation != (1, 1) else 1  # version 2 is the first with dilation


def _get_bias_name(node: Node) -> str:
    return node.params[1] if len(node.params) > 1 else f"{node.name}/bias"


def _expand_kernel(weight: Array, op: ConvTranspose) -> Array:
    """Return (filters, height, width, channels) with zeros between groups and dilated weights."""
    channels, depth, *_ = weight.shape
    kernel = np.zeros(
        (op.filters, *compute_dilated_extent(op.kernel, op.dilation), channels), np.float32
    )
    down, across = op.dilation
    for group in range(op.groups):
        filters_of_group = slice(group * depth, (group + 1) * depth)
        channels_of_group = slice(
            group * (channels // op.groups), (group + 1) * (channels // op.groups)
        )
        kernel[filters_of_group, ::down, ::across, channels_of_group] = weight[
            channels_of_group
        ].transpose(1, 2, 3, 0)
    return kernel


def _is_nonnegative(graph: Graph, value_name: str) -> bool:
    """Whether a value is known to have no negative elements."""
    producers = {node.name: node for node in graph.nodes}
    nonnegative: dict[str, bool] = {}
    for node in producers.values():
        match node.op:
            case Elementwise() if node.op.bounds[0] >= 0:
                nonnegative[node.name] = True
            case (
                MaxPool() | AvgPool() | GlobalAvgPool() | GlobalMaxPool() | Concat() | Add() | Mul()
                | Slice() | ChannelShuffle() | Flatten() | Unflatten() | Resize()
            ):  # fmt: skip
                nonnegative[node.name] = all(
                    nonnegative.get(source, False) for source in node.inputs
                )
        if node.name == value_name:
            break
    return nonnegative.get(value_name, False)


_HALF_PIXELS = {"alignCorners": False, "halfPixelCenters": True}


def write_resize(net: FileDraft, node: Node, op: Resize) -> str:
    """Write RESIZE_BILINEAR, or for nearest a strided slice and RESIZE_NEAREST_NEIGHBOR.

    With half pixel centers the nearest pixel is unambiguous: no product is near an integer.
    """
    (x,) = net.get_inputs(node)
    match op.mode:
        case "nearest":
            return _write_nearest(net, node, x)
        case "bilinear":
            name, shape = node.name, to_channels_last(node.type.shape)
            size = net.add_integers(f"{name}/size", shape[1:3])
            return net.add_operator("RESIZE_BILINEAR", (x, size), (name, shape), _HALF_PIXELS)
        case _:
            raise UnhandledError("resize mode", op.mode)


def _write_nearest(net: FileDraft, node: Node, x: str) -> str:
    name, shape = node.name, to_channels_last(node.type.shape)
    _, height, width, channels = net.tensors[x].shape
    steps = [max(1, n // out) for n, out in zip((height, width), shape[1:3], strict=True)]
    if steps != [1, 1]:
        x = net.add_slice(
            x, f"{name}/taken", (0,) * 4, (1, height, width, channels), (1, *steps, 1)
        )
    if net.tensors[x].shape == shape:
        return x
    size = net.add_integers(f"{name}/size", shape[1:3])
    return net.add_operator("RESIZE_NEAREST_NEIGHBOR", (x, size), (name, shape), _HALF_PIXELS, 3)
