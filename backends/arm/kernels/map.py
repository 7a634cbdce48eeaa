"""Kernels that compute each element from one element, or one pixel, of what they read."""

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
    """An epilogue without an anchor: element-wise operations over a whole map.

    Arguments: the epilogue's operands, result.
    """

    name: ClassVar[str] = "map"
    output_shape: Shape3
    epilogue: Epilogue
    tile: int


@dataclass(frozen=True, slots=True)
class ChannelGather(Kernel):
    """Channels in another order: output channel c is input channel `channel(c)`.

    c = group * run + position (position below `run`) comes from
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
    """A map with a border around it.

    Arguments: map, what the border of each channel holds where it is `by_channel`, result.
    """

    name: ClassVar[str] = "pad"
    staging: Staging
    by_channel: bool = False


@dataclass(frozen=True, slots=True)
class Lookup(Kernel):
    """Bytes by a table of 256: result = table[byte]. Arguments: map, table, result."""

    name: ClassVar[str] = "table"
    elements: int


@dataclass(frozen=True, slots=True)
class Nearest(Kernel):
    """Sampling: output (y, x) is input (y * height // out height, x * width // out width).

    Arguments: map, the epilogue's operands, result.
    """

    name: ClassVar[str] = "nearest"
    input_shape: Shape3
    output_shape: Shape3
    epilogue: Epilogue = NO_EPILOGUE
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Bilinear(Kernel):
    """Sampling between four pixels.

    Arguments: map, a table for y and one for x, the epilogue's operands, result. A table has, for
    each output pixel, the input pixel before it, the one after it, and the share of the latter.
    """

    name: ClassVar[str] = "bilinear"
    input_shape: Shape3
    output_shape: Shape3
    epilogue: Epilogue = NO_EPILOGUE

    @staticmethod
    def compute_table(source: int, target: int) -> "Floats":
        """Return the table of one axis, in float32 as the frameworks compute it."""
        unit = np.float32(1)
        # pixels' middles on each other, as PyTorch without align_corners; it too cuts off below 0
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
    """Layer normalisation of the channels of each pixel.

    Arguments: map, weight and bias of each channel, the epilogue's operands, result.
    """

    name: ClassVar[str] = "layer_norm"
    shape: Shape3
    eps: float
    epilogue: Epilogue = NO_EPILOGUE
