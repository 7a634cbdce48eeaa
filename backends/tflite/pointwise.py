"""Operators of one element or one pixel, joins, and what moves elements."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np

from tcc.backends.tflite.file_draft import Array, FileDraft, channels_last
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ops import (
    Add,
    BatchNorm,
    Border,
    ChannelShuffle,
    Concat,
    Flatten,
    LayerNorm,
    LeakyRelu,
    Linear,
    Mul,
    Op,
    Pad,
    Scale,
    ScaleShift,
    Slice,
    Unflatten,
)
from tcc.compiler.ops.elementwise import Elementwise

NAMES = {
    "relu": "RELU", "relu6": "RELU6", "sigmoid": "LOGISTIC", "tanh": "TANH",
    "hard_swish": "HARD_SWISH", "gelu": "GELU",
}  # fmt: skip
"""The functions that the format has by themselves."""
WIDEST = 5
"""Most values that XNNPACK joins at once."""


def function(net: FileDraft, node: Node, op: Op) -> str:
    """Write a function of one element."""
    return net.add(NAMES[op.word], net.inputs(node), _output(node))


def leaky_relu(net: FileDraft, node: Node, op: LeakyRelu) -> str:
    """Write LEAKY_RELU."""
    return net.add("LEAKY_RELU", net.inputs(node), _output(node), {"alpha": op.slope})


def softmax(net: FileDraft, node: Node, _: Op) -> str:
    """Write SOFTMAX, which is over the last axis: the channels."""
    return net.add("SOFTMAX", net.inputs(node), _output(node), {"beta": 1.0})


def silu(net: FileDraft, node: Node, _: Op) -> str:
    """Write x * LOGISTIC(x)."""
    (x,) = net.inputs(node)
    name, shape = _output(node)
    # The format has no operator for x * sigmoid(x).
    gate = net.add("LOGISTIC", (x,), (f"{name}/gate", shape))
    return net.add("MUL", (x, gate), (name, shape))


def hard_sigmoid(net: FileDraft, node: Node, _: Op) -> str:
    """Write RELU6(x + 3) / 6."""
    (x,) = net.inputs(node)
    name, shape = _output(node)
    moved = net.add("ADD", (x, _scalar(net, f"{name}/3", 3)), (f"{name}/moved", shape))
    clamped = net.add("RELU6", (moved,), (f"{name}/clamped", shape))
    return net.add("MUL", (clamped, _scalar(net, f"{name}/sixth", 1 / 6)), (name, shape))


def copy(net: FileDraft, node: Node, _: Op) -> str:
    """Write RESHAPE where the shape differs, else nothing: the value is its input.

    A RESHAPE to the same shape is not a copy to all runtimes: LiteRT's own kernels then write over
    what others still read.
    """
    (x,) = net.inputs(node)
    name, shape = _output(node)
    return x if net.tensors[x].shape == shape else net.reshaped(x, name, shape)


def scale(net: FileDraft, node: Node, op: Scale) -> str:
    """Write a product and a sum with scalars."""
    factor, offset = np.float32(op.factor), np.float32(op.offset)
    return _scaled(net, node, np.array(factor), np.array(offset))


def scale_shift(net: FileDraft, node: Node, _: ScaleShift) -> str:
    """Write a product and a sum with a number a channel."""
    return _scaled(net, node, *(tensor.reshape(-1) for tensor in net.weights(node)))


def batch_norm(net: FileDraft, node: Node, op: BatchNorm) -> str:
    """Write the product and the sum that it is after training."""
    weight, bias, mean, var = (tensor.astype(np.float64) for tensor in net.weights(node))
    factor = weight / np.sqrt(var + op.eps)  # in float64, as the passes fold it: rounded once
    offset = bias - mean * factor
    return _scaled(net, node, factor.astype(np.float32), offset.astype(np.float32))


def layer_norm(net: FileDraft, node: Node, op: LayerNorm) -> str:
    """Write the formula, operator by operator."""
    (x,) = net.inputs(node)
    name, shape = _output(node)
    one = (*shape[:-1], 1)
    axis = net.integers(f"{name}/axis", (len(shape) - 1,))
    keep = {"keepDims": True}
    mean = net.add("MEAN", (x, axis), (f"{name}/mean", one), keep)
    away = net.add("SUB", (x, mean), (f"{name}/away", shape))
    square = net.add("MUL", (away, away), (f"{name}/square", shape))
    var = net.add("MEAN", (square, axis), (f"{name}/var", one), keep)
    eps = _scalar(net, f"{name}/eps", op.eps)
    root = net.add("RSQRT", (net.add("ADD", (var, eps), (f"{name}/var_eps", one)),),
                   (f"{name}/rsqrt", one))  # fmt: skip
    normal = net.add("MUL", (away, root), (f"{name}/normal", shape))
    weight, bias = (
        net.constant(p, w.reshape(-1)) for p, w in zip(node.params, net.weights(node), strict=True)
    )
    return net.add("ADD", (net.add("MUL", (normal, weight), (f"{name}/scaled", shape)), bias),
                   (name, shape))  # fmt: skip


def add(net: FileDraft, node: Node, _: Add) -> str:
    """Write ADD, or several."""
    return _chain(net, node, "ADD")


def mul(net: FileDraft, node: Node, _: Mul) -> str:
    """Write MUL, or several."""
    return _chain(net, node, "MUL")


def concat(net: FileDraft, node: Node, op: Concat) -> str:
    """Write CONCATENATION over the last axis: the channels."""
    values = net.inputs(node)
    if len(values) == 1:
        return copy(net, node, op)
    names = (f"{node.name}/{i}" for i in count())
    while len(values) > WIDEST:
        # As few as make the rest fit into one last operator, so that large parts are copied once.
        groups = min(-(-(len(values) - WIDEST) // (WIDEST - 1)), len(values) // WIDEST)
        cuts = [values[i * WIDEST : (i + 1) * WIDEST] for i in range(groups)]
        joined = (_joined(net, next(names), cut) for cut in cuts)
        values = (*joined, *values[groups * WIDEST :])
    return _joined(net, node.name, values)


def _joined(net: FileDraft, name: str, values: tuple[str, ...]) -> str:
    shapes = [net.tensors[value].shape for value in values]
    shape = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    return net.add("CONCATENATION", values, (name, shape), {"axis": len(shape) - 1})


def linear(net: FileDraft, node: Node, op: Linear) -> str:
    """Write FULLY_CONNECTED, its weights in the order of the pixels that it reads."""
    (x,) = net.inputs(node)
    weight, *rest = net.weights(node)
    pixels = net.permuted.get(node.inputs[0])
    if pixels:
        # Flattening costs nothing then: the matrix's columns take the order in which the file has
        # the pixels.
        weight = weight.reshape(op.units, *pixels).transpose(0, 2, 3, 1).reshape(op.units, -1)
    bias = rest[0] if rest else np.zeros(op.units, np.float32)
    name = node.params[1] if rest else f"{node.name}/bias"
    inputs = (x, net.constant(node.params[0], weight), net.constant(name, bias))
    return net.add("FULLY_CONNECTED", inputs, _output(node), {"weightsFormat": "DEFAULT"})


def flatten(net: FileDraft, node: Node, op: Flatten) -> str:
    """Write RESHAPE, after a TRANSPOSE where the order of elements matters to what reads them."""
    (x,) = net.inputs(node)
    shape = net.graph.types[node.inputs[0]].shape
    # One channel or one pixel: both orders are the same.
    if len(shape) == 1 or 1 in {shape[0], shape[1] * shape[2]}:
        return copy(net, node, op)
    if _any_order(net.graph, node.name):
        net.permuted |= dict.fromkeys(_in_order_of(net.graph, node.name), shape)
        return copy(net, node, op)
    axes = net.integers(f"{node.name}/axes", (0, 3, 1, 2))
    moved = net.add("TRANSPOSE", (x, axes), (f"{node.name}/moved", (1, *shape)))
    return net.reshaped(moved, *_output(node))


def unflatten(net: FileDraft, node: Node, op: Unflatten) -> str:
    """Write RESHAPE."""
    return copy(net, node, op)


def slice_(net: FileDraft, node: Node, op: Slice) -> str:
    """Write STRIDED_SLICE of the last axis: the channels."""
    (x,) = net.inputs(node)
    *before, channels = net.tensors[x].shape
    start, stop, step = slice(op.start, op.stop, op.step).indices(channels)
    zeros, ones = [0] * len(before), [1] * len(before)
    return net.cut(x, node.name, (*zeros, start), (*before, stop), (*ones, step))


def channel_shuffle(net: FileDraft, node: Node, op: ChannelShuffle) -> str:
    """Write RESHAPE, TRANSPOSE, RESHAPE."""
    (x,) = net.inputs(node)
    name, (_, height, width, channels) = _output(node)
    pixels, run = height * width, channels // op.groups
    split = net.reshaped(x, f"{name}/split", (pixels, op.groups, run))
    axes = net.integers(f"{name}/axes", (0, 2, 1))
    moved = net.add("TRANSPOSE", (split, axes), (f"{name}/moved", (pixels, run, op.groups)))
    return net.reshaped(moved, name, (1, height, width, channels))


def pad(net: FileDraft, node: Node, op: Pad) -> str:
    """Write PAD or, with another value than 0, PADV2."""
    (x,) = net.inputs(node)
    if not any(op.pads):
        return copy(net, node, op)
    return net.padded(node, x, op.pads, op.value)


def border(net: FileDraft, node: Node, op: Border) -> str:
    """Write a PADV2 of each channel, and CONCATENATION."""
    (x,) = net.inputs(node)
    _, height, width, channels = net.tensors[x].shape
    parts = []
    for c, value in enumerate(op.values):
        corners = (0, 0, 0, c), (1, height, width, c + 1), (1,) * 4
        one = net.cut(x, f"{node.name}/{c}", *corners) if channels > 1 else x
        parts.append(net.padded(node, one, op.padding, value))
    if channels == 1:
        return parts[0]
    return net.add("CONCATENATION", parts, _output(node), {"axis": 3})


def _output(node: Node) -> tuple[str, tuple[int, ...]]:
    return node.name, channels_last(node.type.shape)


def _scalar(net: FileDraft, name: str, value: float) -> str:
    return net.constant(name, np.array([value], np.float32))


def _scaled(net: FileDraft, node: Node, factor: Array, offset: Array) -> str:
    """Write a product and a sum; a number a channel of a feature map is one depthwise filter."""
    (x,) = net.inputs(node)
    name, shape = _output(node)
    tensors = (net.constant(f"{name}/factor", factor), net.constant(f"{name}/offset", offset))
    if factor.ndim and len(shape) == 4:
        net.tensors[tensors[0]] = replace(net.tensors[tensors[0]], shape=(1, 1, 1, shape[3]))
        how = {"padding": "VALID", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
        how |= {"dilationHFactor": 1, "dilationWFactor": 1}
        return net.add("DEPTHWISE_CONV_2D", (x, *tensors), (name, shape), how)
    product = net.add("MUL", (x, tensors[0]), (f"{name}/product", shape))
    return net.add("ADD", (product, tensors[1]), (name, shape))


def _chain(net: FileDraft, node: Node, code: str) -> str:
    first, *others = net.inputs(node)
    if not others:
        return copy(net, node, node.op)
    for i, other in enumerate(others, 1):
        shape = np.broadcast_shapes(net.tensors[first].shape, net.tensors[other].shape)
        name = node.name if i == len(others) else f"{node.name}/{i}"
        first = net.add(code, (first, other), (name, shape))
    return first


def _any_order(graph: Graph, value: str) -> bool:
    """Whether all that reads a vector can take its elements in another order."""
    inside = all(value != output.value for output in graph.outputs)
    readers = graph.readers[value]
    return inside and all(
        isinstance(node.op, Linear)
        or (isinstance(node.op, Elementwise) and _any_order(graph, node.name))
        for node in readers
    )


def _in_order_of(graph: Graph, value: str) -> Iterator[str]:
    """Yield a vector and those whose elements are in its order."""
    yield value
    for node in graph.readers[value]:
        if isinstance(node.op, Elementwise):
            yield from _in_order_of(graph, node.name)
