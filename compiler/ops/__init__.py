"""All operations. To add one: its class, and its name in `OPS` (an activation's in `ACTIVATIONS`).

The class holds all that is to be known of it: what it is called and takes, the type of its result,
its weights, its meaning in torch and ONNX, and for integer programs whether it only moves numbers
or, of a function of one number, its float64 meaning. What it has no integer form for stays float
between integers. A target that has no rule for it refuses it with its place; tests want a case for
it in src/tcc/testing/op_cases.py.
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
"""Words that take branches."""

OPS: tuple[type[Op], ...] = (
    Conv, DepthwiseConv, ConvTranspose, Linear,
    BatchNorm, LayerNorm, ScaleShift, Scale, Dropout, StochasticDepth, Identity,
    *ACTIVATIONS, Activation, Softmax,
    MaxPool, AvgPool, GlobalAvgPool, GlobalMaxPool, AdaptiveAvgPool,
    *JOINS,
    Flatten, Slice, ChannelShuffle, Pad, Resize,
)  # fmt: skip
"""Every word of the language that is an operation."""

INTERNAL: tuple[type[Op], ...] = (Border, Unflatten)
"""What only passes make."""

__all__ = [
    "ACTIVATIONS", "INTERNAL", "JOINS", "OPS", "Activation", "AdaptiveAvgPool", "Add", "AvgPool",
    "BatchNorm", "Border", "ChannelShuffle", "Concat", "Conv", "ConvTranspose", "DepthwiseConv",
    "Dropout", "Flatten", "Gelu", "GlobalAvgPool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "Identity", "LayerNorm", "LeakyRelu", "Linear", "MaxPool", "Mul", "Op", "Pad", "Relu", "Relu6",
    "Resize", "Scale", "ScaleShift", "Sigmoid", "Silu", "Slice", "Softmax", "StochasticDepth",
    "Tanh", "Unflatten",
]  # fmt: skip
