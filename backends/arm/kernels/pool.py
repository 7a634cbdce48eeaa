"""Pooling over windows and channels."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, assert_never

import numpy as np

from tcc.backends.arm.kernels.base import Kernel, Shape3, Space, get_zero_point
from tcc.backends.arm.kernels.epilogue import NO_EPILOGUE, Epilogue
from tcc.backends.arm.kernels.window import Band, Layout, Window, compute_layout

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reduction(Enum):
    """The reduction of the elements of a window or of a channel."""

    MAX = "max"
    MEAN = "mean"

    def get_identity(self, dtype: str) -> float:
        """Return the neutral element for elements of this type."""
        match self:
            case Reduction.MAX:
                # -inf, like PyTorch's padding: the lowest finite number would hide a -inf.
                if zero_point := get_zero_point(dtype):
                    return float(-zero_point)
                return -np.inf if dtype == "float32" else float(np.iinfo(dtype).min)
            case Reduction.MEAN:
                return 0.0
            case _:
                assert_never(self)

    def get_accumulator_dtype(self, dtype: str) -> str:
        """Return the type of the accumulator for elements of this type."""
        match self:
            case Reduction.MAX:
                return "int32" if get_zero_point(dtype) else dtype
            case Reduction.MEAN:
                return "float32" if dtype == "float32" else "int32"
            case _:
                assert_never(self)

    @property
    def is_separable(self) -> bool:
        """Whether columns can be reduced first, with the same values and element types.

        Zeros of different signs are an exception: x86-64's maximum returns the second operand.
        """
        match self:
            case Reduction.MAX:
                return True
            case Reduction.MEAN:
                return False
            case _:
                assert_never(self)

    def compute_factor(self, count: int) -> float | None:
        """Return the factor for the reduction of `count` floats; None if there is none."""
        match self:
            case Reduction.MAX:
                return None
            case Reduction.MEAN:
                return 1.0 / count
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class WindowPool(Kernel):
    """The maximum of each window, or its sum times a factor.

    The prologue is applied to each element of the map when it is copied to a band; its operands
    have one value per channel or one value. Arguments: map, the prologue's operands, factors
    (height, width) or a single one (none for the maximum and for integers, whose epilogue has
    them), the epilogue's operands, a band of the input (if threads share it), result.
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
        """The window that slides over the copy.

        If a copy is needed anyway, it contains the maxima of columns, and windows are one row high:
        a 3x3 window with stride 2 then takes six comparisons instead of nine.
        """
        window = self.window
        (rows, columns), (pad_top, pad_left, _, pad_right) = window.kernel, window.pads
        flat_window = replace(window, kernel=(1, columns), pads=(0, pad_left, 0, pad_right))
        # A row outside of the map is replaced by the nearest row, which must be in the window.
        last_row = (window.out[0] - 1) * window.stride[0] - pad_top
        reads_map = rows > max(pad_top, 1) and last_row < window.source[1]
        return (
            flat_window
            if self.reduction.is_separable
            # Staged maxima compare stored bytes.
            and not get_zero_point(self.dtype)
            and reads_map
            and flat_window.needs_staging
            else window
        )

    @property
    def band(self) -> Band | None:
        """The rows of a channel that are copied with their border; None without a copy."""
        band = self.sliding_window.choose_band(
            1, self.reduction.get_identity(self.dtype), self.dtype
        )
        if band is None or self.sliding_window is self.window:
            return band
        pad_top, taps = self.window.pads[0], self.window.kernel[0]
        return replace(band, staging=replace(band.staging, pad_top=pad_top, taps=taps))

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of a shared band."""
        return self.band.spaces if self.band else ()

    @property
    def layout(self) -> Layout:
        """The offsets of the window's elements."""
        return compute_layout(self.sliding_window, self.band)

    @property
    def output_shape(self) -> Shape3:
        """The shape of the output."""
        return (self.window.source[0], *self.window.out)


@dataclass(frozen=True, slots=True)
class ChannelPool(Kernel):
    """The maximum or the mean of each channel; for integers the maximum or the sum.

    Arguments: map, the epilogue's operands, result.
    """

    name: ClassVar[str] = "global_pool"
    channels: int
    pixels: int
    reduction: Reduction
    epilogue: Epilogue = NO_EPILOGUE
    dtype: str = "float32"


def compute_mean_factors(window: Window, *, count_border: bool) -> "NDArray[np.float32]":
    """Return the factor of each window's sum: a table (height, width), or a single value.

    A window ends at the padded border, or at the input's border if padding is not counted. The sum
    is divided by the number of elements that are left.
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
    # Without padding all counts are equal: no table is needed.
    return factors.ravel()[:1] if (factors == factors.flat[0]).all() else factors
