"""Kernels that compute each element from one element, or one pixel, of what they read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tcc.backends.arm.kernels.base import Kernel, Shape3
from tcc.backends.arm.kernels.epilogue import NOTHING, Epilogue
from tcc.backends.arm.kernels.window import Staging

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ElementwiseKernel(Kernel):
    """An epilogue without an anchor: element-wise operations over a whole map.

    Arguments: the epilogue's operands, result.
    """

    word: ClassVar[str] = "map"
    result: Shape3
    epilogue: Epilogue
    tile: int


@dataclass(frozen=True, slots=True)
class ChannelGather(Kernel):
    """Channels in another order: output channel c is input channel `channel(c)`.

    c = group * run + position (position below `run`) comes from
    start + group * group_step + position * step. Arguments: map, the epilogue's operands, result.
    """

    word: ClassVar[str] = "gather"
    source: Shape3
    result: Shape3
    start: int
    step: int
    run: int
    group_step: int
    tile: int
    epilogue: Epilogue = NOTHING
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class BorderKernel(Kernel):
    """A map with a border around it.

    Arguments: map, what the border of each channel holds where it is `by_channel`, result.
    """

    word: ClassVar[str] = "pad"
    staging: Staging
    by_channel: bool = False


@dataclass(frozen=True, slots=True)
class Lookup(Kernel):
    """Bytes by a table of 256: result = table[byte]. Arguments: map, table, result."""

    word: ClassVar[str] = "table"
    elements: int


@dataclass(frozen=True, slots=True)
class Nearest(Kernel):
    """Sampling: output (y, x) is input (y * height // out height, x * width // out width).

    Arguments: map, the epilogue's operands, result.
    """

    word: ClassVar[str] = "nearest"
    source: Shape3
    result: Shape3
    epilogue: Epilogue = NOTHING
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Bilinear(Kernel):
    """Sampling between four pixels.

    Arguments: map, a table for y and one for x, the epilogue's operands, result. A table has, for
    each output pixel, the input pixel before it, the one after it, and the share of the latter.
    """

    word: ClassVar[str] = "bilinear"
    source: Shape3
    result: Shape3
    epilogue: Epilogue = NOTHING

    @staticmethod
    def table(source: int, target: int) -> "Floats":
        """Return the table of one axis, in float32 as the frameworks compute it."""
        one = np.float32(1)
        # pixels' middles on each other, as PyTorch without align_corners; it too cuts off below 0
        middles = (np.arange(target, dtype=np.float32) + one / 2) * np.float32(source / target)
        places = np.maximum(middles - one / 2, np.float32(0))
        before = np.minimum(np.floor(places), source - one)
        after = np.minimum(before + one, source - one)
        return np.stack([before, after, np.minimum(places - before, one)], axis=1)


@dataclass(frozen=True, slots=True)
class SoftmaxKernel(Kernel):
    """Softmax over the channels of each pixel. Arguments: map, the epilogue's operands, result."""

    word: ClassVar[str] = "softmax"
    shape: Shape3
    epilogue: Epilogue = NOTHING


@dataclass(frozen=True, slots=True)
class LayerNormKernel(Kernel):
    """Layer normalisation of the channels of each pixel.

    Arguments: map, weight and bias of each channel, the epilogue's operands, result.
    """

    word: ClassVar[str] = "layer_norm"
    shape: Shape3
    eps: float
    epilogue: Epilogue = NOTHING
