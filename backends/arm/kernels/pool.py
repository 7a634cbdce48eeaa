"""Pooling over windows."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, assert_never

import numpy as np

from tcc.backends.arm.kernels.base import Kernel, Shape3, Space
from tcc.backends.arm.kernels.epilogue import NOTHING, Epilogue
from tcc.backends.arm.kernels.window import Band, Layout, Window, layout

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reduction(Enum):
    """What becomes of the elements of a window or of a whole channel."""

    MAX = "max"
    MEAN = "mean"

    def neutral(self, dtype: str) -> float:
        """Return what does not change the result, of elements of a type."""
        match self:
            case Reduction.MAX:
                # -inf, which PyTorch pads with too: the lowest finite number would hide a -inf
                return -np.inf if dtype == "float32" else float(np.iinfo(dtype).min)
            case Reduction.MEAN:
                return 0.0
            case _:
                assert_never(self)

    def running(self, dtype: str) -> str:
        """Return the type in which elements of a type are reduced."""
        match self:
            case Reduction.MAX:
                return dtype
            case Reduction.MEAN:
                return "float32" if dtype == "float32" else "int32"
            case _:
                assert_never(self)

    @property
    def nests(self) -> bool:
        """Whether columns can be reduced first: the same values, and no wider elements.

        Of zeros of both signs, another may come out on x86-64, whose maximum takes the later.
        """
        match self:
            case Reduction.MAX:
                return True
            case Reduction.MEAN:
                return False
            case _:
                assert_never(self)

    def factor(self, count: int) -> float | None:
        """Return what the reduction of `count` floats is multiplied by at last, if anything."""
        match self:
            case Reduction.MAX:
                return None
            case Reduction.MEAN:
                return 1.0 / count
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class WindowPool(Kernel):
    """The largest element of each window, or the sum times a factor.

    The prologue is done to each number of the map as it is copied to a band, and reads one number a
    channel, or one for all. Arguments: map, the prologue's operands, factors (height, width), one
    for all, or none for the maximum and for integers, whose epilogue has them; the epilogue's
    operands, a band of the input (where threads share it), result.
    """

    word: ClassVar[str] = "pool"
    window: Window
    reduction: Reduction
    factors: int
    tile: int
    epilogue: Epilogue = NOTHING
    dtype: str = "float32"
    prologue: Epilogue = NOTHING

    @property
    def slid(self) -> Window:
        """The window that slides over what is copied.

        Where a copy is made anyway, it holds the maxima of columns, and windows are one row high:
        a window of 3x3 in steps of two takes six comparisons, not nine.
        """
        window = self.window
        (rows, columns), (top, left, _, right) = window.kernel, window.pads
        flat = replace(window, kernel=(1, columns), pads=(0, left, 0, right))
        # The row that stands for those above or below has to be one of the window's own.
        last = (window.out[0] - 1) * window.stride[0] - top
        met = rows > max(top, 1) and last < window.source[1]
        return flat if self.reduction.nests and met and flat.staged else window

    @property
    def band(self) -> Band | None:
        """The rows of a channel that are copied with their border, if that is needed."""
        band = self.slid.band(1, self.reduction.neutral(self.dtype), self.dtype)
        if band is None or self.slid is self.window:
            return band
        top, taps = self.window.pads[0], self.window.kernel[0]
        return replace(band, staging=replace(band.staging, top=top, taps=taps))

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of a band that threads share."""
        return self.band.spaces if self.band else ()

    @property
    def layout(self) -> Layout:
        """Where the window's elements lie."""
        return layout(self.slid, self.band)

    @property
    def result(self) -> Shape3:
        """The shape of the output."""
        return (self.window.source[0], *self.window.out)


@dataclass(frozen=True, slots=True)
class ChannelPool(Kernel):
    """The largest element or the mean of each channel; of integers the sum.

    Arguments: map, the epilogue's operands, result.
    """

    word: ClassVar[str] = "global_pool"
    channels: int
    pixels: int
    reduction: Reduction
    epilogue: Epilogue = NOTHING
    dtype: str = "float32"


def mean_factors(window: Window, *, count_border: bool) -> "NDArray[np.float32]":
    """Return what each window's sum is multiplied by: a table (height, width), or one number.

    A window is cut off at the padded border, or at the input's where the border does not
    count; what is left of it is what the sum is divided by.
    """
    counts = []
    for axis in (0, 1):
        size, before, after = window.source[axis + 1], window.pads[axis], window.pads[axis + 2]
        starts = np.arange(window.out[axis]) * window.stride[axis]
        ends = np.minimum(starts + window.kernel[axis], before + size + after)
        if not count_border:
            starts, ends = np.maximum(starts, before), np.minimum(ends, before + size)
        counts.append(ends - starts)
    factors = (1.0 / np.outer(*counts)).astype(np.float32)
    # without padding all windows count alike: no table has to be read beside the map
    return factors.ravel()[:1] if (factors == factors.flat[0]).all() else factors
