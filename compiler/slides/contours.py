"""Regions of a raster as polygons along its pixels' edges.

A ring is an array of (x, y), the last of which is the first; around a region it turns as RFC 7946
has it, around a hole the other way. Pixels that share a corner alone are two regions.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import slide_file

Inside = NDArray[np.bool_]

Ring: TypeAlias = "NDArray[np.int64]"
RIGHT, DOWN, LEFT, UP = range(4)
NORTH_WEST, NORTH_EAST, SOUTH_WEST, SOUTH_EAST = range(4)
_CONVEX = (
    (SOUTH_EAST, UP, RIGHT), (SOUTH_WEST, RIGHT, DOWN), (NORTH_WEST, DOWN, LEFT),
    (NORTH_EAST, LEFT, UP),
)  # fmt: skip
"""Where around a corner the pixel lies whose corner it is, with the directions in which the ring
arrives and leaves, the pixel on its right."""
_CONCAVE = (
    (SOUTH_EAST, LEFT, DOWN), (SOUTH_WEST, UP, LEFT), (NORTH_WEST, RIGHT, UP),
    (NORTH_EAST, DOWN, RIGHT),
)  # fmt: skip
"""The same where the one of four pixels that is not inside lies there."""


def polygons(inside: Inside) -> list[list[Ring]]:
    """Return the regions of a raster: each its outer ring and those of its holes, in pixels."""
    ndimage: Any = slide_file.load("scipy.ndimage")
    labels, count = ndimage.label(inside)
    outer: list[list[Ring]] = [[] for _ in range(count)]
    holes: list[list[Ring]] = [[] for _ in range(count)]
    corners = _find_corners(inside)
    for place, ring in _trace(corners):
        row, column = corners.pixels[place]
        rings = outer if compute_area(ring) > 0 else holes
        rings[int(labels[row, column]) - 1].append(ring)
    return [one + more for one, more in zip(outer, holes, strict=True)]


def count_corners(inside: Inside) -> int:
    """Return how many corners the rings of a raster have together."""
    around = _around(inside)
    total = sum(int(np.count_nonzero(mask)) for mask in _convex_masks(around))
    return total + sum(int(np.count_nonzero(mask)) for mask in _concave_masks(around))


def compute_area(ring: Ring) -> int:
    """Return twice the area of a ring, below zero where it turns the other way."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    return int((x0 * y1 - x1 * y0).sum())


@dataclass(frozen=True, eq=False)
class _Corners:
    """Corners of rings: their places, directions, and a pixel inside that each lies along.

    Args:
        points: Column and row of the vertex (corners, 2).
        arrives: The direction of the edge that ends there.
        leaves: That of the edge that begins there.
        pixels: Row and column of the pixel (corners, 2).
        forks: Whether it is the second corner of a vertex that two regions share.
    """

    points: NDArray[np.int64]
    arrives: NDArray[np.int8]
    leaves: NDArray[np.int8]
    pixels: NDArray[np.int64]
    forks: NDArray[np.bool_]


def _around(inside: Inside) -> tuple[Inside, ...]:
    """Return the four pixels around each vertex, in the order of `NORTH_WEST` and so on."""
    padded = np.pad(inside, 1)
    return padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]


def _convex_masks(around: tuple[Inside, ...]) -> list[Inside]:
    """Return the vertices that are a corner of a pixel, neither of whose neighbours is inside."""
    masks = []
    for where, _, _ in _CONVEX:
        # Of four numbers, 3 - n is opposite n, and the two others are beside it.
        beside = [n for n in range(4) if n not in (where, 3 - where)]
        masks.append(around[where] & ~around[beside[0]] & ~around[beside[1]])
    return masks


def _concave_masks(around: tuple[Inside, ...]) -> list[Inside]:
    """Return the vertices around which one pixel alone is not inside."""
    masks = []
    for where, _, _ in _CONCAVE:
        others = [around[n] for n in range(4) if n != where]
        masks.append(~around[where] & others[0] & others[1] & others[2])
    return masks


def _find_corners(inside: Inside) -> _Corners:
    around = _around(inside)
    points, arrives, leaves, pixels, forks = [], [], [], [], []
    convex = zip(_convex_masks(around), _CONVEX, strict=True)
    concave = zip(_concave_masks(around), _CONCAVE, strict=True)
    kinds = [(mask, where, turn) for mask, (where, *turn) in convex]
    # Of the three pixels, the one opposite the missing one.
    kinds += [(mask, 3 - where, turn) for mask, (where, *turn) in concave]
    for mask, where, (arriving, leaving) in kinds:
        rows, columns = np.nonzero(mask)
        points.append(np.stack([columns, rows], axis=1))
        arrives.append(np.full(len(rows), arriving, np.int8))
        leaves.append(np.full(len(rows), leaving, np.int8))
        pixels.append(np.stack([rows - 1 + where // 2, columns - 1 + where % 2], axis=1))
        is_fork = (leaving == LEFT) & around[SOUTH_EAST][mask] & around[NORTH_WEST][mask]
        forks.append(is_fork & ~around[NORTH_EAST][mask] & ~around[SOUTH_WEST][mask])
    return _Corners(
        np.concatenate(points), np.concatenate(arrives), np.concatenate(leaves),
        np.concatenate(pixels), np.concatenate(forks),
    )  # fmt: skip


def _find_next(corners: _Corners) -> NDArray[np.int64]:
    """Return the corner that follows each on its ring."""
    following = np.empty(len(corners.points), np.int64)
    x, y = corners.points.T
    for direction in range(4):
        # Along a line edges of one direction do not overlap: the nth begins and ends as the nth.
        along, line = (x, y) if direction in (RIGHT, LEFT) else (y, x)
        starts, ends = (
            np.flatnonzero(part == direction) for part in (corners.leaves, corners.arrives)
        )
        starts = starts[np.lexsort((along[starts], line[starts]))]
        following[starts] = ends[np.lexsort((along[ends], line[ends]))]
    return following


def _trace(corners: _Corners) -> list[tuple[int, Ring]]:
    """Return each ring with its first corner, in the order of their first edges to the right."""
    x, y = corners.points.T
    first = np.flatnonzero((corners.leaves == RIGHT) | corners.forks)
    first = first[np.lexsort((corners.leaves[first], x[first], y[first]))]
    following, is_open = _find_next(corners).tolist(), bytearray(b"\1") * len(x)
    rings = []
    for start in first.tolist():
        if not is_open[start]:
            continue
        places, place = [], start
        while is_open[place]:
            is_open[place] = 0
            places.append(place)
            place = following[place]
        rings.append((start, corners.points[[*places, start]]))
    return rings
