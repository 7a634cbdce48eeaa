"""What each ONNX operator becomes.

To add one: its function, and its line in `CONVERTERS`. An op that is one operator without weights
needs none: its class names that (`Op.onnx_operator`).
"""

from collections.abc import Callable, Mapping

from tcc.compiler.importers.onnx_import.convert import functions, layers, layout, pools, resizing
from tcc.compiler.importers.onnx_import.convert.onnx_node import OnnxNode, Operand
from tcc.compiler.importers.onnx_import.fusions import CHANNEL_NORM
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
    **{op.onnx_operator: functions.make_converter(op) for op in OPS if op.onnx_operator},
    "Conv": layers.convert_conv,
    "ConvTranspose": layers.convert_conv_transpose,
    "Gemm": layers.convert_gemm,
    "MatMul": layers.convert_matmul,
    "BatchNormalization": layers.convert_batch_norm,
    "LayerNormalization": layers.convert_layer_norm,
    CHANNEL_NORM: layers.convert_channel_norm,
    "MaxPool": pools.convert_max_pool,
    "AveragePool": pools.convert_avg_pool,
    "GlobalAveragePool": pools.convert_global_avg_pool,
    "GlobalMaxPool": pools.convert_global_max_pool,
    "ReduceMean": pools.convert_reduce_mean,
    "ReduceMax": pools.convert_reduce_max,
    "ReduceSum": pools.convert_reduce_sum,
    "PRelu": functions.convert_prelu,
    "Clip": functions.convert_clip,
    "HardSigmoid": functions.convert_hard_sigmoid,
    "Swish": functions.convert_swish,
    "Gelu": functions.convert_gelu,
    "Softmax": functions.convert_softmax,
    "Dropout": functions.convert_dropout,
    "Identity": functions.convert_identity,
    "Cast": functions.convert_cast,
    "Add": functions.convert_add,
    "Sub": functions.convert_sub,
    "Mul": functions.convert_mul,
    "Div": functions.convert_div,
    "Neg": functions.convert_neg,
    "Pow": functions.convert_pow,
    "Sum": functions.convert_sum,
    "Mean": functions.convert_mean,
    "Max": functions.convert_max,
    "Min": functions.convert_min,
    "Concat": layout.convert_concat,
    "Reshape": layout.convert_reshape,
    "Flatten": layout.convert_flatten,
    "Squeeze": layout.convert_squeeze,
    "Unsqueeze": layout.convert_unsqueeze,
    "Transpose": layout.convert_transpose,
    "Slice": layout.convert_slice,
    "Split": layout.convert_split,
    "Gather": layout.convert_gather,
    "Expand": layout.convert_expand,
    "Pad": layout.convert_pad,
    "Resize": resizing.convert_resize,
    "Upsample": resizing.convert_resize,
}
"""Converters by operator, as files name them once `fuse` has gone through.

An operator that stands here by name has attributes which its op lacks (the alpha of Swish, say), so
that its converter, which may take several steps, comes before what the op's class says.
"""

PATTERNS = ("Constant", "Erf", "Sqrt")
"""Operators that are understood as parts of others alone."""

__all__ = ["CONVERTERS", "PATTERNS", "Converter", "OnnxNode", "Operand"]
