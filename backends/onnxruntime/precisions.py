"""At what precisions ONNX files are built."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage

FP16 = Precision("fp16", "weights in float16, sums in float32", weights=Storage.FLOAT16)
DYNAMIC = Precision(
    "dynamic", "weights in int8, what they meet rounded while it runs", weights=Storage.INT8
)
INT8 = Precision("int8", "the integer program with QLinearConv", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit levels at its ends, whose real numbers come last",
    Arithmetic.INTEGER,
    float_io=False,
)
INT8_U8U8 = Precision(
    "int8-u8u8",
    "the integer program with unsigned weights, which no processor multiplies wrongly",
    Arithmetic.INTEGER,
)
INT8_QDQ = Precision(
    "int8-qdq",
    "the integer program between floats, for tools that read it so",
    Arithmetic.SIMULATED,
)
PRECISIONS = (FP32, FP16, DYNAMIC, INT8, INT8_I8, INT8_U8U8, INT8_QDQ)
