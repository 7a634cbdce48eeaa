"""The window argument of micro-kernels, as in `c/micro.h`."""

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 256
"""Largest width in bytes that a tile's windows cover in a row: `REACH` of `c/matrix_gather.h`."""
MAX_WIDTH = 120
"""Largest number of columns of a gathered window: fewer than its `ROWS`."""


@dataclass(frozen=True, slots=True)
class MicroWindow:
    """A window that slides over a map: sizes as (height, width), padding at the top and left."""

    channels: int
    size: Pair
    out: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    start: Pair = (0, 0)
    low: int = 0
    """The smallest of the input's 256 quantized values."""
    band: int = 1
    """Rows of the output that a depthwise kernel computes at once: one, or an even number."""

    @property
    def taps(self) -> int:
        """Products per sum."""
        return self.channels * self.kernel[0] * self.kernel[1]

    @property
    def dtype(self) -> str:
        """The type of the input's quantized values."""
        return "int8" if self.low == -128 else f"uint8{self.low or ''}"

    @property
    def offset(self) -> int:
        """The number that makes values signed when it is subtracted from them."""
        # Products are with values minus the offset; `shift_bias` corrects the bias for it.
        return self.low + 0x80

    def can_gather(self, pixels: int) -> bool:
        """Whether a row of this many windows fits the buffer of `c/matrix_gather.h`."""
        extent = pixels * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1]
        return extent <= REACH and self.kernel[1] <= MAX_WIDTH

    @property
    def band_elements(self) -> int:
        """Size of a depthwise kernel's band in int16 elements."""
        across, width = self.stride[1], self.kernel[1]
        # A band's columns are ordered by their remainder modulo the stride, so that strided
        # windows read consecutive elements.
        columns = -(-self.out[1] // 8) * 8 + (width - 1) * self.dilation[1] // across
        return self.band_rows * across * columns

    @property
    def band_rows(self) -> int:
        """Rows of the map in a depthwise kernel's band."""
        return (self.band - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1

    @property
    def is_flat(self) -> bool:
        """Whether the output's pixels are one row of the map."""
        is_pointwise = self.kernel == self.stride == (1, 1) and self.start == (0, 0)
        return is_pointwise and self.size == self.out and self.size[0] == 1

    def flatten(self) -> "MicroWindow":
        """Return the window with the map's rows joined, if each output reads only its own pixel."""
        if self.kernel != (1, 1) or self.stride != (1, 1) or self.out != self.size:
            return self
        flat_size = (1, self.size[0] * self.size[1])
        return replace(self, size=flat_size, out=flat_size)

    def build_table(self) -> "NDArray[np.int32]":
        """Return the fields of a `micro_window` in order."""
        # In the order of the C struct. `low` becomes the offset.
        channels, *pairs, _, band = astuple(self)
        numbers = [n for pair in pairs for n in pair]
        return np.array([channels, *numbers, self.offset, band], np.int32)
