"""At what precisions pages are built."""

from tcc.compiler.ir.precision import FP32, Arithmetic, Precision, Storage

FP16 = Precision("fp16", "weights sent as float16, sums in float32", weights=Storage.FLOAT16)
INT8 = Precision("int8", "the integer program with QLinearConv", Arithmetic.INTEGER)
PRECISIONS = (FP32, FP16, INT8)
