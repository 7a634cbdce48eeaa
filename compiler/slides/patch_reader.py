"""The pixels of patches, a block of neighbours at a time, so that a tile is decoded about once."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.ir.pixel_resampling import Axis, resampled
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

    def read(self, places: "tuple[GridPlace, ...]") -> "Iterator[NDArray[np.uint8]]":
        """Yield the patches of a block, RGB uint8 (size, size, 3), from one part of the slide.

        Args:
            places: Rows and columns of the grid.

        Raises:
            UserError: The slide is damaged there (E1302).
        """
        return self.cut(places, self.region(places))

    def region(self, places: "tuple[GridPlace, ...]") -> "NDArray[np.uint8]":
        """Return the part of the slide that the patches of a block lie in, as `read`."""
        left, top = self._corner(places)
        offsets = self._offsets(places)
        width, height = (max(each[axis] for each in offsets) + self.stored for axis in (0, 1))
        return self.slide.read(self.level, left, top, (width, height))

    def cut(
        self, places: "tuple[GridPlace, ...]", pixels: "NDArray[np.uint8]"
    ) -> "Iterator[NDArray[np.uint8]]":
        """Yield the patches of a block from the part of the slide that `region` gives."""
        for x, y in self._offsets(places):
            yield self._sized(pixels[y : y + self.stored, x : x + self.stored])

    def _corner(self, places: "tuple[GridPlace, ...]") -> tuple[int, int]:
        """Return the column and row of level 0 at which a block begins."""
        corners = [self.grid.corner(*place) for place in places]
        return min(x for x, _ in corners), min(y for _, y in corners)

    def _offsets(self, places: "tuple[GridPlace, ...]") -> list[tuple[int, int]]:
        """Return where each patch of a block begins in it, in pixels of the level."""
        left, top = self._corner(places)
        scale = self.slide.levels[self.level].scale
        return [
            (round((x - left) / scale), round((y - top) / scale))
            for x, y in (self.grid.corner(*place) for place in places)
        ]

    def _sized(self, pixels: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
        if self.stored == self.size:
            return np.ascontiguousarray(pixels)
        along = Axis(self.stored, self.size, 0, self.size)
        return resampled(resampled(pixels, 1, along), 0, along)


def blocks(reader: PatchReader, kept: "NDArray[np.bool_]") -> list[tuple[GridPlace, ...]]:
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
