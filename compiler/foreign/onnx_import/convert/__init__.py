"""What each ONNX operator becomes.

To add one: its function, and its line in `CONVERTERS`. An op that is one operator without weights
needs none: its class names that (`Op.onnx_operator`).
"""

from collections.abc import Callable, Mapping

from tcc.compiler.foreign.onnx_import.convert import functions, layers, layout, pools, resizing
from tcc.compiler.foreign.onnx_import.convert.onnx_node import OnnxNode, Operand
from tcc.compiler.foreign.onnx_import.fusions import CHANNEL_NORM
from tcc.compiler.ops import OPS

Converter = Callable[[OnnxNode], Operand | tuple[Operand, ...]]
"""Adds the steps that do what a node does to the node's graph in the making, and returns what the
node's outputs have become: values (1, channels, height, width) or (1, features) as the file has
them, or constants.

Raises:
    OperatorRefusal: No step of the language does it.
"""

CONVERTERS: Mapping[str, Converter] = {
    # First, so that what stands below by name comes in its place.
    **{op.onnx_operator: functions.single(op) for op in OPS if op.onnx_operator},
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": layers.batch_norm,
    "LayerNormalization": layers.layer_norm,
    CHANNEL_NORM: layers.channel_norm,
    "MaxPool": pools.max_pool,
    "AveragePool": pools.avg_pool,
    "GlobalAveragePool": pools.global_avg_pool,
    "GlobalMaxPool": pools.global_max_pool,
    "ReduceMean": pools.reduce_mean,
    "ReduceMax": pools.reduce_max,
    "ReduceSum": pools.reduce_sum,
    "PRelu": functions.prelu,
    "Clip": functions.clip,
    "HardSigmoid": functions.hard_sigmoid,
    "Swish": functions.swish,
    "Gelu": functions.gelu,
    "Softmax": functions.softmax,
    "Dropout": functions.dropout,
    "Identity": functions.nothing,
    "Cast": functions.cast,
    "Add": functions.add,
    "Sub": functions.sub,
    "Mul": functions.mul,
    "Div": functions.div,
    "Neg": functions.neg,
    "Pow": functions.power,
    "Sum": functions.total,
    "Mean": functions.mean,
    "Max": functions.largest,
    "Min": functions.smallest,
    "Concat": layout.concat,
    "Reshape": layout.reshape,
    "Flatten": layout.flatten,
    "Squeeze": layout.squeeze,
    "Unsqueeze": layout.unsqueeze,
    "Transpose": layout.transpose,
    "Slice": layout.slice_,
    "Split": layout.split,
    "Gather": layout.gather,
    "Expand": layout.expand,
    "Pad": layout.pad,
    "Resize": resizing.resize,
    "Upsample": resizing.resize,
}
"""Converters by operator, as files name them once `fuse` has gone through.

An operator that stands here by name has attributes which its op lacks (the alpha of Swish, say), so
that its converter, which may take several steps, comes before what the op's class says.
"""

PATTERNS = ("Constant", "Erf", "Sqrt")
"""Operators that are understood as parts of others alone."""

__all__ = ["CONVERTERS", "PATTERNS", "Converter", "OnnxNode", "Operand"]
