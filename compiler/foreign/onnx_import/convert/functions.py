"""Functions of one element, softmax, and what does nothing at inference."""

from collections.abc import Callable
from math import isclose, pi, sqrt

import numpy as np

from tcc.compiler.foreign.onnx_import.convert.arithmetic import affine
from tcc.compiler.foreign.onnx_import.convert.onnx_node import OnnxNode, Operand
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
