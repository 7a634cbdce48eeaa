"""A slide made small: the mean of each square of its pixels, from its pyramid."""

from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

READ = 2048
"""Pixels of a level, a side, that are read at a time."""
MOST = 1 << 36
"""Most pixels of a level that are read: an hour's work, and no scanner's."""


def block_means(slide: Slide, side: int, progress: Progress) -> "NDArray[np.uint8]":
    """Return the mean colour of squares of `side` pixels of level 0, uint8 (rows, columns, 3).

    They are computed from the smallest level that has a pixel or more for each; the last row and
    column are of what is left of the slide there.

    Raises:
        UserError: The slide is damaged (E1302), or has no level that is small enough (E1304).
    """
    number = slide.level_for(side)
    level = slide.levels[number]
    if level.width * level.height > MOST:
        message = (
            f"{level.width * level.height:,} pixels would have to be read, at most {MOST:,} are"
        )
        help = "write it anew with smaller levels"
        raise fail("E1304", message, whole_file(str(slide.path)), help=help)
    rows = _edges(slide.height, side, level.height)
    columns = _edges(slide.width, side, level.width)
    made = np.empty((len(rows) - 1, len(columns) - 1, 3), np.uint8)
    step = max(1, int(READ * level.scale) // side)
    for top in range(0, len(made), step):
        progress("tissue", top, len(made))
        down = rows[top : top + step + 1]
        for left in range(0, made.shape[1], step):
            across = columns[left : left + step + 1]
            size = (int(across[-1] - across[0]) or 1, int(down[-1] - down[0]) or 1)
            at = (round(int(across[0]) * level.scale), round(int(down[0]) * level.scale))
            pixels = slide.shown(number, *at, size)
            made[top : top + step, left : left + step] = _means(pixels, down, across)
    return made


def _edges(pixels: int, side: int, stored: int) -> "NDArray[np.int64]":
    """Return where squares begin in a level of `stored` pixels, and where the last one ends."""
    count = -(-pixels // side)
    places = np.minimum(np.arange(count + 1, dtype=np.int64) * side, pixels)
    most = np.r_[np.full(count, stored - 1), stored]
    found: NDArray[np.int64] = np.minimum(places * stored // pixels, most)
    return found


def _means(
    pixels: "NDArray[np.uint8]", down: "NDArray[np.int64]", across: "NDArray[np.int64]"
) -> "NDArray[np.uint8]":
    """Return the rounded mean of each square; one that is less than a pixel has that pixel."""
    heights, widths = (np.maximum(np.diff(edges), 1) for edges in (down, across))
    tops, lefts = (
        np.minimum(edges[:-1] - edges[0], length - 1)
        for edges, length in zip((down, across), pixels.shape, strict=False)
    )
    if (heights == 1).all() and (widths == 1).all():
        return np.ascontiguousarray(pixels[tops][:, lefts])
    # The sum of a square of `WIDEST` pixels a side, each 255, is just below 2**32.
    sums = np.add.reduceat(pixels, tops, axis=0, dtype=np.uint32)
    sums = np.add.reduceat(sums, lefts, axis=1, dtype=np.uint32)
    counts = (heights[:, None] * widths)[:, :, None].astype(np.uint32)
    return np.asarray((sums + counts // 2) // counts, np.uint8)
