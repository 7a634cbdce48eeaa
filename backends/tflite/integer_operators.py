"""The integer program as int8 operators that XNNPACK computes to the bit.

What it has no exact operator for is put together: sums of extreme scales and of many values from
int32 operators, means of unequal windows and products of extreme scales from float32 ones whose
numbers are whole.
"""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_draft import Array, IntegerDraft, zero
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
    Quantized,
    Table,
)
from tcc.compiler.ops.integer import mean as mean_of

SMOOTH: dict[type[Op], float] = {Sigmoid: 0, Silu: 0, Tanh: 0, HardSwish: 1, HardSigmoid: 1}
"""Functions that runtimes compute within `ERROR` of their magnitude and of this number."""
ERROR = 2.0**-20
ROUNDING = 1e-4
"""Levels that the step from real numbers to levels may be off."""


def table(draft: IntegerDraft, node: Node) -> None:
    """Add the function in float32 between levels, or GATHER from the table.

    XNNPACK has no table of 256 levels; its floats are eight times as fast as GATHER.
    """
    op, (x,), (entries,) = node.op, draft.types(node), draft.weights(node)
    assert isinstance(op, Table)
    # Proved over all 256 levels: floats are used only where no error that a runtime may make
    # changes an entry.
    if sure(op, x, entries):
        _in_floats(draft, node, op)
    else:
        _gathered(draft, node, entries)


def sure(op: Table, x: TensorType, entries: Array) -> bool:
    """Whether float32 arithmetic rounds to the table's entry from every level of the input."""
    least_size = SMOOTH.get(type(op.function))
    if least_size is None or type(op.function) not in FLOAT:
        return False
    real = (np.arange(256) + x.limits[0]) * np.float64(x.scale or 0)
    scale, least = np.float64(op.scale), op.typed(()).limits[0]
    y = op.function.float64(real)
    steps = np.clip(y / scale, op.low, op.high)
    # How far each result lies from the tie at which rounding turns.
    apart = np.abs(steps - np.floor(steps) - 0.5)
    off = ROUNDING + ERROR * (least_size + np.abs(y)) / scale
    found = np.rint(steps) - least == entries
    return bool(np.abs(real).max() < 2.0**60 and found.all() and (apart > off).all())


def _in_floats(draft: IntegerDraft, node: Node, op: Table) -> None:
    net, name = draft.net, node.name
    source = draft.value(f"{name}:given", TensorType(draft.types(node)[0].shape))
    draft.run("DEQUANTIZE", net.inputs(node), source, {}, 2)
    apart = Node(f"{name}:float", op.function, (f"{name}:given",), (), TensorType(node.type.shape))
    result = FLOAT[type(op.function)](net, apart, op.function)
    draft.run("QUANTIZE", (result,), draft.value(name, node.type))


def _gathered(draft: IntegerDraft, node: Node, entries: Array) -> None:
    """Add GATHER from the table by what is stored, counted from its least."""
    name, (source,) = node.name, draft.net.inputs(node)
    shape = draft.tensors[source].shape
    wide, index = (draft.tensor(f"{name}:{what}", shape, "int32") for what in ("wide", "index"))
    draft.run("CAST", (source,), wide)
    # Indices count from 0, levels from -128.
    draft.run("ADD", (wide, draft.number(f"{name}/128", 128, "int32")), index)
    output = draft.value(name, node.type)
    stored = (entries.astype(np.int16) - 128).astype(np.int8)
    found = draft.constant(node.params[0], stored, draft.tensors[output].quantization)
    draft.run("GATHER", (found, index), output, {"axis": 0}, 2)


LARGEST_FACTOR = 2.0**8
"""XNNPACK wants smaller factors from sums to levels."""
SATURATED = 255.75
"""As good as any larger factor: one step of the sum is already more than the range of levels."""
SMALLEST_FACTOR = 2.0**-32
"""XNNPACK wants no smaller factors either."""
HARDLY = SMALLEST_FACTOR * (1 + 2.0**-20)
"""As good as any smaller factor: no sum reaches half a step."""
SUM_RATIOS = (2.0**-10, 2.0**8)
PRODUCT_RATIOS = (2.0**-16, 2.0**8)
"""From the least ratio of scales that XNNPACK takes to the first that it does not."""


def activation(op: Quantized, y: TensorType) -> str | None:
    """Return the format's activation whose bounds are an operation's; None if there is none."""
    low, high = y.limits
    if (op.low, op.high) == (low, high):
        return "NONE"
    if op.low != max(low, 0):
        return None
    if op.high == high:
        return "RELU"
    # RELU6's bound is a real 6, which a runtime rounds to a level by itself: taken only where no
    # way to round gives another.
    six = 6 / np.float64(op.scale)
    sure = abs(six % 1 - 0.5) > 1e-3 and op.high == round(six)  # however a runtime rounds it
    return "RELU6" if sure else None


def clamped(draft: IntegerDraft, node: Node, emit: Callable[[str, str], str]) -> None:
    """Add what `emit` adds for an output and an activation, and the clamp that it lacks."""
    op, y = node.op, node.type
    assert isinstance(op, Quantized)
    word = activation(op, y)
    output = draft.value(node.name, y)
    if word is not None:
        emit(output, word)
        return
    wide = draft.like(output, f"{node.name}:wide", draft.tensors[output].shape)
    emit(wide, "NONE")
    draft.between(wide, output, op.low + zero(y), op.high + zero(y))


def conv(draft: IntegerDraft, node: Node) -> None:
    """Add CONV_2D or DEPTHWISE_CONV_2D, after a PAD where its words for padding do not do."""
    op, (x,) = node.op, draft.types(node)
    assert isinstance(op, QConv)
    how, channels = op.conv, x.shape[0]
    by_channel = how.groups == channels and channels > 1
    code = "DEPTHWISE_CONV_2D" if by_channel else "CONV_2D"
    source, word = draft.placed(node, (how.window, how.stride, how.pads))
    inputs = (source, *_weights(draft, node, by_channel=by_channel))
    options = {
        "padding": word,
        "strideH": how.stride[0],
        "strideW": how.stride[1],
        "dilationHFactor": how.dilation[0],
        "dilationWFactor": how.dilation[1],
        **({"depthMultiplier": how.filters // channels} if by_channel else {}),
    }
    # TFLite's op_version.cc: 3 is the first version of either operator that takes int8, 6 the first
    # whose filters read some of the channels.
    version = 6 if how.groups > 1 and not by_channel else 3
    clamped(draft, node, lambda y, word: draft.run(
        code, inputs, y, {**options, "fusedActivationFunction": word}, version
    ))  # fmt: skip


def _weights(draft: IntegerDraft, node: Node, *, by_channel: bool) -> tuple[str, str]:
    """Add the weights and the bias of a convolution; return their names."""
    (x,), (weight, scale, bias) = draft.types(node), draft.weights(node)
    # The format's layouts: depthwise filters lie last, others first.
    order, axis = ((1, 2, 3, 0), 3) if by_channel else ((0, 2, 3, 1), 0)
    scale = within_reach(x, scale.astype(np.float32), node.type)
    zeros = (0,) * len(scale)
    means = Quantization(tuple(map(float, scale)), zeros, axis)
    steps = Quantization(tuple(map(float, np.float32(x.scale) * scale)), zeros)
    return (
        draft.constant(node.params[0], weight.transpose(order), means),
        draft.constant(node.params[2], raised(bias, weight, x, node.type), steps),
    )


def raised(bias: Array, weight: Array, x: TensorType, y: TensorType) -> Array:
    """Return biases of which none is needlessly small: XNNPACK's scaled sums may reach -2**31.

    Some of its kernels then wrap where they add a zero point that is not 0. A channel that no input
    makes positive is 0 where levels are unsigned, however far below zero its sums are.
    """
    if not zero(y):
        return bias.astype(np.int32)
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    low, high = x.limits
    largest = np.maximum(flat * low, flat * high).sum(axis=1)
    least: Array = np.maximum(bias.astype(np.int64), -largest)
    return least.astype(np.int32)


def within_reach(
    x: TensorType, scale: integer_arithmetic.Float32, y: TensorType
) -> integer_arithmetic.Float32:
    """Return weight scales whose factors a runtime takes; no level differs by them."""
    factor, one = (
        integer_arithmetic.multiplier(x, scale, y),
        np.float32(y.scale) / np.float32(x.scale),
    )
    raised = np.where(factor < SMALLEST_FACTOR, np.float32(HARDLY) * one, scale)
    saturated = np.float32(SATURATED) * one
    return np.where(factor < LARGEST_FACTOR, raised, saturated).astype(np.float32)


def add(draft: IntegerDraft, node: Node) -> None:
    """Add ADD, or int32 arithmetic for what it does not compute exactly."""
    op, xs = node.op, draft.types(node)
    assert isinstance(op, QAdd)
    low, high = SUM_RATIOS
    ratios = [np.float32(x.scale) / np.float32(op.scale) for x in xs]
    if len(xs) == 2 and all(low <= ratio < high for ratio in ratios):
        clamped(draft, node, lambda y, word: draft.run(
            "ADD", draft.net.inputs(node), y, {"fusedActivationFunction": word}, 2
        ))  # fmt: skip
        return
    _wide_sum(draft, node, op, *op.fixed_point(*xs))


def _wide_sum(
    draft: IntegerDraft, node: Node, op: QAdd, factors: tuple[int, ...], shift: int
) -> None:
    """Add the definition of a sum as it stands, in int32."""
    name, xs = node.name, draft.types(node)
    total, rounding = "", 1 << (shift - 1)
    for i, (value, x, m) in enumerate(zip(draft.net.inputs(node), xs, factors, strict=True)):
        shape = draft.tensors[value].shape
        wide = draft.run("CAST", (value,), draft.tensor(f"{name}:wide{i}", shape, "int32"))
        term = draft.tensor(f"{name}:term{i}", shape, "int32")
        draft.run("MUL", (wide, draft.number(f"{name}/factor{i}", m, "int32")), term)
        # The inputs' zero points are one constant, taken together with the rounding term.
        rounding -= zero(x) * m
        total = _plus(draft, total, term, f"{name}:total{i}") if total else term
    total = _plus(
        draft, total, draft.number(f"{name}/rounding", rounding, "int32"), f"{name}:total"
    )
    output = draft.value(name, node.type)
    shape = draft.tensors[output].shape
    steps = [draft.tensor(f"{name}:{w}", shape, "int32") for w in ("levels", "kept", "stored")]
    draft.run("RIGHT_SHIFT", (total, draft.number(f"{name}/shift", shift, "int32")), steps[0])
    draft.between(steps[0], steps[1], op.low, op.high)
    draft.run("ADD", (steps[1], draft.number(f"{name}/zero", zero(node.type), "int32")), steps[2])
    draft.run("CAST", (steps[2],), output)


def _plus(draft: IntegerDraft, first: str, second: str, name: str) -> str:
    shape = np.broadcast_shapes(draft.tensors[first].shape, draft.tensors[second].shape)
    return draft.run("ADD", (first, second), draft.tensor(name, tuple(shape), "int32"))


def mul(draft: IntegerDraft, node: Node) -> None:
    """Add MUL, or the float32 product, which is exact, and its rounding."""
    op, (a, b), name = node.op, draft.types(node), node.name
    assert isinstance(op, QMul)
    factor = integer_arithmetic.multiplier(a, float(b.scale or 0), node.type)
    low, high = PRODUCT_RATIOS
    if low <= factor < high:
        clamped(draft, node, lambda y, word: draft.run(
            "MUL", draft.net.inputs(node), y, {"fusedActivationFunction": word}, 2
        ))  # fmt: skip
        return
    first, second = (
        draft.floats(value, f"{name}:{i}", x)
        for i, (value, x) in enumerate(zip(draft.net.inputs(node), (a, b), strict=True))
    )
    output = draft.value(name, node.type)
    shape = draft.tensors[output].shape
    product, scaled = (draft.tensor(f"{name}:{w}", shape, "float32") for w in ("product", "scaled"))
    draft.run("MUL", (first, second), product)
    draft.run("MUL", (product, draft.number(f"{name}/factor", float(factor))), scaled)
    draft.rounded(scaled, output, node.type, op.low, op.high)


def mean(draft: IntegerDraft, node: Node) -> None:
    """Add float32 sums, which are exact, their factors and the rounding."""
    op, (x,), (ones, factor), name = node.op, draft.types(node), draft.weights(node), node.name
    assert isinstance(op, QAvgPool)
    source = draft.floats(draft.net.inputs(node)[0], name, x)
    source = draft.padded(source, f"{name}:padded", op.padding(x))
    output = draft.value(name, node.type)
    shape = draft.tensors[output].shape
    total, scaled = (draft.tensor(f"{name}:{what}", shape, "float32") for what in ("sum", "scaled"))
    weight = draft.constant(node.params[0], ones.astype(np.float32).transpose(1, 2, 3, 0))
    bias = draft.constant(f"{name}/bias", np.zeros(len(ones), np.float32))
    options = {
        "padding": "VALID",
        "strideH": op.pool.step[0],
        "strideW": op.pool.step[1],
        "depthMultiplier": 1,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
    }
    draft.run("DEPTHWISE_CONV_2D", (source, weight, bias), total, options)
    factors = draft.constant(node.params[1], factor.astype(np.float32)[..., None])
    draft.run("MUL", (total, factors), scaled)
    draft.rounded(scaled, output, node.type, op.low, op.high)


def global_mean(draft: IntegerDraft, node: Node) -> None:
    """Add a FULLY_CONNECTED with ones, of channels as rows: XNNPACK's MEAN rounds twice."""
    op, (x,), name = node.op, draft.types(node), node.name
    assert isinstance(op, QGlobalAvgPool)
    (source,), (channels, *size) = draft.net.inputs(node), x.shape
    turned = draft.like(source, f"{name}:channels", (1, channels, *size))
    draft.transposed(source, turned, (0, 3, 1, 2))
    # One row a channel: one filter of ones then sums each of them, with one factor for all.
    rows = draft.reshaped(turned, draft.like(source, f"{name}:rows", (channels, prod(size))))
    scale = within_reach(x, np.asarray(mean_of.share(x)), node.type)
    ones = np.ones((1, prod(size)), np.int8)
    weight = draft.constant(f"{name}/ones", ones, Quantization((float(scale),), (0,)))
    step = Quantization((float(np.float32(x.scale) * scale),), (0,))
    bias = draft.constant(f"{name}/bias", np.zeros(1, np.int32), step)

    def emit(output: str, word: str) -> str:
        each = draft.like(output, f"{output}:each", (channels, 1))
        options = {"fusedActivationFunction": word}
        draft.run("FULLY_CONNECTED", (rows, weight, bias), each, options, 4)
        return draft.reshaped(each, output)

    clamped(draft, node, emit)


def pad(draft: IntegerDraft, node: Node) -> None:
    """Add a border: PAD for zeros, else constants that are joined to the map."""
    op, (x,), (source,) = node.op, draft.types(node), draft.net.inputs(node)
    assert isinstance(op, QPad)
    if not any(op.levels):
        draft.net.values[node.name] = draft.padded(source, node.name, op.padding)
        return
    stored = np.array(op.levels) + zero(x)
    draft.net.values[node.name] = draft.bordered(source, node.name, op.padding, stored)


def quantized(draft: IntegerDraft, node: Node) -> None:
    """Add the division by the scale and its rounding: QUANTIZE multiplies by the inverse."""
    op, (source,), name = node.op, draft.net.inputs(node), node.name
    assert isinstance(op, Quantize)
    output = draft.value(name, node.type)
    steps = draft.tensor(f"{name}:steps", draft.tensors[output].shape, "float32")
    draft.run("DIV", (source, draft.number(f"{name}/scale", op.scale)), steps)
    draft.rounded(steps, output, node.type, op.low, op.high)


def dequantized(draft: IntegerDraft, node: Node) -> None:
    """Add DEQUANTIZE."""
    draft.run("DEQUANTIZE", draft.net.inputs(node), draft.value(node.name, node.type), {}, 2)


def max_pool(draft: IntegerDraft, node: Node) -> None:
    """Add MAX_POOL_2D, after a border of the smallest level where SAME does not say it."""
    op, (x,) = node.op, draft.types(node)
    # A global maximum is one window over all.
    kernel, stride, pads = (x.shape[1], x.shape[2]), (1, 1), (0, 0, 0, 0)
    if isinstance(op, MaxPool):
        kernel, stride, pads = op.kernel, op.step, op.pads
    source, word = draft.placed(node, (kernel, stride, pads), smallest=True)
    options = {
        "padding": word,
        "strideH": stride[0],
        "strideW": stride[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
    }
    draft.run("MAX_POOL_2D", (source,), draft.value(node.name, node.type), options, 2)


def concat(draft: IntegerDraft, node: Node) -> None:
    """Add CONCATENATION along the channels."""
    draft.joined(draft.net.inputs(node), draft.value(node.name, node.type), len(node.type.shape))


def sliced(draft: IntegerDraft, node: Node) -> None:
    """Add STRIDED_SLICE of the channels."""
    op, (x,), (source,) = node.op, draft.types(node), draft.net.inputs(node)
    assert isinstance(op, Slice)
    start, stop, step = slice(op.start, op.stop, op.step).indices(x.shape[0])
    rank = len(x.shape)
    shape = draft.tensors[source].shape
    bounds = ((*(0,) * rank, start), (*shape[:-1], stop), (*(1,) * rank, step))
    output = draft.value(node.name, node.type)
    _slice(draft, source, output, bounds)


def _slice(
    draft: IntegerDraft, source: str, output: str, bounds: tuple[tuple[int, ...], ...]
) -> None:
    words = ("begin", "end", "step")
    names = [
        draft.constant(f"{output}/{word}", np.array(bound, np.int32))
        for word, bound in zip(words, bounds, strict=True)
    ]
    draft.run("STRIDED_SLICE", (source, *names), output, {}, 2)


def shuffled(draft: IntegerDraft, node: Node) -> None:
    """Add RESHAPE, TRANSPOSE and RESHAPE."""
    op, (x,), name = node.op, draft.types(node), node.name
    assert isinstance(op, ChannelShuffle)
    (channels, height, width), (source,) = x.shape, draft.net.inputs(node)
    each = channels // op.groups
    split = draft.like(source, f"{name}:split", (1, height, width, op.groups, each))
    mixed = draft.like(source, f"{name}:mixed", (1, height, width, each, op.groups))
    draft.reshaped(source, split)
    draft.transposed(split, mixed, (0, 1, 2, 4, 3))
    draft.reshaped(mixed, draft.value(name, node.type))


def resized(draft: IntegerDraft, node: Node) -> None:
    """Add GATHER of rows and of columns: the runtime's nearest are those of inexact products."""
    op, (x,), (source,), name = (
        node.op, draft.types(node), draft.net.inputs(node), node.name
    )  # fmt: skip
    assert isinstance(op, Resize)
    last = draft.value(name, node.type)
    _, *size = x.shape
    _, *target = node.type.shape
    axes = [axis for axis in (0, 1) if size[axis] != target[axis]]
    for axis in axes:
        shape = [*draft.tensors[source].shape]
        shape[axis + 1] = target[axis]
        # floor(y * in / out) in whole numbers, as the language has it.
        places = np.arange(target[axis]) * size[axis] // target[axis]
        output = last
        if axis != axes[-1]:
            output = draft.like(source, f"{name}:rows", tuple(shape))
        index = draft.constant(f"{output}/index", places.astype(np.int32))
        source = draft.run("GATHER", (source, index), output, {"axis": axis + 1}, 2)


def flattened(draft: IntegerDraft, node: Node) -> None:
    """Add RESHAPE, of a map with the channels first."""
    (x,), (source,) = draft.types(node), draft.net.inputs(node)
    if len(x.shape) == 3 and x.shape[1:] != (1, 1):
        channels, height, width = x.shape
        first = draft.like(source, f"{node.name}:first", (1, channels, height, width))
        source = draft.transposed(source, first, (0, 3, 1, 2))
    draft.reshaped(source, draft.value(node.name, node.type))


INTEGER_OPERATORS: Mapping[type[Op], Callable[[IntegerDraft, Node], None]] = {
    QConv: conv, QAdd: add, QMul: mul, QAvgPool: mean, QGlobalAvgPool: global_mean,
    Table: table, QPad: pad, Quantize: quantized, Dequantize: dequantized,
    MaxPool: max_pool, GlobalMaxPool: max_pool, Concat: concat,
    Slice: sliced, ChannelShuffle: shuffled, Resize: resized,
    Flatten: flattened, Unflatten: flattened,
}  # fmt: skip
"""What writes each operation of the integer program; a float one has float operators."""
