"""At what precisions pages are built."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage

FP16 = Precision("fp16", "weights sent as float16, sums in float32", weights=Storage.FLOAT16)
INT8 = Precision("int8", "the integer program with QLinearConv", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit levels at its ends, whose real numbers come last",
    Arithmetic.INTEGER,
    real_ends=False,
)
PRECISIONS = (FP32, FP16, INT8, INT8_I8)
