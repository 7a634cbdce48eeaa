"""A slide as square tiles in levels, each of half the size of the next, for viewers.

Each part of the slide is decoded once: the tiles of a level are the means of the next one's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.ir.pixel_resampling import Axis, resampled
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    PlacedTile = tuple["TilePlace", Pixels]

TILE = 512
"""Pixels of a tile, a side."""
MOST_TILES = 1 << 18
"""Most tiles of a pyramid."""

TilePlace = tuple[int, int, int]
"""The level, column and row of a tile."""


@dataclass(frozen=True, slots=True)
class TilePyramid:
    """Levels 0 to `depth`; a pixel of the last is `side` pixels of the slide wide."""

    width: int
    height: int
    side: int

    @property
    def depth(self) -> int:
        """The number of the largest level; the smallest, 0, is one tile."""
        longest = max(self._size(self.side))
        return max(0, (-(-longest // TILE) - 1).bit_length())

    def scale(self, level: int) -> int:
        """Return how many pixels of the slide a pixel of a level is wide."""
        return self.side << (self.depth - level)

    def size(self, level: int) -> tuple[int, int]:
        """Return the width and height of a level."""
        return self._size(self.scale(level))

    def count(self, level: int) -> tuple[int, int]:
        """Return the columns and rows of tiles of a level."""
        width, height = self.size(level)
        return -(-width // TILE), -(-height // TILE)

    def shape(self, place: TilePlace) -> tuple[int, int]:
        """Return the width and height of a tile; the last ones of a level are smaller."""
        level, column, row = place
        width, height = self.size(level)
        return min(TILE, width - column * TILE), min(TILE, height - row * TILE)

    def _size(self, scale: int) -> tuple[int, int]:
        return -(-self.width // scale), -(-self.height // scale)


def pyramid(slide: Slide, finest: float) -> TilePyramid:
    """Return the pyramid of a slide whose pixels are at most `finest` pixels of the slide wide.

    Raises:
        UserError: It has too many tiles (E1304).
    """
    made = TilePyramid(slide.width, slide.height, 1 << max(0, int(finest).bit_length() - 1))
    columns, rows = made.count(made.depth)
    if columns * rows > MOST_TILES:
        message = f"this view has {columns * rows:,} tiles, at most {MOST_TILES:,} are written"
        raise fail("E1304", message, whole_file(str(slide.path)), help="take a coarser --at")
    return made


def tiles(slide: Slide, made: TilePyramid, progress: Progress) -> "Iterator[PlacedTile]":
    """Yield each tile of all levels, RGB uint8 (height, width, 3).

    Raises:
        UserError: The slide is damaged (E1302).
    """
    columns, rows = made.count(made.depth)
    read = 0
    for place, pixels in _below(slide, made, (0, 0, 0)):
        read += place[0] == made.depth
        progress("tiles", read, columns * rows)
        yield place, pixels


def _below(slide: Slide, made: TilePyramid, place: TilePlace) -> "Iterator[PlacedTile]":
    """Yield a tile after all those that it is made of."""
    level, column, row = place
    if level == made.depth:
        yield place, _read(slide, made, place)
        return
    width, height = made.shape(place)
    columns, rows = made.count(level + 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    for below in range(2 * row, min(2 * row + 2, rows)):
        for right in range(2 * column, min(2 * column + 2, columns)):
            for finer, part in _below(slide, made, (level + 1, right, below)):
                yield finer, part
                if finer == (level + 1, right, below):
                    half = _halved(part)
                    top, left = ((n % 2) * (TILE // 2) for n in (below, right))
                    pixels[top : top + len(half), left : left + half.shape[1]] = half
    yield place, pixels


def _halved(pixels: "Pixels") -> "Pixels":
    """Return the rounded means of squares of four; a last row or column counts twice."""
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.uint16)
    four = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((four + np.uint16(2)) // np.uint16(4)).astype(np.uint8)


def _read(slide: Slide, made: TilePyramid, place: TilePlace) -> "Pixels":
    _, column, row = place
    number = slide.level_for(made.side)
    width, height = made.shape(place)
    ratio = made.side / slide.levels[number].scale
    stored = max(1, round(width * ratio)), max(1, round(height * ratio))
    corner = column * TILE * made.side, row * TILE * made.side
    pixels = slide.shown(number, *corner, stored)
    for axis, (have, want) in enumerate(zip(stored[::-1], (height, width), strict=True)):
        if have != want:
            pixels = resampled(pixels, axis, Axis(have, want, 0, want))
    return pixels
