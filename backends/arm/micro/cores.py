"""Which micro-kernels run on which core, in order of preference."""

from tcc.backends.arm.micro.records import (
    Depthwise,
    FloatDepthwise,
    FloatMatrix,
    Matrix,
    MicroKernel,
    Vector,
)
from tcc.backends.arm.micro.winograd import LevelWinograd, Winograd

DEPTHWISE = Depthwise("depthwise")
VECTOR = Vector("vector")
NEON = Matrix("matrix_neon", filters=4, lane=2)
SMULL = Matrix("matrix_smull", filters=8, lane=2)
SDOT = Matrix("matrix_sdot", filters=8, lane=4)
SSE = Matrix("matrix_sse", filters=4, lane=2)
FLOAT_NEON = FloatMatrix("float_neon", filters=4)
FLOAT_DEPTHWISE = FloatDepthwise("float_depthwise_neon")
WINOGRAD_NEON = Winograd(
    "winograd_neon", filters=4, product=1.33, direct=1.28, pixels=700, outputs=400, weights=150
)
LEVEL_WINOGRAD_NEON = LevelWinograd(
    "winograd_levels_neon",
    filters=4,
    product=0.66,
    direct=0.62,
    pixels=100,
    outputs=250,
    weights=40,
)

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
    "cortex_a53": (DEPTHWISE, VECTOR, SMULL),
    "cortex_a72": (DEPTHWISE, VECTOR, SMULL),
    "cortex_a76": (DEPTHWISE, VECTOR, SDOT),
    "generic": (DEPTHWISE, VECTOR, SMULL),
    "x86_64_v2": (DEPTHWISE, VECTOR, SSE),
}
"""By the names that zig gives processors; `generic` is any 64-bit ARM."""
