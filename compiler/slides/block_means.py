"""A slide made small: the mean of each square of its pixels, from its pyramid."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Places = NDArray[np.int64]

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


def _edges(pixels: int, side: int, stored: int) -> "Places":
    """Return where squares begin in a level of `stored` pixels, and where the last one ends."""
    count = -(-pixels // side)
    places = np.minimum(np.arange(count + 1, dtype=np.int64) * side, pixels)
    most = np.r_[np.full(count, stored - 1), stored]
    found: Places = np.minimum(places * stored // pixels, most)
    return found


def _means(pixels: "NDArray[np.uint8]", down: "Places", across: "Places") -> "NDArray[np.uint8]":
    """Return the rounded mean of each square; one that is less than a pixel has that pixel."""
    heights, widths = (np.maximum(np.diff(edges), 1) for edges in (down, across))
    tops, lefts = (
        np.minimum(edges[:-1] - edges[0], length - 1)
        for edges, length in zip((down, across), pixels.shape, strict=False)
    )
    made = np.empty((len(tops), len(lefts), 3), np.uint8)
    if made.shape == pixels.shape and heights.max() == widths.max() == 1:
        return pixels
    counts = widths[:, None] * heights
    # With half of their number, the sum of a square of `WIDEST` pixels a side, each 255, is just
    # below 2**32; most squares are small.
    kind = np.uint16 if counts.max() <= 256 else np.uint32
    for channel in range(3):
        rows = _sums(np.ascontiguousarray(pixels[:, :, channel]), tops, heights, kind)
        sums = _sums(np.ascontiguousarray(rows.T), lefts, widths, kind)
        sums += (counts // 2).astype(kind)
        made[:, :, channel] = (sums // counts.astype(kind)).T
    return made


def _sums(
    lines: "NDArray[Any]", firsts: "Places", lengths: "Places", kind: type[Any]
) -> "NDArray[Any]":
    """Return the sum of each run of lines: whole lines are added, of all runs at once.

    Args:
        lines: (lines, numbers).
        firsts: Where each run begins.
        lengths: How many lines each has.
        kind: The type of sums.
    """
    made = lines[firsts].astype(kind)
    for number in range(1, int(lengths.max())):
        there = lengths > number
        if there.all():
            made += lines[firsts + number]
        else:
            made[there] += lines[firsts[there] + number]
    return made
