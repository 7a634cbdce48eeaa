"""The integer program as int8 operators that XNNPACK computes bit for bit.

Operations without an exact operator are composed. Sums with extreme scales or many values use int32
operators. Means of unequal windows and products with extreme scales use float32 operators on whole
numbers.
"""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_draft import Array, IntegerDraft, get_zero_point
from tcc.backends.tflite.writer import Quantization
from tcc.compiler.ir.graph import Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import (
    ChannelShuffle,
    Concat,
    Flatten,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    MaxPool,
    Op,
    Resize,
    Sigmoid,
    Silu,
    Slice,
    Tanh,
    Unflatten,
    integer_arithmetic,
)
from tcc.compiler.ops.integer import (
    Dequantize,
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    Quantize,
    QuantizedOp,
    Table,
)
from tcc.compiler.ops.integer import mean as mean_of

SMOOTH_FUNCTIONS: dict[type[Op], float] = {
    Sigmoid: 0,
    Silu: 0,
    Tanh: 0,
    HardSwish: 1,
    HardSigmoid: 1,
}
"""Functions that runtimes compute within `MAX_FUNCTION_ERROR` * (magnitude + this number)."""
MAX_FUNCTION_ERROR = 2.0**-20
MAX_ROUNDING_ERROR = 1e-4
"""Maximum error of the rounding to quantized values, in quantization steps."""


def write_table(draft: IntegerDraft, node: Node) -> None:
    """Add the function in float32 between quantized values, or GATHER from the table.

    XNNPACK has no lookup table with 256 entries. Its float functions are eight times as fast as
    GATHER.
    """
    op, (input_type,), (table_values,) = (
        node.op,
        draft.get_input_types(node),
        draft.get_weights(node),
    )
    assert isinstance(op, Table)
    # Checked for all 256 quantized values: float functions are used only if no error of a runtime
    # changes an entry.
    if is_float_exact(op, input_type, table_values):
        _write_float_function(draft, node, op)
    else:
        _write_gather(draft, node, table_values)


def is_float_exact(op: Table, input_type: TensorType, table_values: Array) -> bool:
    """Whether float32 arithmetic rounds to the table's entry for every quantized input value."""
    error_magnitude = SMOOTH_FUNCTIONS.get(type(op.function))
    if error_magnitude is None or type(op.function) not in FLOAT:
        return False
    real = (np.arange(256) + input_type.limits[0]) * np.float64(input_type.scale or 0)
    scale, min_quantized = np.float64(op.scale), op.make_type(()).limits[0]
    y = op.function.evaluate(real)
    steps = np.clip(y / scale, op.low, op.high)
    # Distance of each result from the tie at which the rounding changes.
    tie_distance = np.abs(steps - np.floor(steps) - 0.5)
    max_error = MAX_ROUNDING_ERROR + MAX_FUNCTION_ERROR * (error_magnitude + np.abs(y)) / scale
    is_equal = np.rint(steps) - min_quantized == table_values
    return bool(
        np.abs(real).max() < 2.0**60 and is_equal.all() and (tie_distance > max_error).all()
    )


def _write_float_function(draft: IntegerDraft, node: Node, op: Table) -> None:
    net, name = draft.net, node.name
    source = draft.add_value(f"{name}:given", TensorType(draft.get_input_types(node)[0].shape))
    draft.append_operator("DEQUANTIZE", net.get_inputs(node), source, {}, 2)
    float_node = Node(
        f"{name}:float", op.function, (f"{name}:given",), (), TensorType(node.type.shape)
    )
    float_output = FLOAT[type(op.function)](net, float_node, op.function)
    draft.append_operator("QUANTIZE", (float_output,), draft.add_value(name, node.type))


def _write_gather(draft: IntegerDraft, node: Node, table_values: Array) -> None:
    """Add GATHER from the table, indexed by the stored value minus its minimum."""
    name, (source,) = node.name, draft.net.get_inputs(node)
    shape = draft.tensors[source].shape
    wide, index = (
        draft.add_tensor(f"{name}:{suffix}", shape, "int32") for suffix in ("wide", "index")
    )
    draft.append_operator("CAST", (source,), wide)
    # Indices start at 0, stored values at -128.
    draft.append_operator("ADD", (wide, draft.add_scalar(f"{name}/128", 128, "int32")), index)
    output = draft.add_value(name, node.type)
    stored_table = (table_values.astype(np.int16) - 128).astype(np.int8)
    table_constant = draft.add_constant(
        node.params[0], stored_table, draft.tensors[output].quantization
    )
    draft.append_operator("GATHER", (table_constant, index), output, {"axis": 0}, 2)


MAX_FACTOR = 2.0**8
"""Upper limit of XNNPACK's factors from sums to quantized values, exclusive."""
SATURATING_FACTOR = 255.75
"""Equivalent to any larger factor: one step of the sum exceeds the range of quantized values."""
MIN_FACTOR = 2.0**-32
"""Lower limit of XNNPACK's factors."""
NEAR_MIN_FACTOR = MIN_FACTOR * (1 + 2.0**-20)
"""Equivalent to any smaller factor: no sum reaches half a quantization step."""
SUM_RATIOS = (2.0**-10, 2.0**8)
PRODUCT_RATIOS = (2.0**-16, 2.0**8)
"""Ranges of scale ratios that XNNPACK supports: lower limit inclusive, upper limit exclusive."""


def choose_activation(op: QuantizedOp, y: TensorType) -> str | None:
    """Return the format's activation with an operation's bounds; None if there is none."""
    low, high = y.limits
    if (op.low, op.high) == (low, high):
        return "NONE"
    if op.low != max(low, 0):
        return None
    if op.high == high:
        return "RELU"
    # RELU6's bound is the real number 6, which the runtime rounds to a quantized value. It is used
    # only if every rounding gives the same value.
    six = 6 / np.float64(op.scale)
    is_exact = abs(six % 1 - 0.5) > 1e-3 and op.high == round(six)  # for every rounding mode
    return "RELU6" if is_exact else None


def write_clamped(draft: IntegerDraft, node: Node, emit: Callable[[str, str], str]) -> None:
    """Add the operator from `emit` for an output and activation, and bounds if needed."""
    op, y = node.op, node.type
    assert isinstance(op, QuantizedOp)
    fused_activation = choose_activation(op, y)
    output = draft.add_value(node.name, y)
    if fused_activation is not None:
        emit(output, fused_activation)
        return
    unclamped = draft.add_tensor_like(output, f"{node.name}:wide", draft.tensors[output].shape)
    emit(unclamped, "NONE")
    draft.add_bounds(unclamped, output, op.low + get_zero_point(y), op.high + get_zero_point(y))


def write_conv(draft: IntegerDraft, node: Node) -> None:
    """Add CONV_2D or DEPTHWISE_CONV_2D, after a PAD if no padding keyword fits."""
    op, (input_type,) = node.op, draft.get_input_types(node)
    assert isinstance(op, QConv)
    conv_op, channels = op.conv, input_type.shape[0]
    is_depthwise = conv_op.groups == channels and channels > 1
    code = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    source, enum_name = draft.prepare_windows(node, (conv_op.window, conv_op.stride, conv_op.pads))
    inputs = (source, *_add_weights(draft, node, is_depthwise=is_depthwise))
    options = {
        "padding": enum_name,
        "strideH": conv_op.stride[0],
        "strideW": conv_op.stride[1],
        "dilationHFactor": conv_op.dilation[0],
        "dilationWFactor": conv_op.dilation[1],
        **({"depthMultiplier": conv_op.filters // channels} if is_depthwise else {}),
    }
    # TFLite's op_version.cc: version 3 is the first of either operator with int8, version 6 the
    # first with groups.
    version = 6 if conv_op.groups > 1 and not is_depthwise else 3
    write_clamped(draft, node, lambda y, enum_name: draft.append_operator(
        code, inputs, y, {**options, "fusedActivationFunction": enum_name}, version
    ))  # fmt: skip


def _add_weights(draft: IntegerDraft, node: Node, *, is_depthwise: bool) -> tuple[str, str]:
    """Add the weights and the bias of a convolution; return their names."""
    (input_type,), (weight, scale, bias) = draft.get_input_types(node), draft.get_weights(node)
    # The format's layouts: filters are the last axis for depthwise, else the first.
    order, axis = ((1, 2, 3, 0), 3) if is_depthwise else ((0, 2, 3, 1), 0)
    scale = limit_scales(input_type, scale.astype(np.float32), node.type)
    zeros = (0,) * len(scale)
    weight_quantization = Quantization(tuple(map(float, scale)), zeros, axis)
    bias_quantization = Quantization(tuple(map(float, np.float32(input_type.scale) * scale)), zeros)
    return (
        draft.add_constant(node.params[0], weight.transpose(order), weight_quantization),
        draft.add_constant(
            node.params[2],
            raise_biases(bias, weight, scale, (input_type, node.type)),
            bias_quantization,
        ),
    )


def raise_biases(
    bias: Array, weight: Array, scale: Array, types: tuple[TensorType, TensorType]
) -> Array:
    """Return biases without needlessly small values: XNNPACK's scaled sums may reach -2**31.

    Some of its kernels then wrap around when they add a nonzero zero point. A channel of which all
    sums give the smallest value keeps that, however small its sums are.

    Args:
        bias: The biases (filters,).
        weight: The quantized weights (filters, ...).
        scale: The scale of each filter's weights (filters,).
        types: The types of the input and of the output.
    """
    input_type, output_type = types
    if not get_zero_point(output_type):
        return bias.astype(np.int32)
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    low, high = input_type.limits
    largest = np.maximum(flat * low, flat * high).sum(axis=1)
    min_output = output_type.limits[0]
    factor = integer_arithmetic.compute_multiplier(input_type, scale, output_type)
    # Sums from here down give the smallest value; one less, as the quotient is rounded.
    min_sums = np.floor(min_output / factor.astype(np.float64)) - (1 if min_output else 0)
    min_biases = np.maximum(min_sums, np.iinfo(np.int32).min / 2).astype(np.int64) - largest
    raised_biases: Array = np.maximum(bias.astype(np.int64), min_biases)
    return raised_biases.astype(np.int32)


def limit_scales(
    input_type: TensorType, scale: integer_arithmetic.Float32, output_type: TensorType
) -> integer_arithmetic.Float32:
    """Return weight scales with factors that runtimes support; no quantized value changes."""
    factor, scale_ratio = (
        integer_arithmetic.compute_multiplier(input_type, scale, output_type),
        np.float32(output_type.scale) / np.float32(input_type.scale),
    )
    raised = np.where(factor < MIN_FACTOR, np.float32(NEAR_MIN_FACTOR) * scale_ratio, scale)
    saturated = np.float32(SATURATING_FACTOR) * scale_ratio
    return np.where(factor < MAX_FACTOR, raised, saturated).astype(np.float32)


def write_add(draft: IntegerDraft, node: Node) -> None:
    """Add ADD, or int32 arithmetic if ADD is not exact."""
    op, input_types = node.op, draft.get_input_types(node)
    assert isinstance(op, QAdd)
    low, high = SUM_RATIOS
    ratios = [np.float32(input_type.scale) / np.float32(op.scale) for input_type in input_types]
    if len(input_types) == 2 and all(low <= ratio < high for ratio in ratios):
        write_clamped(draft, node, lambda y, fused_activation: draft.append_operator(
            "ADD", draft.net.get_inputs(node), y, {"fusedActivationFunction": fused_activation}, 2
        ))  # fmt: skip
        return
    _write_wide_sum(draft, node, op, *op.compute_fixed_point(*input_types))


def _write_wide_sum(
    draft: IntegerDraft, node: Node, op: QAdd, factors: tuple[int, ...], shift: int
) -> None:
    """Add the definition of a sum as int32 operators."""
    name, input_types = node.name, draft.get_input_types(node)
    total, rounding = "", 1 << (shift - 1)
    for i, (source, input_type, factor) in enumerate(
        zip(draft.net.get_inputs(node), input_types, factors, strict=True)
    ):
        shape = draft.tensors[source].shape
        wide = draft.append_operator(
            "CAST", (source,), draft.add_tensor(f"{name}:wide{i}", shape, "int32")
        )
        term = draft.add_tensor(f"{name}:term{i}", shape, "int32")
        draft.append_operator(
            "MUL", (wide, draft.add_scalar(f"{name}/factor{i}", factor, "int32")), term
        )
        # The inputs' zero points form one constant, combined with the rounding term.
        rounding -= get_zero_point(input_type) * factor
        total = _add_sum(draft, total, term, f"{name}:total{i}") if total else term
    total = _add_sum(
        draft, total, draft.add_scalar(f"{name}/rounding", rounding, "int32"), f"{name}:total"
    )
    output = draft.add_value(name, node.type)
    shape = draft.tensors[output].shape
    steps = [
        draft.add_tensor(f"{name}:{suffix}", shape, "int32")
        for suffix in ("levels", "kept", "stored")
    ]
    draft.append_operator(
        "RIGHT_SHIFT", (total, draft.add_scalar(f"{name}/shift", shift, "int32")), steps[0]
    )
    draft.add_bounds(steps[0], steps[1], op.low, op.high)
    draft.append_operator(
        "ADD",
        (steps[1], draft.add_scalar(f"{name}/zero", get_zero_point(node.type), "int32")),
        steps[2],
    )
    draft.append_operator("CAST", (steps[2],), output)


def _add_sum(draft: IntegerDraft, first_term: str, second_term: str, name: str) -> str:
    shape = np.broadcast_shapes(draft.tensors[first_term].shape, draft.tensors[second_term].shape)
    return draft.append_operator(
        "ADD", (first_term, second_term), draft.add_tensor(name, tuple(shape), "int32")
    )


def write_mul(draft: IntegerDraft, node: Node) -> None:
    """Add MUL, or the exact float32 product and its rounding."""
    op, (a, b), name = node.op, draft.get_input_types(node), node.name
    assert isinstance(op, QMul)
    factor = integer_arithmetic.compute_multiplier(a, float(b.scale or 0), node.type)
    low, high = PRODUCT_RATIOS
    if low <= factor < high:
        write_clamped(draft, node, lambda y, fused_activation: draft.append_operator(
            "MUL", draft.net.get_inputs(node), y, {"fusedActivationFunction": fused_activation}, 2
        ))  # fmt: skip
        return
    first_factor, second_factor = (
        draft.add_dequantized(source, f"{name}:{i}", input_type)
        for i, (source, input_type) in enumerate(
            zip(draft.net.get_inputs(node), (a, b), strict=True)
        )
    )
    output = draft.add_value(name, node.type)
    shape = draft.tensors[output].shape
    product, scaled = (
        draft.add_tensor(f"{name}:{suffix}", shape, "float32") for suffix in ("product", "scaled")
    )
    draft.append_operator("MUL", (first_factor, second_factor), product)
    draft.append_operator(
        "MUL", (product, draft.add_scalar(f"{name}/factor", float(factor))), scaled
    )
    draft.add_rounding(scaled, output, node.type, op.low, op.high)


def write_mean(draft: IntegerDraft, node: Node) -> None:
    """Add exact float32 sums, their factors and the rounding."""
    op, (input_type,), (ones, factor), name = (
        node.op,
        draft.get_input_types(node),
        draft.get_weights(node),
        node.name,
    )
    assert isinstance(op, QAvgPool)
    source = draft.add_dequantized(draft.net.get_inputs(node)[0], name, input_type)
    source = draft.add_padding(source, f"{name}:padded", op.compute_padding(input_type))
    output = draft.add_value(name, node.type)
    shape = draft.tensors[output].shape
    total, scaled = (
        draft.add_tensor(f"{name}:{suffix}", shape, "float32") for suffix in ("sum", "scaled")
    )
    weight = draft.add_constant(node.params[0], ones.astype(np.float32).transpose(1, 2, 3, 0))
    bias = draft.add_constant(f"{name}/bias", np.zeros(len(ones), np.float32))
    options = {
        "padding": "VALID",
        "strideH": op.pool.step[0],
        "strideW": op.pool.step[1],
        "depthMultiplier": 1,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
    }
    draft.append_operator("DEPTHWISE_CONV_2D", (source, weight, bias), total, options)
    factors = draft.add_constant(node.params[1], factor.astype(np.float32)[..., None])
    draft.append_operator("MUL", (total, factors), scaled)
    draft.add_rounding(scaled, output, node.type, op.low, op.high)


def write_global_mean(draft: IntegerDraft, node: Node) -> None:
    """Add FULLY_CONNECTED with ones and channels as rows, because XNNPACK's MEAN rounds twice."""
    op, (input_type,), name = node.op, draft.get_input_types(node), node.name
    assert isinstance(op, QGlobalAvgPool)
    (source,), (channels, *size) = draft.net.get_inputs(node), input_type.shape
    channels_first = draft.add_tensor_like(source, f"{name}:channels", (1, channels, *size))
    draft.add_transpose(source, channels_first, (0, 3, 1, 2))
    # One row per channel: one filter of ones sums each row, with one factor for all.
    rows = draft.add_reshape(
        channels_first, draft.add_tensor_like(source, f"{name}:rows", (channels, prod(size)))
    )
    scale = limit_scales(
        input_type, np.asarray(mean_of.compute_element_share(input_type)), node.type
    )
    ones = np.ones((1, prod(size)), np.int8)
    weight = draft.add_constant(f"{name}/ones", ones, Quantization((float(scale),), (0,)))
    bias_quantization = Quantization((float(np.float32(input_type.scale) * scale),), (0,))
    bias = draft.add_constant(f"{name}/bias", np.zeros(1, np.int32), bias_quantization)

    def emit(output: str, fused_activation: str) -> str:
        channel_means = draft.add_tensor_like(output, f"{output}:each", (channels, 1))
        options = {"fusedActivationFunction": fused_activation}
        draft.append_operator("FULLY_CONNECTED", (rows, weight, bias), channel_means, options, 4)
        return draft.add_reshape(channel_means, output)

    write_clamped(draft, node, emit)


def write_pad(draft: IntegerDraft, node: Node) -> None:
    """Add a border: PAD for zeros, else constants concatenated with the map."""
    op, (input_type,), (source,) = node.op, draft.get_input_types(node), draft.net.get_inputs(node)
    assert isinstance(op, QPad)
    if not any(op.levels):
        draft.net.values[node.name] = draft.add_padding(source, node.name, op.padding)
        return
    border_values = np.array(op.levels) + get_zero_point(input_type)
    draft.net.values[node.name] = draft.add_border(source, node.name, op.padding, border_values)


def write_quantize(draft: IntegerDraft, node: Node) -> None:
    """Add a division by the scale and its rounding, because QUANTIZE multiplies by the inverse."""
    op, (source,), name = node.op, draft.net.get_inputs(node), node.name
    assert isinstance(op, Quantize)
    output = draft.add_value(name, node.type)
    steps = draft.add_tensor(f"{name}:steps", draft.tensors[output].shape, "float32")
    draft.append_operator("DIV", (source, draft.add_scalar(f"{name}/scale", op.scale)), steps)
    draft.add_rounding(steps, output, node.type, op.low, op.high)


def write_dequantize(draft: IntegerDraft, node: Node) -> None:
    """Add DEQUANTIZE."""
    draft.append_operator(
        "DEQUANTIZE", draft.net.get_inputs(node), draft.add_value(node.name, node.type), {}, 2
    )


def write_max_pool(draft: IntegerDraft, node: Node) -> None:
    """Add MAX_POOL_2D, after a border of the smallest value if SAME does not fit."""
    op, (input_type,) = node.op, draft.get_input_types(node)
    # A global maximum has one window over all pixels.
    kernel, stride, pads = (input_type.shape[1], input_type.shape[2]), (1, 1), (0, 0, 0, 0)
    if isinstance(op, MaxPool):
        kernel, stride, pads = op.kernel, op.step, op.pads
    source, padding_mode = draft.prepare_windows(
        node, (kernel, stride, pads), pads_with_minimum=True
    )
    options = {
        "padding": padding_mode,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
    }
    draft.append_operator(
        "MAX_POOL_2D", (source,), draft.add_value(node.name, node.type), options, 2
    )


def write_concat(draft: IntegerDraft, node: Node) -> None:
    """Add CONCATENATION along the channels."""
    draft.add_concat(
        draft.net.get_inputs(node), draft.add_value(node.name, node.type), len(node.type.shape)
    )


def write_slice(draft: IntegerDraft, node: Node) -> None:
    """Add STRIDED_SLICE of the channels."""
    op, (input_type,), (source,) = node.op, draft.get_input_types(node), draft.net.get_inputs(node)
    assert isinstance(op, Slice)
    start, stop, step = slice(op.start, op.stop, op.step).indices(input_type.shape[0])
    rank = len(input_type.shape)
    shape = draft.tensors[source].shape
    bounds = ((*(0,) * rank, start), (*shape[:-1], stop), (*(1,) * rank, step))
    output = draft.add_value(node.name, node.type)
    _add_strided_slice(draft, source, output, bounds)


def _add_strided_slice(
    draft: IntegerDraft, source: str, output: str, bounds: tuple[tuple[int, ...], ...]
) -> None:
    bound_names = ("begin", "end", "step")
    bound_constants = [
        draft.add_constant(f"{output}/{bound_name}", np.array(bound, np.int32))
        for bound_name, bound in zip(bound_names, bounds, strict=True)
    ]
    draft.append_operator("STRIDED_SLICE", (source, *bound_constants), output, {}, 2)


def write_channel_shuffle(draft: IntegerDraft, node: Node) -> None:
    """Add RESHAPE, TRANSPOSE and RESHAPE."""
    op, (input_type,), name = node.op, draft.get_input_types(node), node.name
    assert isinstance(op, ChannelShuffle)
    (channels, height, width), (source,) = input_type.shape, draft.net.get_inputs(node)
    group_size = channels // op.groups
    split = draft.add_tensor_like(
        source, f"{name}:split", (1, height, width, op.groups, group_size)
    )
    mixed = draft.add_tensor_like(
        source, f"{name}:mixed", (1, height, width, group_size, op.groups)
    )
    draft.add_reshape(source, split)
    draft.add_transpose(split, mixed, (0, 1, 2, 4, 3))
    draft.add_reshape(mixed, draft.add_value(name, node.type))


def write_resize(draft: IntegerDraft, node: Node) -> None:
    """Add GATHER of rows and columns: the runtime's nearest pixels come from inexact products."""
    op, (input_type,), (source,), name = (
        node.op, draft.get_input_types(node), draft.net.get_inputs(node), node.name
    )  # fmt: skip
    assert isinstance(op, Resize)
    final_output = draft.add_value(name, node.type)
    _, *size = input_type.shape
    _, *target = node.type.shape
    axes = [axis for axis in (0, 1) if size[axis] != target[axis]]
    for axis in axes:
        shape = [*draft.tensors[source].shape]
        shape[axis + 1] = target[axis]
        # floor(y * in / out) in integers, as in the op's definition.
        source_indices = np.arange(target[axis]) * size[axis] // target[axis]
        output = final_output
        if axis != axes[-1]:
            output = draft.add_tensor_like(source, f"{name}:rows", tuple(shape))
        index = draft.add_constant(f"{output}/index", source_indices.astype(np.int32))
        source = draft.append_operator("GATHER", (source, index), output, {"axis": axis + 1}, 2)


def write_reshape(draft: IntegerDraft, node: Node) -> None:
    """Add RESHAPE, for a map with the channels first."""
    (input_type,), (source,) = draft.get_input_types(node), draft.net.get_inputs(node)
    if len(input_type.shape) == 3 and input_type.shape[1:] != (1, 1):
        channels, height, width = input_type.shape
        channels_first = draft.add_tensor_like(
            source, f"{node.name}:first", (1, channels, height, width)
        )
        source = draft.add_transpose(source, channels_first, (0, 3, 1, 2))
    draft.add_reshape(source, draft.add_value(node.name, node.type))


INTEGER_OPERATORS: Mapping[type[Op], Callable[[IntegerDraft, Node], None]] = {
    QConv: write_conv,
    QAdd: write_add,
    QMul: write_mul,
    QAvgPool: write_mean,
    QGlobalAvgPool: write_global_mean,
    Table: write_table,
    QPad: write_pad,
    Quantize: write_quantize,
    Dequantize: write_dequantize,
    MaxPool: write_max_pool,
    GlobalMaxPool: write_max_pool,
    Concat: write_concat,
    Slice: write_slice,
    ChannelShuffle: write_channel_shuffle,
    Resize: write_resize,
    Flatten: write_reshape,
    Unflatten: write_reshape,
}
"""Writers of the integer program's operations; float nodes have float operators."""
