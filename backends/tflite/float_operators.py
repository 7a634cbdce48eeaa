"""TFLite writer of each float op. To add an op, write its function and add a row here."""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.backends.tflite import pointwise, windows
from tcc.backends.tflite.file_draft import FileDraft
from tcc.compiler import ops
from tcc.compiler.ir.graph import Node

Writer = Callable[[FileDraft, Node, Any], str]
"""Writes the operators of a node; returns the tensor with its value."""

FLOAT: Mapping[type[ops.Op], Writer] = {
    ops.Conv: windows.write_conv,
    ops.ConvTranspose: windows.write_conv_transpose,
    ops.Linear: pointwise.write_linear,
    ops.BatchNorm: pointwise.write_batch_norm,
    ops.LayerNorm: pointwise.write_layer_norm,
    ops.ScaleShift: pointwise.write_scale_shift,
    ops.Scale: pointwise.write_scale,
    ops.Dropout: pointwise.write_copy,
    ops.StochasticDepth: pointwise.write_copy,
    ops.Identity: pointwise.write_copy,
    ops.Relu: pointwise.write_function,
    ops.Relu6: pointwise.write_function,
    ops.LeakyRelu: pointwise.write_leaky_relu,
    ops.Sigmoid: pointwise.write_function,
    ops.Tanh: pointwise.write_function,
    ops.Silu: pointwise.write_silu,
    ops.Gelu: pointwise.write_function,
    ops.HardSigmoid: pointwise.write_hard_sigmoid,
    ops.HardSwish: pointwise.write_function,
    ops.Softmax: pointwise.write_softmax,
    ops.MaxPool: windows.write_max_pool,
    ops.AvgPool: windows.write_avg_pool,
    ops.GlobalAvgPool: windows.write_global_avg_pool,
    ops.GlobalMaxPool: windows.write_global_max_pool,
    ops.Concat: pointwise.write_concat,
    ops.Add: pointwise.write_add,
    ops.Mul: pointwise.write_mul,
    ops.Flatten: pointwise.write_flatten,
    ops.Unflatten: pointwise.write_unflatten,
    ops.Slice: pointwise.write_slice,
    ops.ChannelShuffle: pointwise.write_channel_shuffle,
    ops.Pad: pointwise.write_pad,
    ops.Border: pointwise.write_border,
    ops.Resize: windows.write_resize,
}
