"""Regions of a raster as polygons along its pixels' edges, and polygons as rasters.

A ring is a list of (x, y), the last of which is the first; around a region it turns as RFC 7946
has it, around a hole the other way. Pixels that share a corner alone are two regions.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tcc.compiler.slides import libraries

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ring: TypeAlias = list[tuple[int, int]]
Vertices: TypeAlias = Sequence[Sequence[float]]
RIGHT, DOWN, LEFT, UP = range(4)
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def polygons(inside: "NDArray[np.bool_]") -> list[list[Ring]]:
    """Return the regions of a raster: each its outer ring and those of its holes, in pixels."""
    ndimage: Any = libraries.load("scipy.ndimage")
    labels, count = ndimage.label(inside)
    outer: list[list[Ring]] = [[] for _ in range(count)]
    holes: list[list[Ring]] = [[] for _ in range(count)]
    for ring, (row, column) in _rings(inside):
        own = outer if _area(ring) > 0 else holes
        own[int(labels[row, column]) - 1].append(ring)
    return [one + more for one, more in zip(outer, holes, strict=True)]


def _rings(inside: "NDArray[np.bool_]") -> Iterable[tuple[Ring, tuple[int, int]]]:
    """Yield each ring with a pixel that lies along it, on its right as one goes."""
    waiting = _edges(inside)
    forks = {vertex for vertex, directions in waiting.items() if len(directions) > 1}
    while waiting:
        x, y = next(iter(waiting))
        direction = waiting[x, y][0]
        # Of the pixel on the right of the first step, in the order of directions.
        pixel = ((y, x), (y, x - 1), (y - 1, x - 1), (y - 1, x))[direction]
        ring: Ring = []
        before = -1
        while direction in waiting.get((x, y), ()):
            waiting[x, y].remove(direction)
            if not waiting[x, y]:
                del waiting[x, y]
            if direction != before:
                ring.append((x, y))
            before = direction
            x, y = x + STEPS[direction][0], y + STEPS[direction][1]
            # Of two ways the one that stays with the pixel: a turn to the right.
            onward = waiting.get((x, y), [before])
            direction = (before + 1) % 4 if (x, y) in forks else onward[0]
        yield _closed(ring), pixel


def _closed(ring: Ring) -> Ring:
    """Return a ring that ends where it begins, and begins at a corner."""
    (x0, y0), (x1, y1), (x2, y2) = ring[-1], ring[0], ring[1]
    straight = (x0 == x1 == x2) or (y0 == y1 == y2)
    corners = ring[1:] if straight else ring
    return [*corners, corners[0]]


def _edges(inside: "NDArray[np.bool_]") -> dict[tuple[int, int], list[int]]:
    """Return the directions in which edges leave each vertex, regions on their right."""
    padded = np.pad(inside, 1)
    below, right = padded[1:, 1:-1], padded[1:-1, 1:]
    above, left = padded[:-1, 1:-1], padded[1:-1, :-1]
    found: dict[tuple[int, int], list[int]] = {}
    for direction, cells, dx, dy in (
        (RIGHT, below & ~above, 0, 0),
        (LEFT, above & ~below, 1, 0),
        (UP, right & ~left, 0, 1),
        (DOWN, left & ~right, 0, 0),
    ):
        rows, columns = np.divmod(np.flatnonzero(cells), cells.shape[1])
        for x, y in zip((columns + dx).tolist(), (rows + dy).tolist(), strict=True):
            found.setdefault((x, y), []).append(direction)
    return found


def _area(ring: Ring) -> int:
    """Return twice the area of a ring, below zero where it turns the other way."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))


def crossed_rows(rings: "Iterable[NDArray[np.float64]]") -> float:
    """Return how many rows of pixels the edges of rings cross, all together."""
    return float(sum(np.abs(np.diff(ring[:, 1])).sum() for ring in rings))


def raster(rings: "Sequence[NDArray[np.float64]]", shape: tuple[int, int]) -> "NDArray[np.bool_]":
    """Return which pixels of a raster have their centre within rings, by the even-odd rule.

    Args:
        rings: Vertices (n, 2) of x and y in pixels; of a polygon and its holes.
        shape: Rows and columns.
    """
    rows, columns = shape
    toggles = np.zeros((rows, columns + 1), np.int32)
    for ring in rings:
        # Centres lie at halves, so that rows and columns of them become whole numbers.
        points = np.concatenate([ring, ring[:1]]) - 0.5
        (x0, y0), (x1, y1) = points[:-1].T, points[1:].T
        # Without the larger end: a vertex on a row of centres counts for one of its two edges.
        first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(np.int64)
        edge = np.repeat(np.arange(len(x0)), last - first)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
        share = (row - y0[edge]) / (y1 - y0)[edge]
        column = np.ceil(x0[edge] + share * (x1 - x0)[edge])
        np.add.at(toggles, (row, np.clip(column, 0, columns).astype(np.int64)), 1)
    return np.asarray(np.cumsum(toggles[:, :-1], axis=1) % 2 == 1)
