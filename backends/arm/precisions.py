"""At what precisions programs for processors are built."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision

INT8 = Precision("int8", "the integer program, real numbers going out", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit levels at its ends, whose real numbers come last",
    Arithmetic.INTEGER,
    real_ends=False,
)
INT8_COUNTED = Precision(
    "int8-counted",
    "int8, counting how often the values of each layer are the last of their levels",
    Arithmetic.INTEGER,
)
PRECISIONS = (FP32, INT8, INT8_I8, INT8_COUNTED)
