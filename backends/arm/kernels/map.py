"""Kernels that compute each output element from one element or a few pixels of their input."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tcc.backends.arm.kernels.base import Kernel, Shape3
from tcc.backends.arm.kernels.epilogue import NO_EPILOGUE, Epilogue
from tcc.backends.arm.kernels.window import Staging

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ElementwiseKernel(Kernel):
    """An epilogue alone: element-wise operations over a map.

    Arguments: the epilogue's operands, result.
    """

    name: ClassVar[str] = "map"
    output_shape: Shape3
    epilogue: Epilogue
    tile: int


@dataclass(frozen=True, slots=True)
class ChannelGather(Kernel):
    """Channels in another order.

    Output channel c = group * run + position (position below `run`) is input channel
    start + group * group_step + position * step. Arguments: map, the epilogue's operands, result.
    """

    name: ClassVar[str] = "gather"
    input_shape: Shape3
    output_shape: Shape3
    start: int
    step: int
    run: int
    group_step: int
    tile: int
    epilogue: Epilogue = NO_EPILOGUE
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class BorderKernel(Kernel):
    """A map with padding around it.

    Arguments: map, the padding value of each channel (if `by_channel`), result.
    """

    name: ClassVar[str] = "pad"
    staging: Staging
    by_channel: bool = False


@dataclass(frozen=True, slots=True)
class Lookup(Kernel):
    """Lookup in a table of 256 bytes: result = table[byte]. Arguments: map, table, result."""

    name: ClassVar[str] = "table"
    elements: int


@dataclass(frozen=True, slots=True)
class Nearest(Kernel):
    """Nearest sampling: output (y, x) is input (y * height // out height, x * width // out width).

    Arguments: map, the epilogue's operands, result.
    """

    name: ClassVar[str] = "nearest"
    input_shape: Shape3
    output_shape: Shape3
    epilogue: Epilogue = NO_EPILOGUE
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Bilinear(Kernel):
    """Bilinear sampling between four pixels.

    Arguments: map, a table for y and one for x, the epilogue's operands, result. A table has, for
    each output pixel, the input pixel before it, the one after it, and the weight of the latter.
    """

    name: ClassVar[str] = "bilinear"
    input_shape: Shape3
    output_shape: Shape3
    epilogue: Epilogue = NO_EPILOGUE

    @staticmethod
    def compute_table(source: int, target: int) -> "Floats":
        """Return the table of one axis, in float32 like the frameworks."""
        unit = np.float32(1)
        # Pixel centers are aligned, as in PyTorch without align_corners, and clamped at 0 too.
        pixel_centers = (np.arange(target, dtype=np.float32) + unit / 2) * np.float32(
            source / target
        )
        positions = np.maximum(pixel_centers - unit / 2, np.float32(0))
        lower = np.minimum(np.floor(positions), source - unit)
        upper = np.minimum(lower + unit, source - unit)
        return np.stack([lower, upper, np.minimum(positions - lower, unit)], axis=1)


@dataclass(frozen=True, slots=True)
class SoftmaxKernel(Kernel):
    """Softmax over the channels of each pixel. Arguments: map, the epilogue's operands, result."""

    name: ClassVar[str] = "softmax"
    shape: Shape3
    epilogue: Epilogue = NO_EPILOGUE


@dataclass(frozen=True, slots=True)
class LayerNormKernel(Kernel):
    """Layer normalization over the channels of each pixel.

    Arguments: map, weight and bias of each channel, the epilogue's operands, result.
    """

    name: ClassVar[str] = "layer_norm"
    shape: Shape3
    eps: float
    epilogue: Epilogue = NO_EPILOGUE
