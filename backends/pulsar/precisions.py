"""At what precisions packages are built."""

from tcc.backends.pulsar.chips import Toolchain
from tcc.compiler.ir.precision import Arithmetic, Precision

FOREIGN = Precision("int8", "8-bit integers of the NPU tool's own choosing", Arithmetic.FOREIGN)
ROUNDED = Precision(
    "int8-rounded",
    "experimental: the same, of weights that are rounded to 8 bits a filter beforehand",
    Arithmetic.FOREIGN,
)
OURS = Precision(
    "int8", "the integer program's scales, which the NPU tool keeps", Arithmetic.SIMULATED
)
PRECISIONS = {Toolchain.PULSAR: (FOREIGN, ROUNDED), Toolchain.PULSAR2: (OURS,)}
"""The first is what is built unless another is asked for: none has floats."""
