"""Precisions of ONNX files."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage

FP16 = Precision("fp16", "float16 weights, float32 arithmetic", weights=Storage.FLOAT16)
DYNAMIC = Precision(
    "dynamic",
    "int8 weights; inputs of linear layers quantized at run time",
    weights=Storage.INT8,
)
INT8 = Precision("int8", "int8 model with QLinearConv", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit inputs and outputs; a last step dequantizes the outputs",
    Arithmetic.INTEGER,
    float_io=False,
)
INT8_U8U8 = Precision(
    "int8-u8u8",
    "the same with unsigned weights, for processors that saturate products of mixed signs",
    Arithmetic.INTEGER,
)
INT8_QDQ = Precision(
    "int8-qdq",
    "the same in QDQ form, for tools that require it",
    Arithmetic.SIMULATED,
)
PRECISIONS = (FP32, FP16, DYNAMIC, INT8, INT8_I8, INT8_U8U8, INT8_QDQ)
