"""Element-wise and per-pixel operators, joins, and operators that move elements."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np

from tcc.backends.tflite.file_draft import Array, FileDraft, to_channels_last
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

FUNCTION_OPERATORS = {
    "relu": "RELU", "relu6": "RELU6", "sigmoid": "LOGISTIC", "tanh": "TANH",
    "hard_swish": "HARD_SWISH", "gelu": "GELU",
}  # fmt: skip
"""Functions with an operator in the format."""
MAX_CONCAT_INPUTS = 5
"""Maximum number of values that XNNPACK concatenates at once."""


def write_function(net: FileDraft, node: Node, op: Op) -> str:
    """Write an element-wise function."""
    return net.add_operator(FUNCTION_OPERATORS[op.keyword], net.get_inputs(node), _get_output(node))


def write_leaky_relu(net: FileDraft, node: Node, op: LeakyRelu) -> str:
    """Write LEAKY_RELU."""
    return net.add_operator(
        "LEAKY_RELU", net.get_inputs(node), _get_output(node), {"alpha": op.slope}
    )


def write_softmax(net: FileDraft, node: Node, _: Op) -> str:
    """Write SOFTMAX over the last axis, the channels."""
    return net.add_operator("SOFTMAX", net.get_inputs(node), _get_output(node), {"beta": 1.0})


def write_silu(net: FileDraft, node: Node, _: Op) -> str:
    """Write x * LOGISTIC(x)."""
    (x,) = net.get_inputs(node)
    name, shape = _get_output(node)
    # The format has no operator for x * sigmoid(x).
    gate = net.add_operator("LOGISTIC", (x,), (f"{name}/gate", shape))
    return net.add_operator("MUL", (x, gate), (name, shape))


def write_hard_sigmoid(net: FileDraft, node: Node, _: Op) -> str:
    """Write RELU6(x + 3) / 6."""
    (x,) = net.get_inputs(node)
    name, shape = _get_output(node)
    shifted = net.add_operator(
        "ADD", (x, _add_scalar(net, f"{name}/3", 3)), (f"{name}/moved", shape)
    )
    clamped = net.add_operator("RELU6", (shifted,), (f"{name}/clamped", shape))
    return net.add_operator(
        "MUL", (clamped, _add_scalar(net, f"{name}/sixth", 1 / 6)), (name, shape)
    )


def write_copy(net: FileDraft, node: Node, _: Op) -> str:
    """Write RESHAPE if the shape differs; else return the input.

    A RESHAPE to the same shape is not a copy in all runtimes: LiteRT's own kernels then overwrite
    values that others still read.
    """
    (x,) = net.get_inputs(node)
    name, shape = _get_output(node)
    return x if net.tensors[x].shape == shape else net.add_reshape(x, name, shape)


def write_scale(net: FileDraft, node: Node, op: Scale) -> str:
    """Write a product and a sum with scalars."""
    factor, offset = np.float32(op.factor), np.float32(op.offset)
    return _write_factor_offset(net, node, np.array(factor), np.array(offset))


def write_scale_shift(net: FileDraft, node: Node, _: ScaleShift) -> str:
    """Write a product and a sum with one number per channel."""
    return _write_factor_offset(
        net, node, *(tensor.reshape(-1) for tensor in net.get_weights(node))
    )


def write_batch_norm(net: FileDraft, node: Node, op: BatchNorm) -> str:
    """Write the product and sum that it computes at inference."""
    weight, bias, mean, var = (tensor.astype(np.float64) for tensor in net.get_weights(node))
    factor = weight / np.sqrt(var + op.eps)  # in float64, like the folding passes: rounded once
    offset = bias - mean * factor
    return _write_factor_offset(net, node, factor.astype(np.float32), offset.astype(np.float32))


def write_layer_norm(net: FileDraft, node: Node, op: LayerNorm) -> str:
    """Write the formula with one operator per operation."""
    (x,) = net.get_inputs(node)
    name, shape = _get_output(node)
    reduced_shape = (*shape[:-1], 1)
    axis = net.add_integers(f"{name}/axis", (len(shape) - 1,))
    keep = {"keepDims": True}
    mean = net.add_operator("MEAN", (x, axis), (f"{name}/mean", reduced_shape), keep)
    centered = net.add_operator("SUB", (x, mean), (f"{name}/away", shape))
    squared = net.add_operator("MUL", (centered, centered), (f"{name}/square", shape))
    var = net.add_operator("MEAN", (squared, axis), (f"{name}/var", reduced_shape), keep)
    eps = _add_scalar(net, f"{name}/eps", op.eps)
    root = net.add_operator(
        "RSQRT",
        (net.add_operator("ADD", (var, eps), (f"{name}/var_eps", reduced_shape)),),
        (f"{name}/rsqrt", reduced_shape),
    )
    normal = net.add_operator("MUL", (centered, root), (f"{name}/normal", shape))
    weight, bias = (
        net.add_constant(p, w.reshape(-1))
        for p, w in zip(node.params, net.get_weights(node), strict=True)
    )
    return net.add_operator(
        "ADD",
        (net.add_operator("MUL", (normal, weight), (f"{name}/scaled", shape)), bias),
        (name, shape),
    )


def write_add(net: FileDraft, node: Node, _: Add) -> str:
    """Write ADD, several for more than two inputs."""
    return _write_chain(net, node, "ADD")


def write_mul(net: FileDraft, node: Node, _: Mul) -> str:
    """Write MUL, several for more than two inputs."""
    return _write_chain(net, node, "MUL")


def write_concat(net: FileDraft, node: Node, op: Concat) -> str:
    """Write CONCATENATION over the last axis, the channels."""
    inputs = net.get_inputs(node)
    if len(inputs) == 1:
        return write_copy(net, node, op)
    names = (f"{node.name}/{i}" for i in count())
    while len(inputs) > MAX_CONCAT_INPUTS:
        # As few as possible, so that the rest fits into one last operator: large parts are copied
        # once.
        groups = min(
            -(-(len(inputs) - MAX_CONCAT_INPUTS) // (MAX_CONCAT_INPUTS - 1)),
            len(inputs) // MAX_CONCAT_INPUTS,
        )
        input_groups = [
            inputs[i * MAX_CONCAT_INPUTS : (i + 1) * MAX_CONCAT_INPUTS] for i in range(groups)
        ]
        joined = (_add_concat(net, next(names), cut) for cut in input_groups)
        inputs = (*joined, *inputs[groups * MAX_CONCAT_INPUTS :])
    return _add_concat(net, node.name, inputs)


def _add_concat(net: FileDraft, name: str, inputs: tuple[str, ...]) -> str:
    shapes = [net.tensors[input_name].shape for input_name in inputs]
    shape = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    return net.add_operator("CONCATENATION", inputs, (name, shape), {"axis": len(shape) - 1})


def write_linear(net: FileDraft, node: Node, op: Linear) -> str:
    """Write FULLY_CONNECTED, with weights in the order of the input's pixels."""
    (x,) = net.get_inputs(node)
    weight, *optional_bias = net.get_weights(node)
    pixels = net.permuted.get(node.inputs[0])
    if pixels:
        # Flattening then costs nothing: the matrix columns are reordered to the file's order of
        # pixels.
        weight = weight.reshape(op.units, *pixels).transpose(0, 2, 3, 1).reshape(op.units, -1)
    bias = optional_bias[0] if optional_bias else np.zeros(op.units, np.float32)
    name = node.params[1] if optional_bias else f"{node.name}/bias"
    inputs = (x, net.add_constant(node.params[0], weight), net.add_constant(name, bias))
    return net.add_operator(
        "FULLY_CONNECTED", inputs, _get_output(node), {"weightsFormat": "DEFAULT"}
    )


def write_flatten(net: FileDraft, node: Node, op: Flatten) -> str:
    """Write RESHAPE, after a TRANSPOSE if the readers depend on the order of elements."""
    (x,) = net.get_inputs(node)
    shape = net.graph.types[node.inputs[0]].shape
    # With one channel or one pixel both orders are the same.
    if len(shape) == 1 or 1 in {shape[0], shape[1] * shape[2]}:
        return write_copy(net, node, op)
    if _is_order_free(net.graph, node.name):
        net.permuted |= dict.fromkeys(_iterate_same_order(net.graph, node.name), shape)
        return write_copy(net, node, op)
    axes = net.add_integers(f"{node.name}/axes", (0, 3, 1, 2))
    transposed = net.add_operator("TRANSPOSE", (x, axes), (f"{node.name}/moved", (1, *shape)))
    return net.add_reshape(transposed, *_get_output(node))


def write_unflatten(net: FileDraft, node: Node, op: Unflatten) -> str:
    """Write RESHAPE."""
    return write_copy(net, node, op)


def write_slice(net: FileDraft, node: Node, op: Slice) -> str:
    """Write STRIDED_SLICE of the last axis, the channels."""
    (x,) = net.get_inputs(node)
    *leading_sizes, channels = net.tensors[x].shape
    start, stop, step = slice(op.start, op.stop, op.step).indices(channels)
    zeros, ones = [0] * len(leading_sizes), [1] * len(leading_sizes)
    return net.add_slice(x, node.name, (*zeros, start), (*leading_sizes, stop), (*ones, step))


def write_channel_shuffle(net: FileDraft, node: Node, op: ChannelShuffle) -> str:
    """Write RESHAPE, TRANSPOSE, RESHAPE."""
    (x,) = net.get_inputs(node)
    name, (_, height, width, channels) = _get_output(node)
    pixels, group_size = height * width, channels // op.groups
    split = net.add_reshape(x, f"{name}/split", (pixels, op.groups, group_size))
    axes = net.add_integers(f"{name}/axes", (0, 2, 1))
    transposed = net.add_operator(
        "TRANSPOSE", (split, axes), (f"{name}/moved", (pixels, group_size, op.groups))
    )
    return net.add_reshape(transposed, name, (1, height, width, channels))


def write_pad(net: FileDraft, node: Node, op: Pad) -> str:
    """Write PAD, or PADV2 for a value other than 0."""
    (x,) = net.get_inputs(node)
    if not any(op.pads):
        return write_copy(net, node, op)
    return net.add_padding(node, x, op.pads, op.value)


def write_border(net: FileDraft, node: Node, op: Border) -> str:
    """Write a PADV2 for each channel, and CONCATENATION."""
    (x,) = net.get_inputs(node)
    _, height, width, channels = net.tensors[x].shape
    parts = []
    for c, fill in enumerate(op.values):
        corners = (0, 0, 0, c), (1, height, width, c + 1), (1,) * 4
        channel = net.add_slice(x, f"{node.name}/{c}", *corners) if channels > 1 else x
        parts.append(net.add_padding(node, channel, op.padding, fill))
    if channels == 1:
        return parts[0]
    return net.add_operator("CONCATENATION", parts, _get_output(node), {"axis": 3})


def _get_output(node: Node) -> tuple[str, tuple[int, ...]]:
    return node.name, to_channels_last(node.type.shape)


def _add_scalar(net: FileDraft, name: str, number: float) -> str:
    return net.add_constant(name, np.array([number], np.float32))


def _write_factor_offset(net: FileDraft, node: Node, factor: Array, offset: Array) -> str:
    """Write a product and a sum; with numbers per channel of a map, one depthwise convolution."""
    (x,) = net.get_inputs(node)
    name, shape = _get_output(node)
    tensors = (
        net.add_constant(f"{name}/factor", factor),
        net.add_constant(f"{name}/offset", offset),
    )
    if factor.ndim and len(shape) == 4:
        net.tensors[tensors[0]] = replace(net.tensors[tensors[0]], shape=(1, 1, 1, shape[3]))
        options = {"padding": "VALID", "strideH": 1, "strideW": 1, "depthMultiplier": 1}
        options |= {"dilationHFactor": 1, "dilationWFactor": 1}
        return net.add_operator("DEPTHWISE_CONV_2D", (x, *tensors), (name, shape), options)
    product = net.add_operator("MUL", (x, tensors[0]), (f"{name}/product", shape))
    return net.add_operator("ADD", (product, tensors[1]), (name, shape))


def _write_chain(net: FileDraft, node: Node, code: str) -> str:
    accumulated, *operands = net.get_inputs(node)
    if not operands:
        return write_copy(net, node, node.op)
    for i, operand in enumerate(operands, 1):
        shape = np.broadcast_shapes(net.tensors[accumulated].shape, net.tensors[operand].shape)
        name = node.name if i == len(operands) else f"{node.name}/{i}"
        accumulated = net.add_operator(code, (accumulated, operand), (name, shape))
    return accumulated


def _is_order_free(graph: Graph, value_name: str) -> bool:
    """Whether all readers of a vector can use its elements in another order."""
    is_inner = all(value_name != output.value for output in graph.outputs)
    readers = graph.readers[value_name]
    return is_inner and all(
        isinstance(node.op, Linear)
        or (isinstance(node.op, Elementwise) and _is_order_free(graph, node.name))
        for node in readers
    )


def _iterate_same_order(graph: Graph, value_name: str) -> Iterator[str]:
    """Yield a vector and the vectors computed from it in the same order."""
    yield value_name
    for node in graph.readers[value_name]:
        if isinstance(node.op, Elementwise):
            yield from _iterate_same_order(graph, node.name)
