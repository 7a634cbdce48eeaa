"""The window that micro-kernels are told of, as `c/micro.h` has it."""

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 256
"""Most bytes of a row that a tile's windows reach over: `REACH` of `c/matrix_gather.h`."""
MAX_WIDTH = 120
"""Most columns of a window that is gathered: fewer than its `ROWS`."""


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
    is_signed: bool = False
    band: int = 1
    """Rows of the output that a depthwise kernel computes at once: one, or an even number."""

    @property
    def taps(self) -> int:
        """Products of one sum."""
        return self.channels * self.kernel[0] * self.kernel[1]

    @property
    def dtype(self) -> str:
        """The type of levels that are read."""
        return "int8" if self.is_signed else "uint8"

    @property
    def flip(self) -> int:
        """What makes a stored level a signed one."""
        # Levels of uint8 become signed by their top bit; `shifted` puts what that changes into the
        # bias.
        return 0 if self.is_signed else 0x80

    def can_gather(self, pixels: int) -> bool:
        """Whether `c/matrix_gather.h` has room for what as many windows in a row read."""
        extent = pixels * self.stride[1] + (self.kernel[1] - 1) * self.dilation[1]
        return extent <= REACH and self.kernel[1] <= MAX_WIDTH

    @property
    def band_elements(self) -> int:
        """Size of a depthwise kernel's band, in int16."""
        across, width = self.stride[1], self.kernel[1]
        # Columns of a band are laid out by their remainder modulo the stride, so that strided
        # windows read consecutive numbers.
        columns = -(-self.out[1] // 8) * 8 + (width - 1) * self.dilation[1] // across
        return self.band_rows * across * columns

    @property
    def band_rows(self) -> int:
        """Rows of a map in a depthwise kernel's band."""
        return (self.band - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1

    @property
    def is_flat(self) -> bool:
        """Whether pixels of the output are those of one row of the map."""
        is_pointwise = self.kernel == self.stride == (1, 1) and self.start == (0, 0)
        return is_pointwise and self.size == self.out and self.size[0] == 1

    def flatten(self) -> "MicroWindow":
        """Return the same with a map's rows laid end to end, if each output reads its own pixel."""
        if self.kernel != (1, 1) or self.stride != (1, 1) or self.out != self.size:
            return self
        flat_size = (1, self.size[0] * self.size[1])
        return replace(self, size=flat_size, out=flat_size)

    def build_table(self) -> "NDArray[np.int32]":
        """Return the numbers of a `micro_window` in order."""
        # In the order of the C struct's fields; `signed` goes as what it is xored with.
        channels, *pairs, _, band = astuple(self)
        numbers = [n for pair in pairs for n in pair]
        return np.array([channels, *numbers, self.flip, band], np.int32)
