"""Functions of one element, softmax, and what does nothing at inference."""

from collections.abc import Callable
from math import isclose

import numpy as np

from tcc.compiler.onnx_import.arguments import short
from tcc.compiler.onnx_import.builder import Refusal
from tcc.compiler.onnx_import.convert.call import Call, Operand
from tcc.compiler.onnx_import.view import View, last_axis_channels
from tcc.compiler.ops import (
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Op,
    Relu,
    Relu6,
    Silu,
    Softmax,
)

UNBOUNDED = 3e38
"""What exporters write for no upper bound: the largest float32, or infinity."""


def plain(op: Op) -> Callable[[Call], View]:
    """Return the converter of an operator without attributes."""
    return lambda call: call.each(op, call.view())


def leaky_relu(call: Call) -> View:
    """Convert LeakyRelu."""
    return call.each(LeakyRelu(short(call.attribute("alpha", 0.01))), call.view())


def prelu(call: Call) -> View:
    """Convert PRelu with one slope for all channels."""
    slopes = np.unique(call.weights(1))
    if slopes.size != 1:
        raise Refusal("its slope differs from channel to channel")
    return call.each(LeakyRelu(short(float(slopes[0]))), call.view())


def hard_sigmoid(call: Call) -> View:
    """Convert HardSigmoid as most frameworks define it."""
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if not isclose(alpha, 1 / 6, rel_tol=1e-6) or beta != 0.5:
        raise Refusal(f"it is {alpha:g} * x + {beta:g} between 0 and 1; x / 6 + 0.5 is known")
    return call.each(HardSigmoid(), call.view())


def gelu(call: Call) -> View:
    """Convert Gelu."""
    if call.attribute("approximate", "none") != "none":
        raise Refusal("it is approximated by tanh", "export it with `approximate='none'`")
    return call.each(Gelu(), call.view())


def swish(call: Call) -> View:
    """Convert Swish."""
    if call.attribute("alpha", 1.0) != 1.0:
        raise Refusal(f"its factor is {call.attribute('alpha', 1.0):g}; only 1 is known")
    return call.each(Silu(), call.view())


def hard_swish(call: Call) -> View:
    """Convert HardSwish."""
    return call.each(HardSwish(), call.view())


def clip(call: Call) -> View:
    """Convert Clip from 0 on, to 6 or without end."""
    low, high = call.scalar("min", 1, float("-inf")), call.scalar("max", 2, float("inf"))
    if low == 0.0 and high == 6.0:
        return call.each(Relu6(), call.view())
    if low == 0.0 and high >= UNBOUNDED:
        return call.each(Relu(), call.view())
    raise Refusal(f"it clips to {low:g} ... {high:g}; from 0 to 6, or from 0 on, is known")


def softmax(call: Call) -> View:
    """Convert Softmax over the channels or features."""
    x = call.view()
    rank = len(x.shape)
    axis = int(call.attribute("axis", 1 if call.opset < 13 else -1)) % rank
    # Older opsets take all axes from that one on together.
    single = call.opset >= 13 or x.type.elements == x.type.shape[0]
    channels = x.settled and axis == 1 and single
    if not channels and (axis != rank - 1 or last_axis_channels(x) is None):
        raise Refusal("it is taken over other axes than the channels")
    return call.each(Softmax(), x)


def nothing(call: Call) -> Operand:
    """Convert what is the identity at inference."""
    return call.operand(0)


def dropout(call: Call) -> Operand:
    """Convert Dropout, whose mask nobody may read."""
    if len(call.node.outputs) > 1 and call.node.outputs[1].outputs:
        raise Refusal("its mask is used")
    if call.has(2) and bool(call.scalar("training_mode", 2, 0.0)):
        raise Refusal("it drops elements", "export the network in eval mode")
    return call.operand(0)


def cast(call: Call) -> Operand:
    """Convert Cast to float32; a constant is cast to whatever is asked for."""
    from onnx import helper

    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(int(call.attribute("to", 1))))
    found = call.operand(0)
    if not isinstance(found, View):
        return found.astype(wanted)
    if wanted != np.float32:
        raise Refusal(f"it casts to {wanted.name}; the network computes in float32")
    return found
