"""Patches of a slide on a grid, and the weight of the tissue in each (equations 1 to 4).

All lengths are whole pixels of level 0. The grid's first patch begins in the slide's corner, so
that grids of one slide lie upon each other; the last patches may reach beyond its edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.pixel_resampling import Axis, resampled
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, whole_file

MOST_PATCHES = 1 << 24
"""Most places of a grid."""


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Patches `span` wide, one every `stride`: `rows` x `columns` of them cover the slide."""

    width: int
    height: int
    span: int
    stride: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def cell(self) -> int:
        """The side of what a patch stands for: its middle, so that no two cells overlap."""
        return min(self.span, self.stride)

    @property
    def inset(self) -> int:
        """How far a patch's cell begins within it."""
        return (self.span - self.cell) // 2

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Return the column and row of level 0 at which a patch begins."""
        return column * self.stride, row * self.stride


def grid(slide: Slide, span: int, stride: int) -> PatchGrid:
    """Return the grid of a slide.

    Raises:
        UserError: It has too many places (E1304).
    """
    made = PatchGrid(slide.width, slide.height, span, stride)
    rows, columns = made.shape
    if rows * columns > MOST_PATCHES:
        message = f"this grid has {rows:,} x {columns:,} patches, at most {MOST_PATCHES:,} are cut"
        where = whole_file(str(slide.path))
        raise fail("E1304", message, where, help="take larger patches, or a coarser --at")
    return made


def cell_areas(made: PatchGrid) -> NDArray[np.int64]:
    """Return the pixels of level 0 that each patch stands for, within the slide."""
    sides = []
    for count, pixels in zip(made.shape, (made.height, made.width), strict=True):
        edges = np.minimum(np.arange(count + 1) * made.stride + made.inset, pixels)
        sides.append(np.diff(edges))
    return np.asarray(sides[0][:, None] * sides[1], np.int64)


def rectangles(made: PatchGrid, mask: TissueMask) -> list[tuple[slice, slice]]:
    """Return the rows and columns of the grid that each region's bounding rectangle is cut into.

    A rectangle is padded to where a patch begins: the last one from which a patch that overlaps
    others reaches as far before the region as the others do. From there it has
    `(MAX - MIN) / stride + 1` rows and columns, by equations 1 and 2.
    """
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom, left, right in _find_rectangles(made, mask).tolist()
    ]


def _find_rectangles(made: PatchGrid, mask: TissueMask) -> NDArray[np.int64]:
    """Return the first row and the one after the last, and such columns, of each region."""
    bounds = [(r.start, r.stop, c.start, c.stop) for r, c in mask.regions]
    regions = np.array(bounds, np.int64).reshape(-1, 2, 2)
    ends = np.array((made.height, made.width))
    least = regions[:, :, 0] * mask.side
    most = np.minimum(regions[:, :, 1] * mask.side, ends) - 1
    padded = np.maximum(0, least - max(0, made.span - made.stride)) // made.stride
    count = (most - padded * made.stride) // made.stride + 1
    return np.stack([padded, padded + count], axis=2).reshape(-1, 4)


def weights(made: PatchGrid, mask: TissueMask) -> NDArray[np.int64]:
    """Return how many pixels of level 0 of each patch are tissue: equation 3."""
    rows, columns = made.shape
    tops, lefts = (np.arange(count, dtype=np.int64) * made.stride for count in (rows, columns))
    sums = _sums(mask.inside, np.int32)  # a mask has far fewer pixels than 2**31
    high, low = (_rows(sums, at, mask.side, made.height) for at in (tops, tops + made.span))
    sums = _sums((low - high).T, np.int64)
    near, far = (_rows(sums, at, mask.side, made.width) for at in (lefts, lefts + made.span))
    return np.ascontiguousarray((far - near).T)


def _sums(numbers: NDArray[Any], kind: type[Any]) -> NDArray[Any]:
    """Return the sums of the rows before each one, and of all."""
    made = np.zeros((len(numbers) + 1, numbers.shape[1]), kind)
    for row, own in enumerate(numbers):  # numpy's cumsum takes eight times as long
        np.add(made[row], own, out=made[row + 1])
    return made


def _rows(sums: NDArray[Any], at: NDArray[np.int64], side: int, end: int) -> NDArray[np.int64]:
    """Return sums of all rows up to places within them; between two rows they grow evenly."""
    places = np.minimum(at, end)
    whole, part = places // side, places % side
    after = np.minimum(whole + 1, len(sums) - 1)
    found: NDArray[np.int64] = sums[whole] * (side - part)[:, None] + sums[after] * part[:, None]
    return found


def tissue_pixels(mask: TissueMask, width: int, height: int) -> int:
    """Return how many pixels of level 0 of a slide are tissue."""
    rows, columns = mask.inside.shape
    down = np.minimum(np.arange(1, rows + 1) * mask.side, height)
    across = np.minimum(np.arange(1, columns + 1) * mask.side, width)
    heights, widths = np.diff(down, prepend=0), np.diff(across, prepend=0)
    # All columns but the last are as wide as the first.
    whole = np.count_nonzero(mask.inside[:, :-1], axis=1)
    return int(heights @ (whole * widths[0] + mask.inside[:, -1] * widths[-1]))


def kept(made: PatchGrid, mask: TissueMask, least: float) -> NDArray[np.bool_]:
    """Return the patches that are classified: equation 4 with a share of `least` for 1/2.

    They are of the regions' rectangles; outside these no patch has any tissue.
    """
    rows, columns = made.shape
    # Rectangles of many regions lie over each other: their corners are summed instead.
    depth = np.zeros((rows + 1, columns + 1), np.int32)
    top, bottom, left, right = _find_rectangles(made, mask).T
    for row, column, step in (
        (top, left, 1),
        (top, right, -1),
        (bottom, left, -1),
        (bottom, right, 1),
    ):
        np.add.at(depth, (row, column), step)
    inside = np.cumsum(np.cumsum(depth, axis=0), axis=1)[:-1, :-1] > 0
    wanted = Fraction(least) * made.span**2
    return inside & (weights(made, mask) >= max(1, -(-wanted.numerator // wanted.denominator)))


READ = 2048
"""Pixels of a level, a side, between the first and the last patch of a block."""
BLOCK_BYTES = 1 << 25
"""Most bytes of the patches of a block."""
LARGEST = 8192
"""Most pixels of a level that a patch is made of, a side."""

GridPlace = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PatchReader:
    """Reads patches of `size` pixels; in the file they are `stored` wide, at a level."""

    slide: Slide
    grid: PatchGrid
    size: int

    @property
    def level(self) -> int:
        """The level that is read: the smallest that is no coarser than the patches."""
        return self.slide.level_for(self.grid.span / self.size)

    @property
    def stored(self) -> int:
        """Pixels of the level, a side, that a patch is made of."""
        return max(1, round(self.grid.span / self.slide.levels[self.level].scale))

    def check(self) -> None:
        """Refuse patches that are finer than the slide, or that far coarser (E1308)."""
        where = whole_file(str(self.slide.path))
        if self.grid.span < self.size * 0.99:
            message = "the slide is coarser than the patches that are asked for"
            help = "what was not scanned cannot be seen: take a slide of higher resolution"
            raise fail("E1308", message, where, help=help)
        if self.stored > LARGEST:
            message = f"a patch would be made of {self.stored:,} pixels a side"
            label = f"at most {LARGEST:,} are read; the slide has no level near this resolution"
            raise fail("E1308", message, where, label=label)

    def read(self, places: tuple[GridPlace, ...]) -> Iterator[NDArray[np.uint8]]:
        """Yield the patches of a block, RGB uint8 (size, size, 3), from one part of the slide.

        Args:
            places: Rows and columns of the grid.

        Raises:
            UserError: The slide is damaged there (E1302).
        """
        return self.cut(places, self.region(places))

    def region(self, places: tuple[GridPlace, ...]) -> NDArray[np.uint8]:
        """Return the part of the slide that the patches of a block lie in, as `read`."""
        left, top = self._corner(places)
        offsets = self._offsets(places)
        width, height = (max(each[axis] for each in offsets) + self.stored for axis in (0, 1))
        return self.slide.read(self.level, left, top, (width, height))

    def cut(
        self, places: tuple[GridPlace, ...], pixels: NDArray[np.uint8]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the patches of a block from the part of the slide that `region` gives."""
        for x, y in self._offsets(places):
            yield self._sized(pixels[y : y + self.stored, x : x + self.stored])

    def _corner(self, places: tuple[GridPlace, ...]) -> tuple[int, int]:
        """Return the column and row of level 0 at which a block begins."""
        corners = [self.grid.corner(*place) for place in places]
        return min(x for x, _ in corners), min(y for _, y in corners)

    def _offsets(self, places: tuple[GridPlace, ...]) -> list[tuple[int, int]]:
        """Return where each patch of a block begins in it, in pixels of the level."""
        left, top = self._corner(places)
        scale = self.slide.levels[self.level].scale
        return [
            (round((x - left) / scale), round((y - top) / scale))
            for x, y in (self.grid.corner(*place) for place in places)
        ]

    def _sized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.stored == self.size:
            return np.ascontiguousarray(pixels)
        along = Axis(self.stored, self.size, 0, self.size)
        return resampled(resampled(pixels, 1, along), 0, along)


def blocks(reader: PatchReader, kept: NDArray[np.bool_]) -> list[tuple[GridPlace, ...]]:
    """Return the kept patches in squares of neighbours, from the slide's corner on."""
    step = max(1, int(READ * reader.slide.levels[reader.level].scale) // reader.grid.stride)
    # Patches that overlap are many more pixels than the part of the slide that they lie in.
    step = min(step, max(1, isqrt(BLOCK_BYTES // (3 * reader.size**2))))
    rows, columns = kept.shape
    found = []
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            part = kept[top : top + step, left : left + step]
            inside = np.argwhere(part) + np.array((top, left))
            if len(inside):
                found.append(tuple((row, column) for row, column in inside.tolist()))
    return found
