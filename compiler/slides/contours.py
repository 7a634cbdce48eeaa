"""Convert the regions of a raster to polygons along the pixels' edges.

A ring is an array of (x, y); its last point equals the first. The orientation of rings follows RFC
7946: rings of holes have the opposite orientation. Pixels that share only a corner are in different
regions.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import slide_file

Inside = NDArray[np.bool_]

Ring: TypeAlias = "NDArray[np.int64]"
MOVE_RIGHT, MOVE_DOWN, MOVE_LEFT, MOVE_UP = range(4)
NORTH_WEST, NORTH_EAST, SOUTH_WEST, SOUTH_EAST = range(4)
_CONVEX = (
    (SOUTH_EAST, MOVE_UP, MOVE_RIGHT),
    (SOUTH_WEST, MOVE_RIGHT, MOVE_DOWN),
    (NORTH_WEST, MOVE_DOWN, MOVE_LEFT),
    (NORTH_EAST, MOVE_LEFT, MOVE_UP),
)
"""For each convex corner: the quadrant of its pixel, and the directions in which the ring arrives
and leaves. The pixel is to the right of the ring."""
_CONCAVE = (
    (SOUTH_EAST, MOVE_LEFT, MOVE_DOWN),
    (SOUTH_WEST, MOVE_UP, MOVE_LEFT),
    (NORTH_WEST, MOVE_RIGHT, MOVE_UP),
    (NORTH_EAST, MOVE_DOWN, MOVE_RIGHT),
)
"""The same for concave corners: the quadrant of the one pixel that is not inside."""


def find_polygons(inside: Inside) -> list[list[Ring]]:
    """Return the regions of a raster: the outer ring and the rings of holes of each, in pixels."""
    ndimage: Any = slide_file.load_module("scipy.ndimage")
    labels, count = ndimage.label(inside)
    outer: list[list[Ring]] = [[] for _ in range(count)]
    holes: list[list[Ring]] = [[] for _ in range(count)]
    corners = _find_corners(inside)
    for corner, ring in _trace_rings(corners):
        row, column = corners.pixels[corner]
        rings = outer if compute_area(ring) > 0 else holes
        rings[int(labels[row, column]) - 1].append(ring)
    return [outer_ring + hole_rings for outer_ring, hole_rings in zip(outer, holes, strict=True)]


def count_corners(inside: Inside) -> int:
    """Return the total number of corners of a raster's rings."""
    neighbours = _get_neighbours(inside)
    total = sum(int(np.count_nonzero(mask)) for mask in _find_convex_corners(neighbours))
    return total + sum(int(np.count_nonzero(mask)) for mask in _find_concave_corners(neighbours))


def compute_area(ring: Ring) -> int:
    """Return twice the signed area of a ring; it is negative for rings of holes."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    return int((x0 * y1 - x1 * y0).sum())


@dataclass(frozen=True, eq=False)
class _Corners:
    """Corners of rings, each with its directions and an adjacent pixel of the region.

    Args:
        points: Column and row of the vertex (corners, 2).
        arrives: The direction of the edge that ends at the corner.
        leaves: The direction of the edge that starts at the corner.
        pixels: Row and column of the pixel (corners, 2).
        forks: Whether it is the second corner of a vertex that two regions share.
    """

    points: NDArray[np.int64]
    arrives: NDArray[np.int8]
    leaves: NDArray[np.int8]
    pixels: NDArray[np.int64]
    forks: NDArray[np.bool_]


def _get_neighbours(inside: Inside) -> tuple[Inside, ...]:
    """Return the four pixels around each vertex, in the order of the quadrant constants."""
    padded = np.pad(inside, 1)
    return padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]


def _find_convex_corners(neighbours: tuple[Inside, ...]) -> list[Inside]:
    """Return the vertices with a pixel inside, and with both adjacent pixels not inside."""
    masks = []
    for quadrant, _, _ in _CONVEX:
        # Quadrant 3 - n is opposite n; the two other quadrants are adjacent.
        adjacent = [n for n in range(4) if n not in (quadrant, 3 - quadrant)]
        masks.append(neighbours[quadrant] & ~neighbours[adjacent[0]] & ~neighbours[adjacent[1]])
    return masks


def _find_concave_corners(neighbours: tuple[Inside, ...]) -> list[Inside]:
    """Return the vertices at which exactly one of the four pixels is not inside."""
    masks = []
    for quadrant, _, _ in _CONCAVE:
        inside_pixels = [neighbours[n] for n in range(4) if n != quadrant]
        masks.append(~neighbours[quadrant] & inside_pixels[0] & inside_pixels[1] & inside_pixels[2])
    return masks


def _find_corners(inside: Inside) -> _Corners:
    neighbours = _get_neighbours(inside)
    points, arrives, leaves, pixels, forks = [], [], [], [], []
    convex = zip(_find_convex_corners(neighbours), _CONVEX, strict=True)
    concave = zip(_find_concave_corners(neighbours), _CONCAVE, strict=True)
    corner_kinds = [(mask, quadrant, directions) for mask, (quadrant, *directions) in convex]
    # Use the pixel that is opposite the missing one.
    corner_kinds += [(mask, 3 - quadrant, directions) for mask, (quadrant, *directions) in concave]
    for mask, quadrant, (arriving, leaving) in corner_kinds:
        rows, columns = np.nonzero(mask)
        points.append(np.stack([columns, rows], axis=1))
        arrives.append(np.full(len(rows), arriving, np.int8))
        leaves.append(np.full(len(rows), leaving, np.int8))
        pixels.append(np.stack([rows - 1 + quadrant // 2, columns - 1 + quadrant % 2], axis=1))
        is_fork = (
            (leaving == MOVE_LEFT) & neighbours[SOUTH_EAST][mask] & neighbours[NORTH_WEST][mask]
        )
        forks.append(is_fork & ~neighbours[NORTH_EAST][mask] & ~neighbours[SOUTH_WEST][mask])
    return _Corners(
        np.concatenate(points), np.concatenate(arrives), np.concatenate(leaves),
        np.concatenate(pixels), np.concatenate(forks),
    )  # fmt: skip


def _find_next(corners: _Corners) -> NDArray[np.int64]:
    """Return the next corner on its ring for each corner."""
    following = np.empty(len(corners.points), np.int64)
    x, y = corners.points.T
    for direction in range(4):
        # Edges of one direction do not overlap on a line: the nth start belongs to the nth end.
        along, line = (x, y) if direction in (MOVE_RIGHT, MOVE_LEFT) else (y, x)
        start_corners, end_corners = (
            np.flatnonzero(directions == direction)
            for directions in (corners.leaves, corners.arrives)
        )
        start_corners = start_corners[np.lexsort((along[start_corners], line[start_corners]))]
        following[start_corners] = end_corners[np.lexsort((along[end_corners], line[end_corners]))]
    return following


def _trace_rings(corners: _Corners) -> list[tuple[int, Ring]]:
    """Return each ring with its first corner, in the order of their first edges to the right."""
    x, y = corners.points.T
    first_corners = np.flatnonzero((corners.leaves == MOVE_RIGHT) | corners.forks)
    first_corners = first_corners[
        np.lexsort((corners.leaves[first_corners], x[first_corners], y[first_corners]))
    ]
    next_corners, is_open = _find_next(corners).tolist(), bytearray(b"\1") * len(x)
    rings = []
    for start in first_corners.tolist():
        if not is_open[start]:
            continue
        ring_corners, corner = [], start
        while is_open[corner]:
            is_open[corner] = 0
            ring_corners.append(corner)
            corner = next_corners[corner]
        rings.append((start, corners.points[[*ring_corners, start]]))
    return rings
