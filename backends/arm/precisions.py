"""At what precisions programs for processors are built."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision

FP32_DIRECT = Precision("fp32-direct", "fp32 without Winograd's method, which rounds in more steps")
INT8 = Precision("int8", "the integer program, real numbers going out", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit levels at its ends, whose real numbers come last",
    Arithmetic.INTEGER,
    real_ends=False,
)
INT8_COUNTED = Precision(
    "int8-counted",
    "int8, counting how many values of each layer are saturated",
    Arithmetic.INTEGER,
)
PRECISIONS = (FP32, INT8, INT8_I8, INT8_COUNTED)
WITH_DIRECT = (FP32, FP32_DIRECT, *PRECISIONS[1:])
"""Those of a processor that has kernels by Winograd's method."""
