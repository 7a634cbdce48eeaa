"""The geometry of sliding windows, and copies of the input that make their rows contiguous."""

from dataclasses import dataclass
from typing import Any

from tcc.backends.arm.kernels.base import Shape3, Space
from tcc.compiler.ir.types import Pair, Quad

Index = Any
"""A number, or an expression of loop indices."""


MAX_STACK_BAND_BYTES = 1 << 16
"""Largest size of a band on a thread's stack in bytes; see `POOL_STACK` in `runtime/pool.h`."""
L1_BAND_BYTES = 1 << 15
"""Bytes of a band that stay in the first-level cache; larger bands have one row."""
SHARED_BAND_BYTES = 1 << 18
"""Bytes of a band in the arena that all threads read; larger bands have one row."""
MIN_SHARED_BANDS = 8
"""Least number of bands of a map if threads share bands."""


@dataclass(frozen=True, slots=True)
class Staging:
    """A copy of rows of a map with their border, with columns split into phases.

    Element (c, r, p, q) is the input's (c, r * row_step - top, q * phases + p - left), or `fill`
    outside of it. With as many phases as the stride, the columns that one tap reads for adjacent
    outputs are adjacent. The copy keeps borders out of the innermost loops. It has `rows` rows and
    `source[0]` channels at a time. Each row is computed from `taps` rows of the input, beginning
    with its own; rows outside of the input are replaced by the nearest one inside.

    With `spread`, the input's element (c, y, x) goes to (c, top + y * spread, left + x * spread)
    instead, with `fill` in between.
    """

    source: Shape3
    rows: int
    columns: int
    row_step: int
    phase_step: int
    phases: int
    pad_top: int
    pad_left: int
    fill: float
    spread: Pair = (1, 1)
    dtype: str = "float32"
    taps: int = 1

    @property
    def space(self) -> Space:
        """The memory of the copy."""
        return Space(self.source[0] * self.rows * self.phases * self.columns, self.dtype)

    def find_inside_columns(self, phase: int) -> tuple[int, int]:
        """Return the first column of a phase that is inside the input, and one past the last."""
        shift, width = self.pad_left - phase, self.source[2]
        start = max(0, -(-shift // self.phase_step))
        stop = (width - 1 + shift) // self.phase_step + 1
        return min(start, self.columns), max(min(start, self.columns), min(stop, self.columns))

    @property
    def inside_rows(self) -> tuple[int, int]:
        """The first row of the full copy that is inside the input, and one past the last."""
        start = -(-self.pad_top // self.row_step)
        return start, max(start, (self.source[1] - 1 + self.pad_top) // self.row_step + 1)


@dataclass(frozen=True, slots=True)
class Band:
    """Rows of the output that are computed together, from a copy of their input.

    Adjacent output rows read from rows of the full copy that are `step` apart. `is_thread_local`
    bands are on each thread's stack. Other bands are in the arena, one at a time, and all threads
    work on each.
    """

    staging: Staging
    rows: int
    step: int
    is_thread_local: bool

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The band's memory in the arena."""
        return () if self.is_thread_local else (self.staging.space,)


@dataclass(frozen=True, slots=True)
class Window:
    """A window that slides over a map: sizes as (height, width), padding as in the ops."""

    source: Shape3
    out: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Quad = (0, 0, 0, 0)
    spread: Pair = (1, 1)
    """Distance of the input's pixels in the map that the window slides over."""

    @property
    def is_pointwise(self) -> bool:
        """Whether each output element reads only the pixel at its own position."""
        is_unit_step = self.stride == self.spread == self.kernel == (1, 1)
        return is_unit_step and self.out == self.source[1:]

    @property
    def extent(self) -> Pair:
        """Number of rows and columns from the first element that is read to the last."""
        return self._compute_extent(0, self.out[0]), self._compute_extent(1, self.out[1])

    def _compute_extent(self, axis: int, count: int) -> int:
        stride, taps = self.stride[axis], self.kernel[axis] - 1
        return (count - 1) * stride + taps * self.dilation[axis] + 1

    @property
    def needs_staging(self) -> bool:
        """Whether a copy is needed: the window leaves the map, or reads columns with gaps."""
        fits_map = self.extent[0] <= self.source[1] and self.extent[1] <= self.source[2]
        is_contiguous = self.stride[1] == 1 and self.spread == (1, 1)
        return not (fits_map and is_contiguous and self.pads[:2] == (0, 0))

    def create_staging(self, rows: int, channels: int, fill: float, dtype: str) -> Staging:
        """Return the copy of some channels for some rows of the output."""
        source, (pad_top, pad_left, _, _) = (channels, *self.source[1:]), self.pads
        extent = self._compute_extent(0, rows)
        if self.spread != (1, 1):
            columns = self.extent[1]
            return Staging(
                source, extent, columns, 1, 1, 1, pad_top, pad_left, fill, self.spread, dtype
            )
        has_single_row, has_single_column = self.kernel[0] == 1, self.kernel[1] == 1
        return Staging(
            source=source,
            rows=rows if has_single_row else extent,
            columns=self.out[1] + (self.kernel[1] - 1) * self.dilation[1] // self.stride[1],
            row_step=self.stride[0] if has_single_row else 1,
            phase_step=self.stride[1],
            phases=1 if has_single_column else self.stride[1],
            pad_top=pad_top,
            pad_left=pad_left,
            fill=fill,
            dtype=dtype,
        )

    def choose_band(
        self, channels: int, fill: float, dtype: str, parts: int = 1, *, is_shared: bool = False
    ) -> Band | None:
        """Return the bands in which some channels are copied; None if no copy is needed.

        There are at least `parts` bands, if there are enough rows. All have the same size if the
        window is one row high, so that their rows can be joined.
        """
        if not self.needs_staging:
            return None
        height = self.out[0]

        def compute_bytes(rows: int) -> int:
            return self.create_staging(rows, channels, fill, dtype).space.nbytes

        is_thread_local = not is_shared and compute_bytes(1) <= MAX_STACK_BAND_BYTES
        max_bytes = L1_BAND_BYTES if is_thread_local else SHARED_BAND_BYTES
        max_rows = next(
            (n for n in range(-(-height // parts), 1, -1) if compute_bytes(n) <= max_bytes), 1
        )
        # As few bands as `max_rows` allows, with similar heights and no small last band.
        rows = -(-height // -(-height // max_rows))
        if self.kernel[0] == 1:
            rows = next(n for n in range(max_rows, 0, -1) if height % n == 0)
        staging = self.create_staging(rows, channels, fill, dtype)
        return Band(staging, rows, self.stride[0] // staging.row_step, is_thread_local)


@dataclass(frozen=True, slots=True)
class Layout:
    """The offsets of a window's elements in its input or band, in elements.

    Tap (i, j) of output (y, x) in channel c is at
    c * channel + y * row_step + x + row(i) + column(j).
    """

    channel: int
    row_step: int
    row: int
    columns: int
    stride: int
    dilation: int

    def compute_column_offset(self, tap: Index) -> Index:
        """Return the offset of a tap along x; `tap` may be a loop index."""
        distance = tap * self.dilation
        return distance % self.stride * self.columns + distance // self.stride


def compute_layout(window: Window, band: Band | None) -> Layout:
    """Return the offsets of a window's elements in a band, or in the input."""
    dilation = window.dilation
    if band is None:
        _, h, w = window.source
        return Layout(h * w, window.stride[0] * w, dilation[0] * w, 0, 1, dilation[1])
    staging = band.staging
    line = staging.phases * staging.columns
    return Layout(
        staging.rows * line, band.step * line, dilation[0] * line,
        staging.columns, window.stride[1], dilation[1],
    )  # fmt: skip
