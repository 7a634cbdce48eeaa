"""Pooling over windows."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, assert_never

import numpy as np

from tcc.backends.arm.kernels.base import Kernel, Shape3, Space
from tcc.backends.arm.kernels.epilogue import NO_EPILOGUE, Epilogue
from tcc.backends.arm.kernels.window import Band, Layout, Window, compute_layout

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reduction(Enum):
    """What becomes of the elements of a window or of a whole channel."""

    MAX = "max"
    MEAN = "mean"

    def get_identity(self, dtype: str) -> float:
        """Return what does not change the result, of elements of a type."""
        match self:
            case Reduction.MAX:
                # -inf, which PyTorch pads with too: the lowest finite number would hide a -inf
                return -np.inf if dtype == "float32" else float(np.iinfo(dtype).min)
            case Reduction.MEAN:
                return 0.0
            case _:
                assert_never(self)

    def get_accumulator_dtype(self, dtype: str) -> str:
        """Return the type in which elements of a type are reduced."""
        match self:
            case Reduction.MAX:
                return dtype
            case Reduction.MEAN:
                return "float32" if dtype == "float32" else "int32"
            case _:
                assert_never(self)

    @property
    def is_separable(self) -> bool:
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

    def compute_factor(self, count: int) -> float | None:
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

    name: ClassVar[str] = "pool"
    window: Window
    reduction: Reduction
    factor_count: int
    tile: int
    epilogue: Epilogue = NO_EPILOGUE
    dtype: str = "float32"
    prologue: Epilogue = NO_EPILOGUE

    @property
    def sliding_window(self) -> Window:
        """The window that slides over what is copied.

        Where a copy is made anyway, it holds the maxima of columns, and windows are one row high:
        a window of 3x3 in steps of two takes six comparisons, not nine.
        """
        window = self.window
        (rows, columns), (pad_top, pad_left, _, pad_right) = window.kernel, window.pads
        flat_window = replace(window, kernel=(1, columns), pads=(0, pad_left, 0, pad_right))
        # The row that stands for those above or below has to be one of the window's own.
        last_row = (window.out[0] - 1) * window.stride[0] - pad_top
        reads_map = rows > max(pad_top, 1) and last_row < window.source[1]
        return (
            flat_window
            if self.reduction.is_separable and reads_map and flat_window.needs_staging
            else window
        )

    @property
    def band(self) -> Band | None:
        """The rows of a channel that are copied with their border, if that is needed."""
        band = self.sliding_window.choose_band(
            1, self.reduction.get_identity(self.dtype), self.dtype
        )
        if band is None or self.sliding_window is self.window:
            return band
        pad_top, taps = self.window.pads[0], self.window.kernel[0]
        return replace(band, staging=replace(band.staging, pad_top=pad_top, taps=taps))

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of a band that threads share."""
        return self.band.spaces if self.band else ()

    @property
    def layout(self) -> Layout:
        """Where the window's elements lie."""
        return compute_layout(self.sliding_window, self.band)

    @property
    def output_shape(self) -> Shape3:
        """The shape of the output."""
        return (self.window.source[0], *self.window.out)


@dataclass(frozen=True, slots=True)
class ChannelPool(Kernel):
    """The largest element or the mean of each channel; of integers the sum.

    Arguments: map, the epilogue's operands, result.
    """

    name: ClassVar[str] = "global_pool"
    channels: int
    pixels: int
    reduction: Reduction
    epilogue: Epilogue = NO_EPILOGUE
    dtype: str = "float32"


def compute_mean_factors(window: Window, *, count_border: bool) -> "NDArray[np.float32]":
    """Return what each window's sum is multiplied by: a table (height, width), or one number.

    A window is cut off at the padded border, or at the input's where the border does not
    count; what is left of it is what the sum is divided by.
    """
    counts = []
    for axis in (0, 1):
        size, pad_before, pad_after = (
            window.source[axis + 1],
            window.pads[axis],
            window.pads[axis + 2],
        )
        starts = np.arange(window.out[axis]) * window.stride[axis]
        stops = np.minimum(starts + window.kernel[axis], pad_before + size + pad_after)
        if not count_border:
            starts, stops = np.maximum(starts, pad_before), np.minimum(stops, pad_before + size)
        counts.append(stops - starts)
    factors = (1.0 / np.outer(*counts)).astype(np.float32)
    # without padding all windows count alike: no table has to be read beside the map
    return factors.ravel()[:1] if (factors == factors.flat[0]).all() else factors
