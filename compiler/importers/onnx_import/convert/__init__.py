"""Converters of ONNX operators.

To add an operator, write its function and add a line to `CONVERTERS`. An op that equals one
operator without weights needs neither: its class names the operator (`Op.onnx_operator`).
"""

from collections.abc import Callable, Mapping

from tcc.compiler.importers.onnx_import.convert import functions, layers, layout, pools, resizing
from tcc.compiler.importers.onnx_import.convert.onnx_node import OnnxNode, Operand
from tcc.compiler.importers.onnx_import.fusions import CHANNEL_NORM
from tcc.compiler.ops import OPS

Converter = Callable[[OnnxNode], Operand | tuple[Operand, ...]]
"""Adds the steps for a node to its graph builder and returns the node's outputs. These are values
(1, channels, height, width) or (1, features) in the file's layout, or constants.

Raises:
    OperatorRefusal: tcc has no step for it.
"""

CONVERTERS: Mapping[str, Converter] = {
    # First, so that explicit entries below replace them.
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
"""Converters by operator, with the names that files have after `fuse`.

Operators listed by name have attributes that their op lacks, such as the alpha of Swish. Their
converter may add several steps and takes precedence over the op's class.
"""

PATTERNS = ("Constant", "Erf", "Sqrt")
"""Operators that are supported only as part of a pattern."""

__all__ = ["CONVERTERS", "PATTERNS", "Converter", "OnnxNode", "Operand"]
