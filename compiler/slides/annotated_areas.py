"""Polygons of a file and their classes, in arrays, so that millions of vertices fit in memory."""

from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_BYTES = 1 << 26
"""Maximum file size in bytes."""
MAX_VERTICES = 1 << 21
"""Maximum number of vertices in a file."""
MAX_POLYGONS = 1 << 18
"""Maximum number of polygons in a file."""
MAX_COORDINATE = 1e9
"""Maximum magnitude of a coordinate, in pixels of level 0."""


@dataclass(frozen=True, eq=False)
class DrawnAreas:
    """Polygons, each with one or more rings.

    Args:
        names: The class of each polygon.
        ring_polygons: The polygon of each ring (rings,), in ascending order.
        ring_ends: The index after the last vertex of each ring (rings,).
        vertices: Columns and rows of level 0 (vertices, 2), ring by ring.
    """

    names: tuple[str, ...]
    ring_polygons: NDArray[np.int64]
    ring_ends: NDArray[np.int64]
    vertices: NDArray[np.float64]

    def select(self, names: Collection[str]) -> "DrawnAreas":
        """Return the polygons with one of these case-folded class names."""
        selected = np.array([name.casefold() in names for name in self.names], np.bool_)
        rings = selected[self.ring_polygons]
        counts = np.diff(self.ring_ends, prepend=0)
        new_numbers = np.cumsum(selected) - 1
        return DrawnAreas(
            tuple(
                name for name, is_selected in zip(self.names, selected, strict=True) if is_selected
            ),
            new_numbers[self.ring_polygons[rings]],
            np.cumsum(counts[rings]),
            self.vertices[np.repeat(rings, counts)],
        )

    def locate(self, vertex: int) -> int:
        """Return the polygon that a vertex belongs to."""
        return int(self.ring_polygons[np.searchsorted(self.ring_ends, vertex, side="right")])


class AreaCollector:
    """Collects the polygons of a file while it is parsed."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._shared_names: dict[str, str] = {}
        self._ring_polygons, self._ring_ends, self._vertices = array("q"), array("q"), array("d")

    def add(self, name: str, rings: Iterable[NDArray[np.float64]]) -> None:
        """Add a polygon of a class; each ring has vertices (n, 2), float64.

        Raises:
            ValueError: A ring has fewer than three vertices.
            TooMuchError: There are too many vertices or polygons.
        """
        if len(self._names) == MAX_POLYGONS:
            raise TooMuchError(f"there are more than {MAX_POLYGONS:,} polygons")
        # Share the names, because a file has few classes and many polygons.
        self._names.append(self._shared_names.setdefault(name, name))
        for ring in rings:
            if len(ring) < 3:
                raise ValueError("a ring must be a list of at least three [x, y]")
            self._vertices.frombytes(ring.tobytes())
            self._ring_polygons.append(len(self._names) - 1)
            self._ring_ends.append(len(self._vertices) // 2)
        check_count(len(self._vertices) // 2)

    def build_areas(self) -> DrawnAreas:
        """Return the collected polygons.

        Raises:
            ValueError: A coordinate is out of range.
        """
        areas = DrawnAreas(
            tuple(self._names),
            np.array(self._ring_polygons, np.int64),
            np.array(self._ring_ends, np.int64),
            np.array(self._vertices, np.float64).reshape(-1, 2),
        )
        is_in_range = (np.abs(areas.vertices) < MAX_COORDINATE).all(axis=1)
        if not is_in_range.all():
            vertex = int(np.argmin(is_in_range))
            x, y = areas.vertices[vertex].tolist()
            location = f"polygon {areas.locate(vertex) + 1} has the corner ({x:g}, {y:g})"
            raise ValueError(
                f"{location}, but coordinates must be between -{MAX_COORDINATE:g} and "
                f"{MAX_COORDINATE:g}"
            )
        return areas


class TooMuchError(ValueError):
    """A file exceeds a limit."""


def check_size(count: int) -> None:
    """Check the number of bytes of a file (TooMuchError)."""
    if count > MAX_BYTES:
        raise TooMuchError(f"the file is larger than {MAX_BYTES >> 20} MiB")


def check_count(vertices: int) -> None:
    """Check the number of vertices of a file (TooMuchError)."""
    if vertices > MAX_VERTICES:
        raise TooMuchError(f"there are more than {MAX_VERTICES:,} vertices")


def build_size_error(path: Path, error: TooMuchError) -> UserError:
    """Return the error of a file that exceeds a limit (E1323)."""
    message = "these outlines are too large"
    help = "simplify the outlines, or remove those that are neither tumour nor tissue"
    return fail("E1323", message, make_file_span(str(path)), label=str(error)[:200], help=help)
