"""At what precisions TFLite files are built."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage

FP16 = Precision("fp16", "weights in float16, sums in float32", weights=Storage.FLOAT16)
DYNAMIC = Precision(
    "dynamic", "weights in int8, what they meet rounded while it runs", weights=Storage.INT8
)
INT8 = Precision(
    "int8", "the integer program, int8 from end to end", Arithmetic.INTEGER, float_io=False
)
INT8_I8 = Precision(
    "int8-i8",
    "int8, by the name that other targets have for 8-bit levels at the ends",
    Arithmetic.INTEGER,
    float_io=False,
)
INT8_U8 = Precision(
    "int8-u8", "the same with unsigned levels going in", Arithmetic.INTEGER, float_io=False
)
PRECISIONS = (FP32, FP16, DYNAMIC, INT8, INT8_I8, INT8_U8)
