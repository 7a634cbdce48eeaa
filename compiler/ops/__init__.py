"""All operations.

To add one, write its class and add its name to `OPS` (an activation to `ACTIVATIONS`). The class
defines its keyword and arguments, the type of its result, its weights, and its form in torch and
ONNX. For int8 models it also defines whether it only moves elements or, for a function of one
number, its float64 form. An op without an integer form stays float in an int8 model. A target
without a rule for an op refuses it and reports its location. Tests need a case in
src/tcc/testing/op_cases.py.
"""

from tcc.compiler.ir.op import Op
from tcc.compiler.ops.activation import (
    ACTIVATIONS,
    Activation,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from tcc.compiler.ops.conv import Conv, DepthwiseConv, Linear
from tcc.compiler.ops.internal import Border, Unflatten
from tcc.compiler.ops.join import Add, Concat, Mul
from tcc.compiler.ops.layout import ChannelShuffle, Flatten, Pad, Slice
from tcc.compiler.ops.norm import (
    BatchNorm,
    Dropout,
    Identity,
    LayerNorm,
    Scale,
    ScaleShift,
    StochasticDepth,
)
from tcc.compiler.ops.pool import (
    AdaptiveAvgPool,
    AvgPool,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
)
from tcc.compiler.ops.resample import ConvTranspose, Resize

JOINS: tuple[type[Op], ...] = (Concat, Add, Mul)
"""Ops that take branches."""

OPS: tuple[type[Op], ...] = (
    Conv, DepthwiseConv, ConvTranspose, Linear,
    BatchNorm, LayerNorm, ScaleShift, Scale, Dropout, StochasticDepth, Identity,
    *ACTIVATIONS, Activation, Softmax,
    MaxPool, AvgPool, GlobalAvgPool, GlobalMaxPool, AdaptiveAvgPool,
    *JOINS,
    Flatten, Slice, ChannelShuffle, Pad, Resize,
)  # fmt: skip
"""Ops with a keyword in the language."""

INTERNAL: tuple[type[Op], ...] = (Border, Unflatten)
"""Ops that only passes create."""

__all__ = [
    "ACTIVATIONS", "INTERNAL", "JOINS", "OPS", "Activation", "AdaptiveAvgPool", "Add", "AvgPool",
    "BatchNorm", "Border", "ChannelShuffle", "Concat", "Conv", "ConvTranspose", "DepthwiseConv",
    "Dropout", "Flatten", "Gelu", "GlobalAvgPool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "Identity", "LayerNorm", "LeakyRelu", "Linear", "MaxPool", "Mul", "Op", "Pad", "Relu", "Relu6",
    "Resize", "Scale", "ScaleShift", "Sigmoid", "Silu", "Slice", "Softmax", "StochasticDepth",
    "Tanh", "Unflatten",
]  # fmt: skip
