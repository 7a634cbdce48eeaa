"""What is known of each kind of micro-kernel: the order of its weights, what it takes."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tcc.backends.arm.micro.window import MicroWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Int8 = NDArray[np.int8]
    Int32 = NDArray[np.int32]

PIXELS = 8
QUAD = 4
MAX_TAPS = 1 << 13
"""Most taps of a sum: no sum of products of levels and weights overflows."""
MAX_PANEL = 160 << 10
"""Most bytes of one panel, on a thread's stack: see `POOL_STACK` in `runtime/pool.h`."""
FLOAT_PIXELS = 12
MAX_FLOAT_PANELS = 1 << 14
"""Most floats of panels that a thread holds, 64 KiB of its stack."""
MAX_FLOAT_BAND = 1 << 13
"""Most floats of a depthwise band: `BAND` of `c/float_depthwise_neon.c`."""
MAX_BAND = 1 << 14
"""Most elements of a depthwise band, 32 KiB of a thread's stack."""


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """One file of C, `c/<word>.c`, whose functions are `micro_<word>_<what>`."""

    word: str

    functions: ClassVar[tuple[str, ...]]
    """What `<what>` is in turn."""
    multiplies_bytes: ClassVar[bool] = False
    """Whether it is another where a processor has instructions for sums of products of bytes."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names of its functions."""
        return tuple(self.symbol(what) for what in self.functions)

    def symbol(self, what: str) -> str:
        """Return the name of one of its functions."""
        return f"micro_{self.word}_{what}"


def shifted(bias: "Int32", weight: "Int8", by: int) -> "Int32":
    """Return the bias to which products with x - `by` are added, where those with x were meant."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    moved: Int32 = (bias.astype(np.int64) + by * rows.sum(axis=1)).astype(np.int32)
    return moved


def blocks(rows: "NDArray[Any]", filters: int, taps: int = 1) -> "NDArray[Any]":
    """Return (filters, taps) filled up with zeros to whole blocks of both: (blocks, filters, n)."""
    # Zeros: a product with them changes no sum, and their results are not stored.
    more = -len(rows) % filters, -rows.shape[1] % taps
    full = np.pad(rows, ((0, more[0]), (0, more[1])))
    return full.reshape(-1, filters, full.shape[1])


@dataclass(frozen=True, slots=True)
class Matrix(MicroKernel):
    """Sums for some pixels and a block of filters; `lane` taps of a filter lie together."""

    functions: ClassVar[tuple[str, ...]] = ("gather", "levels", "reals")
    multiplies_bytes: ClassVar[bool] = True
    spans: ClassVar[bool] = False
    """Whether a call takes panels that lie one behind another."""
    filters: int
    lane: int
    pixels: int = PIXELS
    unsigned: bool = False
    """Whether levels are multiplied as unsigned numbers, signed ones as x + 128."""

    def takes(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        # 8,192 products of at most 255 * 127 are below 2^28: an int32 has room for them and the
        # bias.
        panel = -(-window.taps // QUAD) * QUAD * self.pixels
        return window.gatherable(self.pixels) and window.taps <= MAX_TAPS and panel <= MAX_PANEL

    @classmethod
    def joins_channels(cls, _channels: int) -> bool:
        """Whether quads are four channels of a tap, of so many channels."""
        return False

    def shift(self, window: MicroWindow) -> int:
        """Return how much less than a level is multiplied."""
        return window.flip - 0x80 * self.unsigned

    def filled(self, values: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Return biases or factors, one a filter, filled up with zeros to whole blocks."""
        return blocks(values[:, None], self.filters).ravel()

    def packed(self, weight: "Int8") -> "Int8":
        """Return weights (filters, ...) as blocks, each (quads, lanes of a quad, filters, lane)."""
        if self.joins_channels(weight.shape[1]):
            weight = weight.reshape(len(weight), weight.shape[1] // QUAD, QUAD, -1).swapaxes(2, 3)
        rows = blocks(weight.reshape(len(weight), -1), self.filters, QUAD)
        count, _, taps = rows.shape
        split = rows.reshape(count, self.filters, taps // QUAD, QUAD // self.lane, self.lane)
        # In the order in which the assembly loads them, so that it reads weights from front to back
        # once.
        return split.transpose(0, 2, 3, 1, 4).astype(np.int8).ravel()


@dataclass(frozen=True, slots=True)
class ChannelMatrix(Matrix):
    """The same, whose quads are four channels of a tap where there are whole fours of channels."""

    functions: ClassVar[tuple[str, ...]] = (*Matrix.functions, "deal", "copy")
    spans: ClassVar[bool] = True
    sixteen: ClassVar[int] = 16

    @classmethod
    def joins_channels(cls, channels: int) -> bool:
        """Whether quads are four channels of a tap, of so many channels."""
        return channels % QUAD == 0

    @classmethod
    def dealt(cls, window: MicroWindow, groups: int) -> int:
        """Return the quads that a map's interleaved channels take: `c/matrix_channels.h`."""
        height, width = (
            (out - 1) * step + (taps - 1) * apart + 1
            for out, step, taps, apart in zip(
                window.out, window.stride, window.kernel, window.dilation, strict=True
            )
        )
        return groups * window.channels // QUAD * (height * width + cls.sixteen) + cls.sixteen


@dataclass(frozen=True, slots=True)
class FloatMatrix(MicroKernel):
    """Sums of products of floats, for some pixels and a block of filters."""

    functions: ClassVar[tuple[str, ...]] = ("gather", "sums")
    filters: int
    pixels: int = FLOAT_PIXELS
    cut: int = 0
    """Of a block that is cut off, a multiple of as many filters is multiplied; 0: all of it."""

    def takes(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        return prod(window.kernel) * self.pixels <= MAX_FLOAT_PANELS

    def multiplied(self, filters: int) -> int:
        """Return how many filters are multiplied where there are so many."""
        cut = self.cut or self.filters
        return -(-filters // cut) * cut

    def filled(self, values: "Floats") -> "Floats":
        """Return biases, one a filter, filled up with zeros to whole blocks."""
        return blocks(values[:, None], self.filters).ravel()

    def packed(self, weight: "Floats") -> "Floats":
        """Return weights (filters, ...) as blocks, each (taps, filters)."""
        rows = blocks(weight.reshape(len(weight), -1), self.filters)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).ravel()


@dataclass(frozen=True, slots=True)
class FloatDepthwise(MicroKernel):
    """The plane of one filter that reads one channel, in floats.

    It reads as many columns as `lanes` results do.
    """

    functions: ClassVar[tuple[str, ...]] = ("plane",)
    lanes: int = QUAD

    def takes(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        return (
            window.channels == 1
            and window.kernel in {(3, 3), (5, 5)}
            and window.stride in {(1, 1), (2, 2)}
            and window.dilation == (1, 1)
            and self._least_band(window) <= MAX_FLOAT_BAND
        )

    def packed(self, weight: "Floats") -> "Floats":
        """Return weights (filters, 1, ...), each filter's filled up to whole vectors."""
        rows = blocks(weight.reshape(len(weight), -1), 1, QUAD)
        return np.ascontiguousarray(rows).ravel()

    def _least_band(self, window: MicroWindow) -> int:
        """Return the numbers that two rows of the output read, with what lies beside them."""
        (side, _), (stride, _) = window.kernel, window.stride
        columns = max(window.out[1], self.lanes) + (side - 1) // stride + self.lanes - 1
        return (stride + side) * stride * columns


@dataclass(frozen=True, slots=True)
class Vector(MicroKernel):
    """Sums for one pixel and a block of four filters."""

    functions: ClassVar[tuple[str, ...]] = ("levels", "reals")
    filters: ClassVar[int] = 4
    step: ClassVar[int] = 16

    def takes(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        # A window of one pixel that makes one pixel is a matrix by a vector.
        one = prod(window.size) * prod(window.out) * prod(window.kernel) == 1
        return one and window.start == (0, 0) and window.taps <= 1 << 16

    def filled(self, values: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Return biases or factors, one a filter, filled up with zeros to whole blocks."""
        return blocks(values[:, None], self.filters).ravel()

    def packed(self, weight: "Int8") -> "Int8":
        """Return weights (filters, ...) as blocks, each (steps, filters, 16 taps)."""
        rows = blocks(weight.reshape(len(weight), -1), self.filters, self.step)
        split = rows.reshape(len(rows), self.filters, -1, self.step)
        return split.transpose(0, 2, 1, 3).astype(np.int8).ravel()


@dataclass(frozen=True, slots=True)
class Depthwise(MicroKernel):
    """The plane of one filter that reads one channel."""

    functions: ClassVar[tuple[str, ...]] = ("levels",)
    multiplies_bytes: ClassVar[bool] = True
    beyond: int = 0
    """Elements behind a band that it may read."""

    def takes(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        return window.channels == 1 and window.band_elements <= MAX_BAND

    def packed(self, weight: "Int8") -> "NDArray[np.int16]":
        """Return weights (filters, 1, ...) as int16, each filter's filled up to whole fours."""
        rows = blocks(weight.reshape(len(weight), -1), 1, QUAD)
        # int16, since products are made of 16-bit lanes: widening in the kernel would be work for
        # every pixel.
        return rows.astype(np.int16).ravel()
