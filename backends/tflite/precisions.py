"""Precisions of TFLite files."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage

FP16 = Precision("fp16", "float16 weights, float32 arithmetic", weights=Storage.FLOAT16)
DYNAMIC = Precision(
    "dynamic", "int8 weights, activations quantized at run time", weights=Storage.INT8
)
INT8 = Precision(
    "int8", "int8 model with int8 inputs and outputs", Arithmetic.INTEGER, float_io=False
)
INT8_I8 = Precision(
    "int8-i8",
    "same as `int8`, under the name that other targets use",
    Arithmetic.INTEGER,
    float_io=False,
)
INT8_U8 = Precision(
    "int8-u8", "the same with uint8 inputs and outputs", Arithmetic.INTEGER, float_io=False
)
PRECISIONS = (FP32, FP16, DYNAMIC, INT8, INT8_I8, INT8_U8)
