"""Patches of a slide on a grid, and the weight of the tissue in each (equations 1 to 4).

All lengths are whole pixels of level 0. The grid's first patch begins in the slide's corner, so
that grids of one slide lie upon each other; the last patches may reach beyond its edge.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def cell_areas(made: PatchGrid) -> "NDArray[np.int64]":
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


def _find_rectangles(made: PatchGrid, mask: TissueMask) -> "NDArray[np.int64]":
    """Return the first row and the one after the last, and such columns, of each region."""
    bounds = [(r.start, r.stop, c.start, c.stop) for r, c in mask.regions]
    regions = np.array(bounds, np.int64).reshape(-1, 2, 2)
    ends = np.array((made.height, made.width))
    least = regions[:, :, 0] * mask.side
    most = np.minimum(regions[:, :, 1] * mask.side, ends) - 1
    padded = np.maximum(0, least - max(0, made.span - made.stride)) // made.stride
    count = (most - padded * made.stride) // made.stride + 1
    return np.stack([padded, padded + count], axis=2).reshape(-1, 4)


def weights(made: PatchGrid, mask: TissueMask) -> "NDArray[np.int64]":
    """Return how many pixels of level 0 of each patch are tissue: equation 3."""
    rows, columns = made.shape
    tops, lefts = (np.arange(count, dtype=np.int64) * made.stride for count in (rows, columns))
    sums = _sums(mask.inside, np.int32)  # a mask has far fewer pixels than 2**31
    high, low = (_rows(sums, at, mask.side, made.height) for at in (tops, tops + made.span))
    sums = _sums((low - high).T, np.int64)
    near, far = (_rows(sums, at, mask.side, made.width) for at in (lefts, lefts + made.span))
    return np.ascontiguousarray((far - near).T)


def _sums(numbers: "NDArray[Any]", kind: type[Any]) -> "NDArray[Any]":
    """Return the sums of the rows before each one, and of all."""
    made = np.zeros((len(numbers) + 1, numbers.shape[1]), kind)
    for row, own in enumerate(numbers):  # numpy's cumsum takes eight times as long
        np.add(made[row], own, out=made[row + 1])
    return made


def _rows(
    sums: "NDArray[Any]", at: "NDArray[np.int64]", side: int, end: int
) -> "NDArray[np.int64]":
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


def kept(made: PatchGrid, mask: TissueMask, least: float) -> "NDArray[np.bool_]":
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
