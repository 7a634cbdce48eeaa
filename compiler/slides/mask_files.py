"""Read and write editable masks: images, or polygons.

Polygons are rasterized by the crossings of their edges with rows of pixel centres. All polygons are
filled together, in bands of rows. The cost therefore depends only on the number of crossings and
pixels, even if many polygons overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images
from tcc.compiler.slides import contours, geojson, tissue_mask
from tcc.compiler.slides.annotated_areas import DrawnAreas
from tcc.compiler.slides.contours import Ring
from tcc.compiler.slides.slide_file import Slide, SlideExtent
from tcc.compiler.slides.slide_images import encode_png
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, make_file_span

BAND = 1 << 21
"""Number of crossings that are sorted at a time; a row may have more."""


@dataclass(frozen=True, eq=False)
class PolygonEdges:
    """The edges of polygons on a raster of `shape` (rows, columns), in pixels.

    Args:
        shape: Rows and columns.
        polygons: The index of each edge's polygon.
        start_points: Column and row of each edge's start (edges, 2); pixel centres have integer
            coordinates.
        end_points: Column and row of each edge's end (edges, 2).
        first_rows: The first row of pixel centres that each edge crosses.
        last_rows: The row after the last one that each edge crosses.
    """

    shape: tuple[int, int]
    polygons: NDArray[np.int64]
    start_points: NDArray[np.float64]
    end_points: NDArray[np.float64]
    first_rows: NDArray[np.int64]
    last_rows: NDArray[np.int64]

    @property
    def crossing_count(self) -> int:
        """The total number of crossings of edges with rows of pixel centres."""
        return int((self.last_rows - self.first_rows).sum())

    def select_rows(self, top: int, bottom: int) -> "PolygonEdges":
        """Return the edges that cross the rows `top` to `bottom`, limited to these rows."""
        first_rows, last_rows = np.maximum(self.first_rows, top), np.minimum(self.last_rows, bottom)
        is_crossing = first_rows < last_rows
        return PolygonEdges(
            self.shape,
            self.polygons[is_crossing],
            self.start_points[is_crossing],
            self.end_points[is_crossing],
            first_rows[is_crossing],
            last_rows[is_crossing],
        )


def find_edges(areas: DrawnAreas, shape: tuple[int, int]) -> PolygonEdges:
    """Return the edges of areas on a raster.

    Args:
        areas: Polygons and their holes, with vertices in pixels of the raster.
        shape: Rows and columns of the raster.
    """
    points = areas.vertices - 0.5
    counts = np.diff(areas.ring_ends, prepend=0)
    next_indices = np.arange(1, len(points) + 1)
    next_indices[areas.ring_ends - 1] = areas.ring_ends - counts  # close each ring
    next_points = points[next_indices]
    # Exclude the larger end, so that a vertex on a row of centres counts for one of its edges.
    first_rows = np.clip(np.ceil(np.minimum(points[:, 1], next_points[:, 1])), 0, shape[0])
    last_rows = np.clip(np.ceil(np.maximum(points[:, 1], next_points[:, 1])), 0, shape[0])
    polygons = np.repeat(areas.ring_polygons, counts)
    return PolygonEdges(
        shape,
        polygons,
        points,
        next_points,
        first_rows.astype(np.int64),
        last_rows.astype(np.int64),
    )


def fill_polygons(edges: PolygonEdges) -> NDArray[np.bool_]:
    """Return the pixels with a centre inside one of the polygons.

    The rings of a polygon are combined by the even-odd rule.
    """
    rows, columns = edges.shape
    inside = np.zeros((rows, columns), np.bool_)
    for top, bottom in _iterate_bands(edges):
        inside[top:bottom] = _fill_band(edges.select_rows(top, bottom), top, bottom)
    return inside


def _iterate_bands(edges: PolygonEdges) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows with at most `BAND` crossings and pixels in total, or single rows."""
    rows, columns = edges.shape
    changes = np.bincount(edges.first_rows, minlength=rows + 1) - np.bincount(
        edges.last_rows, minlength=rows + 1
    )
    total = np.cumsum(np.cumsum(changes[:rows]) + columns)
    top = 0
    while top < rows:
        row_total = int(total[top - 1]) if top else 0
        bottom = int(np.searchsorted(total, row_total + BAND, side="right"))
        bottom = max(bottom, top + 1)
        yield top, bottom
        top = bottom


def _fill_band(edges: PolygonEdges, top: int, bottom: int) -> NDArray[np.bool_]:
    columns = edges.shape[1]
    counts = edges.last_rows - edges.first_rows
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - edges.last_rows, counts)
    (x0, y0), (x1, y1) = edges.start_points[edge].T, edges.end_points[edge].T
    column = np.ceil(x0 + (row - y0) / (y1 - y0) * (x1 - x0))
    column = np.clip(column, 0, columns).astype(np.int64)
    # Sorted by row, polygon and column, crossings alternately enter and leave a polygon, because a
    # closed ring crosses each row an even number of times.
    polygon_count = int(edges.polygons.max(initial=0)) + 1
    keys = ((row - top) * polygon_count + edges.polygons[edge]) * (columns + 1) + column
    keys.sort()
    cells = keys // (polygon_count * (columns + 1)) * (columns + 1) + keys % (columns + 1)
    size = (bottom - top) * (columns + 1)
    depth = np.bincount(cells[0::2], minlength=size) - np.bincount(cells[1::2], minlength=size)
    depth = depth.reshape(bottom - top, columns + 1)
    return np.asarray(np.cumsum(depth, axis=1)[:, :-1] > 0)


SUFFIXES = (".png", ".geojson")
GREY = (150, 150, 150)
MAX_CROSSINGS = 1 << 25
"""Maximum number of crossings of edges with rows of squares: a few seconds on one core."""


MAX_CORNERS = 1 << 22
"""Maximum number of corners of a mask's outlines; enough for the noisiest mask of a large slide."""


def check_name(path: Path) -> None:
    """Check the suffix of a mask file (E1307)."""
    if path.suffix.lower() not in SUFFIXES:
        message = "the file name of a mask must end in .png or .geojson"
        raise fail("E1307", message, make_file_span(str(path)))


def encode_mask(path: Path, slide: Slide, mask: TissueMask) -> bytes:
    """Return a mask as a file in the format of `path`.

    Raises:
        UserError: The format is not supported (E1307).
    """
    check_name(path)
    if path.suffix.lower() == ".png":
        return encode_png(np.where(mask.inside, np.uint8(255), np.uint8(0)))
    return geojson.encode_features(
        [
            geojson.build_feature([polygon], "annotation", "Tissue", GREY)
            for polygon in compute_outlines(slide, mask)
        ]
    )


def compute_outlines(slide: SlideExtent, mask: TissueMask) -> list[list[Ring]]:
    """Return the regions of a mask as polygons in pixels of level 0."""
    return scale_polygons(contours.find_polygons(mask.inside), mask.side, slide.width, slide.height)


def scale_polygons(
    polygons: list[list[Ring]], side: int, width: int, height: int
) -> list[list[Ring]]:
    """Return polygons of squares in pixels of level 0, clipped to the slide."""
    return [[np.minimum(ring * side, (width, height)) for ring in rings] for rings in polygons]


def check_outlines(path: Path, mask: TissueMask) -> None:
    """Reject a mask with too many corners, because its outlines need too much memory (E1324)."""
    corners = contours.count_corners(mask.inside)
    if corners > MAX_CORNERS:
        message = f"the outlines of this tissue have {corners:,} corners"
        label = f"the limit is {MAX_CORNERS:,}; many corners are a sign of noise"
        help = "remove specks with --least-region and --fill-holes, or use a larger --mask-mpp"
        raise fail("E1324", message, make_file_span(str(path)), label=label, help=help)


def read_mask(path: Path, slide: SlideExtent, side: int) -> TissueMask:
    """Return the mask in a file.

    Args:
        path: An image with bright pixels for tissue, or polygons in pixels of level 0.
        slide: The slide.
        side: The width of a mask pixel, for polygons; for an image, its size determines the width.

    Raises:
        UserError: The file cannot be read or is not a mask of this slide (E1306, E1307), or has too
            many outlines (E1323, E1324).
    """
    check_name(path)
    if path.suffix.lower() == ".png":
        return _read_image(path, slide)
    return TissueMask(side, rasterize_areas(geojson.read_areas(path), path, slide, side))


def rasterize_areas(
    areas: DrawnAreas, path: Path, slide: SlideExtent, side: int
) -> NDArray[np.bool_]:
    """Return the squares of a slide with a centre inside one of the polygons.

    Args:
        areas: The polygons, in pixels of level 0.
        path: The polygons' file, for errors.
        slide: The slide.
        side: The width of a square in pixels of level 0.

    Raises:
        UserError: Their edges cross too many rows of squares (E1324).
    """
    rows, columns = tissue_mask.compute_shape(slide, side)
    # The last squares may extend beyond the slide.
    is_beyond = areas.vertices >= (slide.width, slide.height)
    vertices = np.where(is_beyond, np.array((columns, rows), np.float64), areas.vertices / side)
    edges = find_edges(replace(areas, vertices=vertices), (rows, columns))
    if edges.crossing_count > MAX_CROSSINGS:
        message = f"the edges of these polygons cross {edges.crossing_count:,} rows of squares"
        label = f"the limit is {MAX_CROSSINGS:,}; a square has {side} pixels of level 0 a side"
        help = "simplify the polygons, or remove those that overlap"
        raise fail("E1324", message, make_file_span(str(path)), label=label, help=help)
    return fill_polygons(edges)


def _read_image(path: Path, slide: SlideExtent) -> TissueMask:
    pixels = confined_images.read_image(path)
    rows, columns = pixels.shape[:2]
    side = tissue_mask.compute_min_side(slide, rows, columns)
    if tissue_mask.compute_shape(slide, side) != (rows, columns):
        message = f"this mask of {columns} x {rows} pixels does not match this slide"
        label = f"the slide has {slide.width} x {slide.height} pixels"
        help = "keep the size of the mask that `tcc slide mask` writes"
        raise fail("E1307", message, make_file_span(str(path)), label=label, help=help)
    return TissueMask(side, pixels.mean(axis=2) >= 128)
