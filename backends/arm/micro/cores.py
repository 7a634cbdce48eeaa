"""Which micro-kernels each core has; which of them computes what, their costs say."""

from tcc.backends.arm.micro.records import (
    ChannelMatrix,
    Depthwise,
    FloatDepthwise,
    FloatMatrix,
    Matrix,
    MicroKernel,
    Vector,
)
from tcc.backends.arm.micro.winograd import LevelWinograd, WideWinograd, Winograd

DEPTHWISE = Depthwise("depthwise")
VECTOR = Vector("vector")
NEON = Matrix("matrix_neon", filters=4, lane=2)
SMULL = Matrix("matrix_smull", filters=4, lane=4)
SDOT = Matrix("matrix_sdot", filters=8, lane=4)
FLOAT_NEON = FloatMatrix("float_neon", filters=6, pixels=8, cut=2)
FLOAT_FMLA = FloatMatrix("float_fmla", filters=8)
WINOGRAD_FMLA = Winograd("winograd_fmla", filters=4)
LEVEL_WINOGRAD_SMLAL = LevelWinograd("winograd_levels_smlal", filters=4)
X86 = ChannelMatrix("matrix_x86", filters=8, lane=4, pixels=32, unsigned=True)
FLOAT_DEPTHWISE = FloatDepthwise("float_depthwise_neon", lanes=8)
DEPTHWISE_X86 = Depthwise("depthwise_x86", beyond=17)
FLOAT_X86 = FloatMatrix("float_x86", filters=8, pixels=48)
FLOAT_DEPTHWISE_X86 = FloatDepthwise("float_depthwise_x86", lanes=16)
WINOGRAD_NEON = Winograd("winograd_neon", filters=4)
WINOGRAD_X86 = WideWinograd("winograd_x86", filters=16)
LEVEL_WINOGRAD_NEON = LevelWinograd("winograd_levels_neon", filters=4)

FLOATS_64 = (WINOGRAD_FMLA, FLOAT_FMLA)
CORES: dict[str, tuple[MicroKernel, ...]] = {
    "cortex_a7": (
        DEPTHWISE,
        VECTOR,
        LEVEL_WINOGRAD_NEON,
        NEON,
        WINOGRAD_NEON,
        FLOAT_DEPTHWISE,
        FLOAT_NEON,
    ),
    "cortex_a53": (DEPTHWISE, VECTOR, LEVEL_WINOGRAD_SMLAL, SMULL, *FLOATS_64),
    "cortex_a72": (DEPTHWISE, VECTOR, LEVEL_WINOGRAD_SMLAL, SMULL, *FLOATS_64),
    "cortex_a76": (DEPTHWISE, VECTOR, SDOT, *FLOATS_64),
    "x86_64_v2": (DEPTHWISE_X86, VECTOR, X86, WINOGRAD_X86, FLOAT_DEPTHWISE_X86, FLOAT_X86),
}
"""By the names that zig gives processors."""
