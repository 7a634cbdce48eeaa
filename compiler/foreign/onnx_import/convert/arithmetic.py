"""Arithmetic of values with each other and with constants."""

import operator
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tcc.compiler.foreign.onnx_import.convert.layers import scale_shift
from tcc.compiler.foreign.onnx_import.convert.onnx_node import Array, OnnxNode, Operand
from tcc.compiler.foreign.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.foreign.onnx_import.node_arguments import short
from tcc.compiler.foreign.onnx_import.tensor_view import View
from tcc.compiler.ops import Add, Mul, Op, Scale

Combine = Callable[[Array, Array], Array]


def add(node: OnnxNode) -> Operand:
    """Convert Add."""
    return _binary(node, operator.add, Add(), lambda x, c: affine(node, x, offset=c))


def mul(node: OnnxNode) -> Operand:
    """Convert Mul."""
    return _binary(node, operator.mul, Mul(), lambda x, c: affine(node, x, factor=c))


def _binary(
    node: OnnxNode, known: Combine, join: Op, constant: Callable[[View, Array], View]
) -> Operand:
    match node.operand(0), node.operand(1):
        case View(), View():
            return _joined(node, join, node.view(0), node.view(1))
        case View(), b:
            return constant(node.view(0), _weights(b))
        case a, View():
            return constant(node.view(1), _weights(a))
        case a, b:
            return known(a, b)


def sub(node: OnnxNode) -> Operand:
    """Convert Sub: a difference is a sum with what is multiplied by -1."""
    match node.operand(0), node.operand(1):
        case View(), View():
            return _joined(node, Add(), node.view(0), node.each(Scale(-1.0), node.view(1)))
        case View(), b:
            return affine(node, node.view(0), offset=-_weights(b))
        case a, View():
            return affine(node, node.each(Scale(-1.0), node.view(1)), offset=_weights(a))
        case a, b:
            return a - b


def div(node: OnnxNode) -> Operand:
    """Convert Div by a constant."""
    a, b = node.operand(0), node.operand(1)
    if isinstance(b, View):
        help = (
            "multiply by a sigmoid or another bounded value, or cut the file before it by --until"
        )
        raise OperatorRefusal("it divides by a value that is computed", help)
    with np.errstate(divide="ignore"):
        # The language multiplies, it does not divide: the inverse is rounded once more, by 2^-24 of
        # itself. Infinite, where b is 0, it is refused as every weight that is not finite.
        inverse = np.float32(1) / _weights(b)
    return affine(node, node.view(), factor=inverse) if isinstance(a, View) else a / b


def neg(node: OnnxNode) -> View:
    """Convert Neg."""
    return node.each(Scale(-1.0), node.view())


def power(node: OnnxNode) -> View:
    """Convert Pow with the exponent 2 or 3: a product of the value with itself."""
    given = node.operand(1)
    exponents = [] if isinstance(given, View) else np.unique(given).tolist()
    if exponents not in ([2], [3]):
        raise OperatorRefusal("it raises to another power than 2 or 3")
    return node.joined(Mul(), *[node.view()] * int(exponents[0]))


def total(node: OnnxNode) -> Operand:
    """Convert Sum."""
    found = node.operand(0)
    for position in range(1, len(node.inputs)):
        found = add(replace(node, inputs=(found, node.operand(position))))
    return found


def mean(node: OnnxNode) -> Operand:
    """Convert Mean of several values."""
    found, share = total(node), np.asarray(1 / len(node.inputs), np.float32)
    return affine(node, found, factor=share) if isinstance(found, View) else found * share


def _joined(node: OnnxNode, op: Op, a: View, b: View) -> View:
    """Return a sum or product; what is spread over all pixels need not be."""
    # ONNX broadcasts from the last axis backwards (numpy's rules), the language from channels: they
    # agree where ranks are equal.
    if a.settled and b.settled:
        if len(a.shape) != len(b.shape):
            raise OperatorRefusal(f"it joins values of {len(a.shape)} and {len(b.shape)} axes")
        # A mean that was expanded over all pixels to be multiplied: `mul` broadcasts it by itself.
        values = [node.build.unspread(view.value) for view in (a, b)]
        if node.build.type(values[0]).shape[1:] == node.build.type(values[1]).shape[1:] == (1, 1):
            values = [a.value, b.value]
        return node.emit(op, *(node.build.view(value) for value in values))
    # Element by element whatever the order, if it is one order: a transposed pair is joined as it
    # was before it was transposed, and the result is looked at in the same way.
    if a.type != b.type or not a.whole() or not np.array_equal(a.positions(), b.positions()):
        raise OperatorRefusal("it joins values that are arranged in different ways")
    value = node.build.emit(node.name, op, [a.value, b.value])
    return a.other(value, node.build.type(value))


def _weights(constant: Operand) -> Array:
    if isinstance(constant, View):
        raise TypeError(constant)
    # Integers and booleans belong to shapes or masks: arithmetic with them is no layer's.
    if constant.dtype not in (np.float32, np.float64, np.float16):
        raise OperatorRefusal(f"its constant is {constant.dtype}, not float32")
    return constant.astype(np.float32)


def affine(
    node: OnnxNode, x: View, factor: Array | None = None, offset: Array | None = None
) -> View:
    """Return a value times a constant, or plus one: a number, or one for each channel.

    Args:
        node: The node that asks for it.
        x: The value.
        factor: What it is multiplied by, shaped to broadcast as ONNX has it.
        offset: What is added to it, likewise. One of the two is given.
    """
    given = np.asarray(factor if factor is not None else offset, np.float32)
    # One number stays one in the spec, where a reader sees it, and is no weight to be trained.
    if given.size == 1 and given.ndim <= len(x.shape):
        number = short(float(given.reshape(-1)[0]))
        return node.each(Scale(number) if factor is not None else Scale(offset=number), x)
    per_channel = _per_channel(x, given)
    one, zero = np.ones_like(per_channel), np.zeros_like(per_channel)
    if factor is not None:
        return scale_shift(node, x, per_channel, zero)
    # Two steps for a product and a sum; `simplify` joins them.
    return scale_shift(node, x, one, per_channel)


def _per_channel(x: View, constant: Array) -> Array:
    """Return a constant as one number for each channel, shaped to broadcast."""
    try:
        spread = x.unmoved(constant)
    except ValueError:
        spread = None
    if spread is None:
        raise OperatorRefusal(f"its constant is {list(constant.shape)}, the value {list(x.shape)}")
    rows = spread.reshape(spread.shape[0], -1)
    if (rows != rows[:, :1]).any():
        help = (
            "as position embeddings of transformers do; constants are one number for each channel"
        )
        raise OperatorRefusal("its constant differs from pixel to pixel", help)
    return rows[:, :1].reshape(spread.shape[0], *(1 for _ in spread.shape[1:]))
