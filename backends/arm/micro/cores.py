"""The micro-kernels of each core. Their costs decide which of them computes a layer.

A library for x86-64 contains a variant of each kernel per instruction set. `c/isa.h` chooses one
when the library is loaded.
"""

from dataclasses import dataclass

from tcc.backends.arm.micro.records import (
    ChannelMatrix,
    Depthwise,
    FloatDepthwise,
    FloatMatrix,
    Matrix,
    MicroKernel,
    Vector,
)
from tcc.backends.arm.micro.winograd import QuantizedWinograd, WideWinograd, Winograd

DEPTHWISE = Depthwise("depthwise")
VECTOR = Vector("vector")
NEON = Matrix("matrix_neon", filters=4, lane=2)
SMULL = Matrix("matrix_smull", filters=4, lane=4)
SDOT = Matrix("matrix_sdot", filters=8, lane=4)
FLOAT_NEON = FloatMatrix("float_neon", filters=6, pixels=8, partial_multiple=2)
FLOAT_FMLA = FloatMatrix("float_fmla", filters=8)
WINOGRAD_FMLA = Winograd("winograd_fmla", filters=4)
QUANTIZED_WINOGRAD_SMLAL = QuantizedWinograd("winograd_levels_smlal", filters=4)
X86 = ChannelMatrix("matrix_x86", filters=8, lane=4, pixels=32, is_unsigned=True)
FLOAT_DEPTHWISE = FloatDepthwise("float_depthwise_neon", lanes=8)
DEPTHWISE_X86 = Depthwise("depthwise_x86", overread=17)
FLOAT_X86 = FloatMatrix("float_x86", filters=8, pixels=48)
FLOAT_DEPTHWISE_X86 = FloatDepthwise("float_depthwise_x86", lanes=16)
WINOGRAD_NEON = Winograd("winograd_neon", filters=4)
WINOGRAD_X86 = WideWinograd("winograd_x86", filters=16)
QUANTIZED_WINOGRAD_NEON = QuantizedWinograd("winograd_levels_neon", filters=4)

FLOATS_64 = (WINOGRAD_FMLA, FLOAT_FMLA)
CORES: dict[str, tuple[MicroKernel, ...]] = {
    "cortex_a7": (
        DEPTHWISE,
        VECTOR,
        QUANTIZED_WINOGRAD_NEON,
        NEON,
        WINOGRAD_NEON,
        FLOAT_DEPTHWISE,
        FLOAT_NEON,
    ),
    "cortex_a53": (DEPTHWISE, VECTOR, QUANTIZED_WINOGRAD_SMLAL, SMULL, *FLOATS_64),
    "cortex_a72": (DEPTHWISE, VECTOR, QUANTIZED_WINOGRAD_SMLAL, SMULL, *FLOATS_64),
    "cortex_a76": (DEPTHWISE, VECTOR, SDOT, *FLOATS_64),
    "x86_64_v2": (DEPTHWISE_X86, VECTOR, X86, WINOGRAD_X86, FLOAT_DEPTHWISE_X86, FLOAT_X86),
}
"""Micro-kernels by zig's names of the processors."""


@dataclass(frozen=True, slots=True)
class Isa:
    """An x86-64 ABI level, with or without instructions for 8-bit dot products.

    `cpu` is zig's name for it, `base_name` the name of the level alone.
    """

    name: str
    cpu: str
    base_name: str


# Without this, LLVM avoids 64-byte vectors when it vectorizes code itself.
_WIDE = "-prefer_256_bit"
ISAS = (
    Isa("x86-64-v2", "x86_64_v2", "x86-64-v2"),
    Isa("x86-64-v3", "x86_64_v3", "x86-64-v3"),
    Isa("x86-64-v3-vnni", "x86_64_v3+avxvnni", "x86-64-v3"),
    Isa("x86-64-v4", f"x86_64_v4{_WIDE}", "x86-64-v4"),
    Isa("x86-64-v4-vnni", f"x86_64_v4+avx512vnni{_WIDE}", "x86-64-v4"),
)
"""In order of preference, the best last; the same order as in `c/isa.h`."""


def select_isas(kernel: MicroKernel) -> tuple[Isa, ...]:
    """Return, for each of `ISAS`, the instruction set that a kernel is compiled for."""
    isas_by_name = {isa.name: isa for isa in ISAS}
    return ISAS if kernel.multiplies_bytes else tuple(isas_by_name[isa.base_name] for isa in ISAS)
