"""Which loops each kernel has."""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.kernels.conv import DirectConv
from tcc.backends.arm.kernels.loops import channels, conv, map, micro, micro_float, pool
from tcc.backends.arm.kernels.map import (
    Bilinear,
    BorderKernel,
    ChannelGather,
    ElementwiseKernel,
    LayerNormKernel,
    Lookup,
    Nearest,
    SoftmaxKernel,
)
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroLevelWinograd, MicroWinograd
from tcc.backends.arm.kernels.pool import ChannelPool, WindowPool

LoopBuilder = Callable[[Any, str], Any]
"""Returns the function of a kernel under a symbol, as a TVM PrimFunc."""

BUILDERS: Mapping[type[Kernel], LoopBuilder] = {
    DirectConv: conv.build,
    ElementwiseKernel: map.build,
    ChannelGather: map.build_gather,
    BorderKernel: map.build_border,
    Lookup: map.build_lookup,
    Nearest: map.build_nearest,
    Bilinear: map.build_bilinear,
    WindowPool: pool.build,
    ChannelPool: pool.build_channel,
    SoftmaxKernel: channels.build_softmax,
    LayerNormKernel: channels.build_normal,
    MicroMatrix: micro.build,
    MicroVector: micro.build_vector,
    MicroDepthwise: micro.build_depthwise,
    MicroFloatMatrix: micro_float.build,
    MicroFloatDepthwise: micro_float.build_depthwise,
    MicroWinograd: micro_float.build_winograd,
    MicroLevelWinograd: micro_float.build_level_winograd,
}
"""Every kernel; kernels themselves know nothing of TVM."""


def build(kernel: Kernel, symbol: str) -> Any:
    """Return a kernel's function under a symbol, as a TVM PrimFunc."""
    # By the exact type: a kernel that is not in the table is an error here, not something near it.
    return BUILDERS[type(kernel)](kernel, symbol)
