"""Arithmetic of values with each other and with constants."""

import operator
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tcc.compiler.onnx_import.convert.call import Array, Call, Operand
from tcc.compiler.onnx_import.convert.layers import scale_shift
from tcc.compiler.onnx_import.graph_builder import Refusal
from tcc.compiler.onnx_import.node_arguments import short
from tcc.compiler.onnx_import.tensor_view import View
from tcc.compiler.ops import Add, Mul, Op, Scale

Combine = Callable[[Array, Array], Array]


def add(call: Call) -> Operand:
    """Convert Add."""
    return _binary(call, operator.add, Add(), lambda x, c: affine(call, x, offset=c))


def mul(call: Call) -> Operand:
    """Convert Mul."""
    return _binary(call, operator.mul, Mul(), lambda x, c: affine(call, x, factor=c))


def _binary(
    call: Call, known: Combine, join: Op, constant: Callable[[View, Array], View]
) -> Operand:
    match call.operand(0), call.operand(1):
        case View(), View():
            return _joined(call, join, call.view(0), call.view(1))
        case View(), b:
            return constant(call.view(0), _weights(b))
        case a, View():
            return constant(call.view(1), _weights(a))
        case a, b:
            return known(a, b)


def sub(call: Call) -> Operand:
    """Convert Sub: a difference is a sum with what is multiplied by -1."""
    match call.operand(0), call.operand(1):
        case View(), View():
            return _joined(call, Add(), call.view(0), call.each(Scale(-1.0), call.view(1)))
        case View(), b:
            return affine(call, call.view(0), offset=-_weights(b))
        case a, View():
            return affine(call, call.each(Scale(-1.0), call.view(1)), offset=_weights(a))
        case a, b:
            return a - b


def div(call: Call) -> Operand:
    """Convert Div by a constant."""
    a, b = call.operand(0), call.operand(1)
    if isinstance(b, View):
        help = (
            "multiply by a sigmoid or another bounded value, or cut the file before it by --until"
        )
        raise Refusal("it divides by a value that is computed", help)
    with np.errstate(divide="ignore"):
        inverse = np.float32(1) / _weights(b)
    return affine(call, call.view(), factor=inverse) if isinstance(a, View) else a / b


def neg(call: Call) -> View:
    """Convert Neg."""
    return call.each(Scale(-1.0), call.view())


def power(call: Call) -> View:
    """Convert Pow with the exponent 2 or 3: a product of the value with itself."""
    given = call.operand(1)
    exponents = [] if isinstance(given, View) else np.unique(given).tolist()
    if exponents not in ([2], [3]):
        raise Refusal("it raises to another power than 2 or 3")
    return call.joined(Mul(), *[call.view()] * int(exponents[0]))


def total(call: Call) -> Operand:
    """Convert Sum."""
    found = call.operand(0)
    for position in range(1, len(call.inputs)):
        found = add(replace(call, inputs=(found, call.operand(position))))
    return found


def mean(call: Call) -> Operand:
    """Convert Mean of several values."""
    found, share = total(call), np.asarray(1 / len(call.inputs), np.float32)
    return affine(call, found, factor=share) if isinstance(found, View) else found * share


def _joined(call: Call, op: Op, a: View, b: View) -> View:
    """Return a sum or product; what is spread over all pixels need not be."""
    if a.settled and b.settled:
        if len(a.shape) != len(b.shape):
            raise Refusal(f"it joins values of {len(a.shape)} and {len(b.shape)} axes")
        values = [call.build.unspread(view.value) for view in (a, b)]
        if call.build.type(values[0]).shape[1:] == call.build.type(values[1]).shape[1:] == (1, 1):
            values = [a.value, b.value]
        return call.emit(op, *(call.build.view(value) for value in values))
    if a.type != b.type or not a.whole() or not np.array_equal(a.positions(), b.positions()):
        raise Refusal("it joins values that are arranged in different ways")
    value = call.build.emit(call.name, op, [a.value, b.value])
    return a.other(value, call.build.type(value))


def _weights(constant: Operand) -> Array:
    if isinstance(constant, View):
        raise TypeError(constant)
    if constant.dtype not in (np.float32, np.float64, np.float16):
        raise Refusal(f"its constant is {constant.dtype}, not float32")
    return constant.astype(np.float32)


def affine(call: Call, x: View, factor: Array | None = None, offset: Array | None = None) -> View:
    """Return a value times a constant, or plus one: a number, or one for each channel."""
    given = np.asarray(factor if factor is not None else offset, np.float32)
    if given.size == 1 and given.ndim <= len(x.shape):
        number = short(float(given.reshape(-1)[0]))
        return call.each(Scale(number) if factor is not None else Scale(offset=number), x)
    per_channel = _per_channel(x, given)
    one, zero = np.ones_like(per_channel), np.zeros_like(per_channel)
    if factor is not None:
        return scale_shift(call, x, per_channel, zero)
    return scale_shift(call, x, one, per_channel)


def _per_channel(x: View, constant: Array) -> Array:
    """Return a constant as one number for each channel, shaped to broadcast."""
    try:
        spread = x.unmoved(constant)
    except ValueError:
        spread = None
    if spread is None:
        raise Refusal(f"its constant is {list(constant.shape)}, the value {list(x.shape)}")
    rows = spread.reshape(spread.shape[0], -1)
    if (rows != rows[:, :1]).any():
        help = (
            "as position embeddings of transformers do; constants are one number for each channel"
        )
        raise Refusal("its constant differs from pixel to pixel", help)
    return rows[:, :1].reshape(spread.shape[0], *(1 for _ in spread.shape[1:]))
