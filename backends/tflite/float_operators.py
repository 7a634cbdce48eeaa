"""What TFLite has for each op of a float graph. To add one: its function, and its row here."""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.backends.tflite import pointwise, windows
from tcc.backends.tflite.file_draft import FileDraft
from tcc.compiler import ops
from tcc.compiler.ir.graph import Node

Writer = Callable[[FileDraft, Node, Any], str]
"""Writes the operators of a node; returns the tensor that holds its value."""

FLOAT: Mapping[type[ops.Op], Writer] = {
    ops.Conv: windows.conv,
    ops.ConvTranspose: windows.conv_transpose,
    ops.Linear: pointwise.linear,
    ops.BatchNorm: pointwise.batch_norm,
    ops.LayerNorm: pointwise.layer_norm,
    ops.ScaleShift: pointwise.scale_shift,
    ops.Scale: pointwise.scale,
    ops.Dropout: pointwise.copy,
    ops.StochasticDepth: pointwise.copy,
    ops.Identity: pointwise.copy,
    ops.Relu: pointwise.function,
    ops.Relu6: pointwise.function,
    ops.LeakyRelu: pointwise.leaky_relu,
    ops.Sigmoid: pointwise.function,
    ops.Tanh: pointwise.function,
    ops.Silu: pointwise.silu,
    ops.Gelu: pointwise.function,
    ops.HardSigmoid: pointwise.hard_sigmoid,
    ops.HardSwish: pointwise.function,
    ops.Softmax: pointwise.softmax,
    ops.MaxPool: windows.max_pool,
    ops.AvgPool: windows.avg_pool,
    ops.GlobalAvgPool: windows.global_avg_pool,
    ops.GlobalMaxPool: windows.global_max_pool,
    ops.Concat: pointwise.concat,
    ops.Add: pointwise.add,
    ops.Mul: pointwise.mul,
    ops.Flatten: pointwise.flatten,
    ops.Unflatten: pointwise.unflatten,
    ops.Slice: pointwise.slice_,
    ops.ChannelShuffle: pointwise.channel_shuffle,
    ops.Pad: pointwise.pad,
    ops.Border: pointwise.border,
    ops.Resize: windows.resize,
}
