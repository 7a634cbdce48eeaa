"""Functions of one element, softmax, and what does nothing at inference."""

import operator
from collections.abc import Callable
from dataclasses import replace
from math import isclose, pi, sqrt

import numpy as np

from tcc.compiler.foreign.onnx_import.convert.layers import scale_shift
from tcc.compiler.foreign.onnx_import.convert.onnx_node import Array, OnnxNode, Operand
from tcc.compiler.foreign.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.foreign.onnx_import.node_arguments import short
from tcc.compiler.foreign.onnx_import.tensor_view import View, last_axis_channels
from tcc.compiler.ops import (
    Add,
    Gelu,
    HardSigmoid,
    LeakyRelu,
    Mul,
    Op,
    Relu,
    Relu6,
    Scale,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from tcc.compiler.ops.elementwise import ScalarFunction

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


UNBOUNDED = 3e38
"""What exporters write for no bound: the largest float32, or infinity."""
WIDEST = 100.0
"""Largest bound that is brought to 0 or 6 by scaling, which costs small values their last bits."""


def single(op: type[Op]) -> Callable[[OnnxNode], View]:
    """Return the converter of the operator that is an op by itself, as its class reads it."""

    def convert(node: OnnxNode) -> View:
        # Attributes are float32 in a file: `short` writes 0.01 where 0.009999999776482582 is held.
        given = node.origin.attrs.items()
        attributes = {name: short(v) if isinstance(v, float) else v for name, v in given}
        made = op.from_onnx(attributes)
        # Whatever the order of the elements: no transposition around an activation needs a step.
        if isinstance(made, ScalarFunction):  # whatever the order of the elements
            return node.each(made, node.view())
        return node.emit(made, *(node.settled(place) for place in range(len(node.inputs))))

    return convert


def prelu(node: OnnxNode) -> View:
    """Convert PRelu: with slopes for each channel, max(x, 0) - slope * max(-x, 0)."""
    x, slopes = node.view(), node.weights(1)
    if np.unique(slopes).size == 1:
        return node.each(LeakyRelu(short(float(slopes.flat[0]))), x)
    # The language has one slope for a tensor (leaky_relu); by channel, the negative part is taken
    # out, scaled and put back, which is exact: one of the two terms is always 0.
    below = node.each(Relu(), node.each(Scale(-1.0), x))
    return node.joined(Add(), node.each(Relu(), x), affine(node, below, factor=-slopes))


def hard_sigmoid(node: OnnxNode) -> View:
    """Convert HardSigmoid; unless it is x / 6 + 1/2 between bounds, x is scaled before.

    Exporters write 1/6 with as many digits as float32 has, and ONNX's own default is 1/5.
    """
    # relu6(x + 3) / 6 is PyTorch's and the language's; 0.2 is ONNX's default, and Keras 2's.
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return node.each(HardSigmoid(), node.view())
    return node.each(HardSigmoid(), _scaled(node, node.view(), 6 * alpha, 6 * (beta - 0.5)))


def gelu(node: OnnxNode) -> View:
    """Convert Gelu: exact, or x / 2 * (1 + tanh(a * x * (1 + b * x * x)))."""
    x = node.view()
    match node.attribute("approximate", "none"):
        case "none":
            return node.each(Gelu(), x)
        case "tanh":
            return _by_tanh(node, x)
        case other:
            raise OperatorRefusal(f"it approximates by `{other}`", "`none` and `tanh` are known")


def _by_tanh(node: OnnxNode, x: View) -> View:
    # 0.044715 and sqrt(2 / pi): Hendrycks and Gimpel, Gaussian Error Linear Units, 2016
    slope = sqrt(2 / pi)
    square = _scaled(node, node.joined(Mul(), x, x), 0.044715 * slope, slope)
    gate = node.each(Tanh(), node.joined(Mul(), x, square))
    return node.joined(Mul(), x, _scaled(node, gate, 0.5, 0.5))


def swish(node: OnnxNode) -> View:
    """Convert Swish: x * sigmoid(alpha * x)."""
    x, alpha = node.view(), node.attribute("alpha", 1.0)
    if alpha == 1.0:
        return node.each(Silu(), x)
    return node.joined(Mul(), x, node.each(Sigmoid(), _scaled(node, x, alpha, 0.0)))


def clip(node: OnnxNode) -> Operand:
    """Convert Clip; bounds that no activation has are brought to those of one."""
    low, high = node.scalar("min", 1, float("-inf")), node.scalar("max", 2, float("inf"))
    return _clipped(node, node.operand(0), low, high)


def largest(node: OnnxNode) -> Operand:
    """Convert Max with a number, which is the lower bound."""
    x, number = _with_number(node)
    return _clipped(node, x, number, float("inf"))


def smallest(node: OnnxNode) -> Operand:
    """Convert Min with a number, which is the upper bound."""
    x, number = _with_number(node)
    return _clipped(node, x, float("-inf"), number)


def _with_number(node: OnnxNode) -> tuple[View, float]:
    # The number may stand first or second.
    views = [i for i, x in enumerate(node.inputs) if isinstance(x, View)]
    others = [i for i in range(len(node.inputs)) if i not in views]
    if len(views) != 1 or len(others) != 1 or node.weights(others[0]).size != 1:
        raise OperatorRefusal(
            "it compares values with each other", "only a bound that is one number is known"
        )
    return node.view(views[0]), float(node.weights(others[0]).flat[0])


def _clipped(node: OnnxNode, given: Operand, low: float, high: float) -> Operand:
    """Return a value held between bounds: by relu and relu6, after a scaling that is undone.

    With both bounds, x is brought to where these are 0 and 6; with one, to where it is 0.
    """
    below, above = low > -UNBOUNDED, high < UNBOUNDED
    if not isinstance(given, View):
        return np.clip(given, low, high)
    x = node.build.settle(given)
    if not below and not above:
        return given
    if low >= high or max(abs(low) * below, abs(high) * above) > WIDEST:
        why = f"bounds of at most {WIDEST:g} are known"
        why = "its `min` is not below its `max`" if low >= high else why
        raise OperatorRefusal(f"it clips to {low:g} ... {high:g}", why)
    if below and above:
        # ReLU6 is the language's one activation with two bounds.
        wide = (high - low) / 6
        inner = node.each(Relu6(), _scaled(node, x, 1 / wide, -low / wide))
        return _scaled(node, inner, wide, low)
    if below:
        return _scaled(node, node.each(Relu(), _scaled(node, x, 1.0, -low)), 1.0, low)
    return _scaled(node, node.each(Relu(), _scaled(node, x, -1.0, high)), -1.0, high)


def _scaled(node: OnnxNode, x: View, factor: float, offset: float) -> View:
    plain = factor == 1.0 and offset == 0.0
    return x if plain else node.each(Scale(short(factor), short(offset)), x)


def softmax(node: OnnxNode) -> View:
    """Convert Softmax over the channels or features."""
    x = node.view()
    rank = len(x.shape)
    # The axis was 1 until opset 12, all behind it included, and is the last one since 13.
    axis = int(node.attribute("axis", 1 if node.opset < 13 else -1)) % rank
    # Older opsets take all axes from that one on together.
    # Before 13 softmax flattens all axes from `axis` on into one (Softmax-11): the same as now
    # where only channels are left.
    single = node.opset >= 13 or x.type.elements == x.type.shape[0]
    channels = x.settled and axis == 1 and single
    if not channels and (axis != rank - 1 or last_axis_channels(x) is None):
        raise OperatorRefusal("it is taken over other axes than the channels")
    return node.each(Softmax(), x)


def nothing(node: OnnxNode) -> Operand:
    """Convert what is the identity at inference."""
    return node.operand(0)


def dropout(node: OnnxNode) -> Operand:
    """Convert Dropout, whose mask nobody may read."""
    # The second output, the mask, may be named and yet be read by nothing.
    if len(node.origin.outputs) > 1 and node.origin.outputs[1].outputs:
        raise OperatorRefusal("its mask is used")
    # Since opset 12 whether it trains is an input; before, Dropout in a file always meant
    # inference.
    if node.has(2) and bool(node.scalar("training_mode", 2, 0.0)):
        raise OperatorRefusal("it drops elements", "export the network in eval mode")
    return node.operand(0)


def cast(node: OnnxNode) -> Operand:
    """Convert Cast to float32; a constant is cast to whatever is asked for."""
    from onnx import helper

    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(int(node.attribute("to", 1))))
    found = node.operand(0)
    if not isinstance(found, View):
        return found.astype(wanted)
    if wanted != np.float32:
        help = "export the network in float32"
        raise OperatorRefusal(f"it casts to {wanted.name}; the network computes in float32", help)
    return found
