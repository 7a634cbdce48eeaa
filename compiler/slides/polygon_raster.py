"""Polygons as rasters, by the places where their edges cross rows of pixel centres.

The cost is bounded by the number of crossings and of pixels, however many polygons lie over each
other: all polygons are filled together, a band of rows at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.slides.drawn_areas import DrawnAreas

if TYPE_CHECKING:
    from numpy.typing import NDArray

BAND = 1 << 21
"""Crossings that are sorted at a time; a row may have more."""


@dataclass(frozen=True, eq=False)
class PolygonEdges:
    """The edges of polygons on a raster of `shape` (rows, columns), in pixels.

    Args:
        shape: Rows and columns.
        polygons: The number of the polygon of each edge.
        starts: Column and row where each begins (edges, 2); centres of pixels are whole numbers.
        ends: Where each ends.
        first: The first row of centres that each crosses.
        last: The row after the last.
    """

    shape: tuple[int, int]
    polygons: "NDArray[np.int64]"
    starts: "NDArray[np.float64]"
    ends: "NDArray[np.float64]"
    first: "NDArray[np.int64]"
    last: "NDArray[np.int64]"

    @property
    def crossings(self) -> int:
        """How many rows of centres all edges cross together."""
        return int((self.last - self.first).sum())

    def cut(self, top: int, bottom: int) -> "PolygonEdges":
        """Return the edges that cross some of the rows, with these rows alone."""
        first, last = np.maximum(self.first, top), np.minimum(self.last, bottom)
        chosen = first < last
        return PolygonEdges(
            self.shape, self.polygons[chosen], self.starts[chosen], self.ends[chosen],
            first[chosen], last[chosen],
        )  # fmt: skip


def find_edges(areas: DrawnAreas, shape: tuple[int, int]) -> PolygonEdges:
    """Return the edges of areas whose vertices are in pixels of a raster.

    Args:
        areas: Polygons and their holes.
        shape: Rows and columns of the raster.
    """
    points = areas.vertices - 0.5
    counts = np.diff(areas.ends, prepend=0)
    following = np.arange(1, len(points) + 1)
    following[areas.ends - 1] = areas.ends - counts  # each ring is closed
    after = points[following]
    # Without the larger end: a vertex on a row of centres counts for one of its two edges.
    first = np.clip(np.ceil(np.minimum(points[:, 1], after[:, 1])), 0, shape[0])
    last = np.clip(np.ceil(np.maximum(points[:, 1], after[:, 1])), 0, shape[0])
    polygons = np.repeat(areas.owners, counts)
    return PolygonEdges(
        shape, polygons, points, after, first.astype(np.int64), last.astype(np.int64)
    )


def fill(edges: PolygonEdges) -> "NDArray[np.bool_]":
    """Return the pixels whose centre is within one of the polygons.

    Within a polygon, rings are joined by the even-odd rule.
    """
    rows, columns = edges.shape
    inside = np.zeros((rows, columns), np.bool_)
    for top, bottom in _bands(edges):
        inside[top:bottom] = _fill_band(edges.cut(top, bottom), top, bottom)
    return inside


def _bands(edges: PolygonEdges) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows with about `BAND` crossings and at most `BAND` pixels, or of one row."""
    rows, columns = edges.shape
    changes = np.bincount(edges.first, minlength=rows + 1) - np.bincount(
        edges.last, minlength=rows + 1
    )
    total = np.cumsum(np.cumsum(changes[:rows]) + columns)
    top = 0
    while top < rows:
        reached = int(total[top - 1]) if top else 0
        bottom = int(np.searchsorted(total, reached + BAND, side="right"))
        bottom = max(bottom, top + 1)
        yield top, bottom
        top = bottom


def _fill_band(edges: PolygonEdges, top: int, bottom: int) -> "NDArray[np.bool_]":
    columns = edges.shape[1]
    counts = edges.last - edges.first
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - edges.last, counts)
    (x0, y0), (x1, y1) = edges.starts[edge].T, edges.ends[edge].T
    column = np.ceil(x0 + (row - y0) / (y1 - y0) * (x1 - x0))
    column = np.clip(column, 0, columns).astype(np.int64)
    # In this order, by row, polygon and column, crossings enter and leave a polygon in turn: a
    # closed ring crosses each row an even number of times.
    polygon_count = int(edges.polygons.max(initial=0)) + 1
    keys = ((row - top) * polygon_count + edges.polygons[edge]) * (columns + 1) + column
    keys.sort()
    cells = keys // (polygon_count * (columns + 1)) * (columns + 1) + keys % (columns + 1)
    size = (bottom - top) * (columns + 1)
    depth = np.bincount(cells[0::2], minlength=size) - np.bincount(cells[1::2], minlength=size)
    depth = depth.reshape(bottom - top, columns + 1)
    return np.asarray(np.cumsum(depth, axis=1)[:, :-1] > 0)
