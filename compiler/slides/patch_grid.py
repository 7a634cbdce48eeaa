"""Patches of a slide on a grid, and the tissue weight of each (equations 1 to 4).

All lengths are integers, in pixels of level 0. The first patch starts in the slide's corner, so
that grids of one slide are aligned. The last patches may extend beyond the slide's edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.pixel_resampling import Axis, resample
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, make_file_span

MAX_PATCHES = 1 << 24
"""Maximum number of patches of a grid."""


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Grid of patches that are `span` wide and start every `stride` pixels, over the slide."""

    width: int
    height: int
    span: int
    stride: int

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def cell(self) -> int:
        """The side of a patch's cell: its central part, so that cells do not overlap."""
        return min(self.span, self.stride)

    @property
    def inset(self) -> int:
        """The offset of a patch's cell in the patch."""
        return (self.span - self.cell) // 2

    def compute_corner(self, row: int, column: int) -> tuple[int, int]:
        """Return the column and row of level 0 at which a patch starts."""
        return column * self.stride, row * self.stride


def build_grid(slide: Slide, span: int, stride: int) -> PatchGrid:
    """Return the grid of a slide.

    Raises:
        UserError: The grid has too many patches (E1304).
    """
    patch_grid = PatchGrid(slide.width, slide.height, span, stride)
    rows, columns = patch_grid.shape
    if rows * columns > MAX_PATCHES:
        message = f"this grid has {rows:,} x {columns:,} patches, the limit is {MAX_PATCHES:,}"
        source = make_file_span(str(slide.path))
        raise fail("E1304", message, source, help="use larger patches, or a coarser --at")
    return patch_grid


def compute_cell_areas(patch_grid: PatchGrid) -> NDArray[np.int64]:
    """Return the number of level 0 pixels of each patch's cell, within the slide."""
    sides = []
    for count, pixels in zip(patch_grid.shape, (patch_grid.height, patch_grid.width), strict=True):
        edges = np.minimum(np.arange(count + 1) * patch_grid.stride + patch_grid.inset, pixels)
        sides.append(np.diff(edges))
    return np.asarray(sides[0][:, None] * sides[1], np.int64)


def find_rectangles(patch_grid: PatchGrid, mask: TissueMask) -> list[tuple[slice, slice]]:
    """Return the grid rows and columns of each region's bounding rectangle.

    A rectangle starts at the first patch that overlaps the region. It has
    `(MAX - MIN) / stride + 1` rows and columns, by equations 1 and 2.
    """
    return [
        (slice(top, bottom), slice(first_column, end_column))
        for top, bottom, first_column, end_column in _find_rectangles(patch_grid, mask).tolist()
    ]


def _find_rectangles(patch_grid: PatchGrid, mask: TissueMask) -> NDArray[np.int64]:
    """Return the start and end rows and columns of each region (regions, 4)."""
    bounds = [(r.start, r.stop, c.start, c.stop) for r, c in mask.regions]
    regions = np.array(bounds, np.int64).reshape(-1, 2, 2)
    slide_size = np.array((patch_grid.height, patch_grid.width))
    starts = regions[:, :, 0] * mask.side
    last_pixels = np.minimum(regions[:, :, 1] * mask.side, slide_size) - 1
    padded = (
        np.maximum(0, starts - max(0, patch_grid.span - patch_grid.stride)) // patch_grid.stride
    )
    count = (last_pixels - padded * patch_grid.stride) // patch_grid.stride + 1
    return np.stack([padded, padded + count], axis=2).reshape(-1, 4)


def count_patch_pixels(patch_grid: PatchGrid, mask: TissueMask) -> NDArray[np.int64]:
    """Return the number of level 0 pixels of each patch that are inside a mask: equation 3."""
    rows, columns = patch_grid.shape
    tops, lefts = (
        np.arange(count, dtype=np.int64) * patch_grid.stride for count in (rows, columns)
    )
    sums = _sum_rows(mask.inside, np.int32)  # a mask has far fewer pixels than 2**31
    top_sums, bottom_sums = (
        _interpolate_row_sums(sums, offsets, mask.side, patch_grid.height)
        for offsets in (tops, tops + patch_grid.span)
    )
    sums = _sum_rows((bottom_sums - top_sums).T, np.int64)
    left_sums, right_sums = (
        _interpolate_row_sums(sums, offsets, mask.side, patch_grid.width)
        for offsets in (lefts, lefts + patch_grid.span)
    )
    return np.ascontiguousarray((right_sums - left_sums).T)


def _sum_rows(numbers: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    """Return cumulative sums of rows: row n is the sum of the first n rows."""
    sums = np.zeros((len(numbers) + 1, numbers.shape[1]), dtype)
    for row, row_numbers in enumerate(numbers):  # numpy's cumsum takes eight times as long
        np.add(sums[row], row_numbers, out=sums[row + 1])
    return sums


def _interpolate_row_sums(
    sums: NDArray[Any], offsets: NDArray[np.int64], side: int, end: int
) -> NDArray[np.int64]:
    """Return cumulative row sums at pixel offsets, with linear interpolation between rows."""
    positions = np.minimum(offsets, end)
    full_rows, remainder = positions // side, positions % side
    next_rows = np.minimum(full_rows + 1, len(sums) - 1)
    row_sums: NDArray[np.int64] = (
        sums[full_rows] * (side - remainder)[:, None] + sums[next_rows] * remainder[:, None]
    )
    return row_sums


def count_tissue_pixels(mask: TissueMask, width: int, height: int) -> int:
    """Return the number of tissue pixels of a slide of `width` x `height`, at level 0."""
    rows, columns = mask.inside.shape
    # In pixels of level 0. The last row and column of the mask may extend beyond the slide.
    row_ends = np.minimum(np.arange(1, rows + 1) * mask.side, height)
    column_ends = np.minimum(np.arange(1, columns + 1) * mask.side, width)
    heights, widths = np.diff(row_ends, prepend=0), np.diff(column_ends, prepend=0)
    # All columns except the last have the same width.
    full_columns = np.count_nonzero(mask.inside[:, :-1], axis=1)
    return int(heights @ (full_columns * widths[0] + mask.inside[:, -1] * widths[-1]))


def select_patches(patch_grid: PatchGrid, mask: TissueMask, min_share: float) -> NDArray[np.bool_]:
    """Return the patches to classify: equation 4 with `min_share` in place of 1/2.

    Only patches in the regions' rectangles are selected; other patches have no tissue.
    """
    rows, columns = patch_grid.shape
    # Rectangles of many regions may overlap: accumulate their corners to mark all at once.
    depth = np.zeros((rows + 1, columns + 1), np.int32)
    top, bottom, first_column, end_column = _find_rectangles(patch_grid, mask).T
    for row, column, step in (
        (top, first_column, 1),
        (top, end_column, -1),
        (bottom, first_column, -1),
        (bottom, end_column, 1),
    ):
        np.add.at(depth, (row, column), step)
    inside = np.cumsum(np.cumsum(depth, axis=0), axis=1)[:-1, :-1] > 0
    min_weight = Fraction(min_share) * patch_grid.span**2
    return inside & (
        count_patch_pixels(patch_grid, mask)
        >= max(1, -(-min_weight.numerator // min_weight.denominator))
    )


BLOCK_SIDE = 2048
"""Maximum distance between the first and the last patch of a block, in pixels of the level."""
MAX_BLOCK_BYTES = 1 << 25
"""Maximum size of the patches of a block in bytes."""
MAX_PATCH_SIDE = 8192
"""Maximum side of a patch in pixels of the level that is read."""

GridCell = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PatchReader:
    """Reads patches and scales them from `source_side` pixels of a level to `size` pixels."""

    slide: Slide
    grid: PatchGrid
    size: int

    @property
    def level(self) -> int:
        """The level to read: the smallest one that is not coarser than the patches."""
        return self.slide.find_level(self.grid.span / self.size)

    @property
    def source_side(self) -> int:
        """The side of a patch in pixels of the level."""
        return max(1, round(self.grid.span / self.slide.levels[self.level].scale))

    def check(self) -> None:
        """Reject patches that are finer than the slide, or far coarser than its levels (E1308)."""
        source = make_file_span(str(self.slide.path))
        if self.grid.span < self.size * 0.99:
            message = "the slide's resolution is lower than that of the requested patches"
            help = "use a slide with a higher resolution; check --at and --mpp"
            raise fail("E1308", message, source, help=help)
        if self.source_side > MAX_PATCH_SIDE:
            message = f"a patch would need {self.source_side:,} pixels a side of the slide"
            label = f"the limit is {MAX_PATCH_SIDE:,}; the slide has no level near this resolution"
            help = "use a slide with more levels; check --at and --mpp"
            raise fail("E1308", message, source, label=label, help=help)

    def read_patches(self, cells: tuple[GridCell, ...]) -> Iterator[NDArray[np.uint8]]:
        """Yield the patches of a block, RGB uint8 (size, size, 3), with one read of the slide.

        Args:
            cells: Rows and columns of the grid.

        Raises:
            UserError: The slide is damaged in this region (E1302).
        """
        return self.crop_patches(cells, self.read_region(cells))

    def read_region(self, cells: tuple[GridCell, ...]) -> NDArray[np.uint8]:
        """Return the region of the slide that contains the patches of a block; may raise E1302."""
        first_column, first_row = self._find_block_corner(cells)
        offsets = self._compute_offsets(cells)
        width, height = (
            max(offset[axis] for offset in offsets) + self.source_side for axis in (0, 1)
        )
        return self.slide.read_pixels(self.level, first_column, first_row, (width, height))

    def crop_patches(
        self, cells: tuple[GridCell, ...], pixels: NDArray[np.uint8]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the patches of a block from the pixels that `read_region` returns."""
        for x, y in self._compute_offsets(cells):
            yield self._resize(pixels[y : y + self.source_side, x : x + self.source_side])

    def _find_block_corner(self, cells: tuple[GridCell, ...]) -> tuple[int, int]:
        """Return the column and row of level 0 at which a block starts."""
        corners = [self.grid.compute_corner(*cell) for cell in cells]
        return min(x for x, _ in corners), min(y for _, y in corners)

    def _compute_offsets(self, cells: tuple[GridCell, ...]) -> list[tuple[int, int]]:
        """Return the offset of each patch in its block, in pixels of the level."""
        first_column, first_row = self._find_block_corner(cells)
        scale = self.slide.levels[self.level].scale
        return [
            (round((x - first_column) / scale), round((y - first_row) / scale))
            for x, y in (self.grid.compute_corner(*cell) for cell in cells)
        ]

    def _resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.source_side == self.size:
            return np.ascontiguousarray(pixels)
        along = Axis(self.source_side, self.size, 0, self.size)
        return resample(resample(pixels, 1, along), 0, along)


def split_into_blocks(
    reader: PatchReader, selected: NDArray[np.bool_]
) -> list[tuple[GridCell, ...]]:
    """Return the selected patches in square blocks of neighbours."""
    step = max(1, int(BLOCK_SIDE * reader.slide.levels[reader.level].scale) // reader.grid.stride)
    # Limit the bytes too: overlapping patches have many more pixels than their region.
    step = min(step, max(1, isqrt(MAX_BLOCK_BYTES // (3 * reader.size**2))))
    rows, columns = selected.shape
    cell_blocks = []
    for first_row in range(0, rows, step):
        for first_column in range(0, columns, step):
            block_mask = selected[first_row : first_row + step, first_column : first_column + step]
            block_cells = np.argwhere(block_mask) + np.array((first_row, first_column))
            if len(block_cells):
                cell_blocks.append(tuple((row, column) for row, column in block_cells.tolist()))
    return cell_blocks
