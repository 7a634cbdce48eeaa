"""The kinds of micro-kernels: their weight layouts, and the windows that they support."""

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
"""Largest number of taps per sum, so that sums of int8 products do not overflow."""
MAX_PANEL = 160 << 10
"""Largest size of one panel in bytes, on a thread's stack: see `POOL_STACK` in `runtime/pool.h`."""
FLOAT_PIXELS = 12
MAX_PANEL_FLOATS = 1 << 14
"""Largest number of floats in a thread's panels, 64 KiB of its stack."""
MAX_FLOAT_BAND = 1 << 13
"""Largest number of floats in a depthwise band: `BAND` of `c/float_depthwise_neon.c`."""
MAX_BAND = 1 << 14
"""Largest number of elements in a depthwise band, 32 KiB of a thread's stack."""


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """One C file, `c/<name>.c`, with the functions `micro_<name>_<function>`."""

    name: str

    functions: ClassVar[tuple[str, ...]]
    """The names `<function>` of its functions."""
    multiplies_bytes: ClassVar[bool] = False
    """Whether it has variants for processors with 8-bit dot product instructions."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The full names of its functions."""
        return tuple(self.get_symbol(function) for function in self.functions)

    def get_symbol(self, function: str) -> str:
        """Return the full name of one of its functions."""
        return f"micro_{self.name}_{function}"


def shift_bias(bias: "Int32", weight: "Int8", offset: int) -> "Int32":
    """Fold an input offset into the bias, for products with x - `offset` instead of x."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    shifted_bias: Int32 = (bias.astype(np.int64) + offset * rows.sum(axis=1)).astype(np.int32)
    return shifted_bias


def pad_blocks(rows: "NDArray[Any]", filters: int, taps: int = 1) -> "NDArray[Any]":
    """Return (filters, taps) padded with zeros to full blocks, as (blocks, filters, n)."""
    # Products with zeros change no sum, and the sums of padding filters are not stored.
    padding = -len(rows) % filters, -rows.shape[1] % taps
    padded_rows = np.pad(rows, ((0, padding[0]), (0, padding[1])))
    return padded_rows.reshape(-1, filters, padded_rows.shape[1])


@dataclass(frozen=True, slots=True)
class Matrix(MicroKernel):
    """Sums for some pixels and a block of filters; weights have `lane` adjacent taps per filter."""

    functions: ClassVar[tuple[str, ...]] = ("gather", "levels", "reals")
    multiplies_bytes: ClassVar[bool] = True
    supports_panel_spans: ClassVar[bool] = False
    """Whether one call can process several consecutive panels."""
    filters: int
    lane: int
    pixels: int = PIXELS
    is_unsigned: bool = False
    """Whether values are multiplied as unsigned ones: minus the smallest value."""

    def supports_window(self, window: MicroWindow) -> bool:
        """Whether it supports convolutions with this window."""
        # 8,192 products of at most 255 * 127 are below 2^28: they and the bias fit in an int32.
        panel_bytes = -(-window.taps // QUAD) * QUAD * self.pixels
        return (
            window.can_gather(self.pixels) and window.taps <= MAX_TAPS and panel_bytes <= MAX_PANEL
        )

    @classmethod
    def has_channel_quads(cls, _channels: int) -> bool:
        """Whether quads are four channels of a tap, for this number of channels."""
        return False

    def get_shift(self, window: MicroWindow) -> int:
        """Return the offset that is subtracted from values before they are multiplied."""
        return window.offset - 0x80 * self.is_unsigned

    def pad_filters(self, per_filter: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Return biases or factors (filters,), padded with zeros to full blocks."""
        return pad_blocks(per_filter[:, None], self.filters).ravel()

    def pack_weights(self, weight: "Int8") -> "Int8":
        """Return weights (filters, ...) as blocks, each (quads, lanes of a quad, filters, lane)."""
        if self.has_channel_quads(weight.shape[1]):
            weight = weight.reshape(len(weight), weight.shape[1] // QUAD, QUAD, -1).swapaxes(2, 3)
        rows = pad_blocks(weight.reshape(len(weight), -1), self.filters, QUAD)
        count, _, taps = rows.shape
        split = rows.reshape(count, self.filters, taps // QUAD, QUAD // self.lane, self.lane)
        # In the order of the assembly's loads, which read the weights once from front to back.
        return split.transpose(0, 2, 3, 1, 4).astype(np.int8).ravel()


@dataclass(frozen=True, slots=True)
class ChannelMatrix(Matrix):
    """Like `Matrix`, with quads of four channels per tap if channels are a multiple of four."""

    functions: ClassVar[tuple[str, ...]] = (*Matrix.functions, "deal", "copy")
    supports_panel_spans: ClassVar[bool] = True
    copy_width: ClassVar[int] = 16

    @classmethod
    def has_channel_quads(cls, channels: int) -> bool:
        """Whether quads are four channels of a tap, for this number of channels."""
        return channels % QUAD == 0

    @classmethod
    def count_interleaved_quads(cls, window: MicroWindow, groups: int) -> int:
        """Return the number of quads of a map's interleaved channels: `c/matrix_channels.h`."""
        height, width = (
            (out - 1) * step + (taps - 1) * dilation + 1
            for out, step, taps, dilation in zip(
                window.out, window.stride, window.kernel, window.dilation, strict=True
            )
        )
        return groups * window.channels // QUAD * (height * width + cls.copy_width) + cls.copy_width


@dataclass(frozen=True, slots=True)
class FloatMatrix(MicroKernel):
    """Sums of float products, for some pixels and a block of filters."""

    functions: ClassVar[tuple[str, ...]] = ("gather", "sums")
    filters: int
    pixels: int = FLOAT_PIXELS
    partial_multiple: int = 0
    """A partial block multiplies a multiple of this many filters; 0: the full block."""

    def supports_window(self, window: MicroWindow) -> bool:
        """Whether it supports convolutions with this window."""
        return prod(window.kernel) * self.pixels <= MAX_PANEL_FLOATS

    def count_multiplied_filters(self, filters: int) -> int:
        """Return how many filters are multiplied for this number of filters."""
        multiple = self.partial_multiple or self.filters
        return -(-filters // multiple) * multiple

    def pad_filters(self, per_filter: "Floats") -> "Floats":
        """Return biases (filters,), padded with zeros to full blocks."""
        return pad_blocks(per_filter[:, None], self.filters).ravel()

    def pack_weights(self, weight: "Floats") -> "Floats":
        """Return weights (filters, ...) as blocks, each (taps, filters)."""
        rows = pad_blocks(weight.reshape(len(weight), -1), self.filters)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).ravel()


@dataclass(frozen=True, slots=True)
class FloatDepthwise(MicroKernel):
    """The plane of one filter that reads one channel, in floats.

    It always reads the columns of `lanes` results.
    """

    functions: ClassVar[tuple[str, ...]] = ("plane",)
    lanes: int = QUAD

    def supports_window(self, window: MicroWindow) -> bool:
        """Whether it supports convolutions with this window."""
        return (
            window.channels == 1
            and window.kernel in {(3, 3), (5, 5)}
            and window.stride in {(1, 1), (2, 2)}
            and window.dilation == (1, 1)
            and self._count_min_band(window) <= MAX_FLOAT_BAND
        )

    def pack_weights(self, weight: "Floats") -> "Floats":
        """Return weights (filters, 1, ...), padded to full vectors per filter."""
        rows = pad_blocks(weight.reshape(len(weight), -1), 1, QUAD)
        return np.ascontiguousarray(rows).ravel()

    def _count_min_band(self, window: MicroWindow) -> int:
        """Return the elements that two rows of the output read, with their padding."""
        (side, _), (stride, _) = window.kernel, window.stride
        columns = max(window.out[1], self.lanes) + (side - 1) // stride + self.lanes - 1
        return (stride + side) * stride * columns


@dataclass(frozen=True, slots=True)
class Vector(MicroKernel):
    """Sums for one pixel and a block of four filters."""

    functions: ClassVar[tuple[str, ...]] = ("levels", "reals")
    filters: ClassVar[int] = 4
    step: ClassVar[int] = 16

    def supports_window(self, window: MicroWindow) -> bool:
        """Whether it supports convolutions with this window."""
        # A 1x1 window on a single pixel is a matrix-vector product.
        is_single_pixel = prod(window.size) * prod(window.out) * prod(window.kernel) == 1
        return is_single_pixel and window.start == (0, 0) and window.taps <= 1 << 16

    def pad_filters(self, per_filter: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """Return biases or factors (filters,), padded with zeros to full blocks."""
        return pad_blocks(per_filter[:, None], self.filters).ravel()

    def pack_weights(self, weight: "Int8") -> "Int8":
        """Return weights (filters, ...) as blocks, each (steps, filters, 16 taps)."""
        rows = pad_blocks(weight.reshape(len(weight), -1), self.filters, self.step)
        split = rows.reshape(len(rows), self.filters, -1, self.step)
        return split.transpose(0, 2, 1, 3).astype(np.int8).ravel()


@dataclass(frozen=True, slots=True)
class Depthwise(MicroKernel):
    """The plane of one filter that reads one channel."""

    functions: ClassVar[tuple[str, ...]] = ("levels",)
    multiplies_bytes: ClassVar[bool] = True
    overread: int = 0
    """Number of elements after a band that it may read."""

    def supports_window(self, window: MicroWindow) -> bool:
        """Whether it supports convolutions with this window."""
        return window.channels == 1 and window.band_elements <= MAX_BAND

    def pack_weights(self, weight: "Int8") -> "NDArray[np.int16]":
        """Return weights (filters, 1, ...) as int16, padded to full quads per filter."""
        rows = pad_blocks(weight.reshape(len(weight), -1), 1, QUAD)
        # int16, because products use 16-bit lanes: widening in the kernel would cost time per
        # pixel.
        return rows.astype(np.int16).ravel()
