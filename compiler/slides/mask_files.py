"""Masks that can be edited: a picture, a pixel for each of the mask's, or polygons."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.data import confined_images
from tcc.compiler.slides import contours, geojson, polygon_raster, tissue_mask
from tcc.compiler.slides.contours import Ring
from tcc.compiler.slides.drawn_areas import DrawnAreas
from tcc.compiler.slides.slide_file import Slide, SlideExtent
from tcc.compiler.slides.slide_pictures import png
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENDINGS = (".png", ".geojson")
GREY = (150, 150, 150)
MOST_CROSSINGS = 1 << 25
"""Most rows of squares that the edges of all polygons cross: some seconds of one core."""


MOST_CORNERS = 1 << 22
"""Most corners of all outlines of a mask: those of the rawest mask of the largest slide."""


def check_name(path: Path) -> None:
    """Refuse a file of another kind (E1307)."""
    if path.suffix.lower() not in ENDINGS:
        message = "a mask is a .png or a .geojson file"
        raise fail("E1307", message, whole_file(str(path)))


def encoded(path: Path, slide: Slide, mask: TissueMask) -> bytes:
    """Return a mask as a file of the kind that a name asks for.

    Raises:
        UserError: It is of no such kind (E1307).
    """
    check_name(path)
    if path.suffix.lower() == ".png":
        return png(np.where(mask.inside, np.uint8(255), np.uint8(0)))
    return geojson.text(
        [geojson.feature([one], "annotation", "Tissue", GREY) for one in outlines(slide, mask)]
    )


def outlines(slide: SlideExtent, mask: TissueMask) -> list[list[Ring]]:
    """Return the regions of a mask as polygons in pixels of level 0."""
    return scaled(contours.polygons(mask.inside), mask.side, slide.width, slide.height)


def scaled(polygons: list[list[Ring]], side: int, width: int, height: int) -> list[list[Ring]]:
    """Return polygons in pixels of level 0, of whose squares the last may be narrower."""
    return [[np.minimum(ring * side, (width, height)) for ring in rings] for rings in polygons]


def check_outlines(path: Path, mask: TissueMask) -> None:
    """Refuse a mask of so many corners that its outlines take all memory (E1324)."""
    corners = contours.count_corners(mask.inside)
    if corners > MOST_CORNERS:
        message = f"the outlines of this tissue have {corners:,} corners"
        label = f"at most {MOST_CORNERS:,} are written; tissue has few, noise has many"
        help = "leave out specks with --least-region and --fill-holes, or take a larger --mask-mpp"
        raise fail("E1324", message, whole_file(str(path)), label=label, help=help)


def read(path: Path, slide: SlideExtent, side: int) -> TissueMask:
    """Return the mask in a file.

    Args:
        path: A picture whose bright pixels are tissue, or polygons in pixels of level 0.
        slide: The slide.
        side: What a pixel of the mask is wide, of polygons; a picture's size tells it.

    Raises:
        UserError: It cannot be read, or is no mask of this slide (E1306, E1307), or has too many
            outlines (E1323, E1324).
    """
    check_name(path)
    if path.suffix.lower() == ".png":
        return _of_picture(path, slide)
    return TissueMask(side, within(geojson.read(path), path, slide, side))


def within(areas: DrawnAreas, path: Path, slide: SlideExtent, side: int) -> "NDArray[np.bool_]":
    """Return the squares of a slide whose middle is within polygons in pixels of level 0.

    Args:
        areas: The polygons.
        path: The file that they are of, for errors.
        slide: The slide.
        side: How wide a square is.

    Raises:
        UserError: Their edges cross too many rows of squares (E1324).
    """
    rows, columns = tissue_mask.shape_at(slide, side)
    # The last squares may reach beyond the slide.
    is_beyond = areas.vertices >= (slide.width, slide.height)
    vertices = np.where(is_beyond, np.array((columns, rows), np.float64), areas.vertices / side)
    edges = polygon_raster.find_edges(replace(areas, vertices=vertices), (rows, columns))
    if edges.crossings > MOST_CROSSINGS:
        message = f"the edges of these polygons cross {edges.crossings:,} rows of squares"
        label = f"at most {MOST_CROSSINGS:,} are filled, at {side} pixels of level 0 a square"
        help = "simplify them, or leave out those that lie over each other"
        raise fail("E1324", message, whole_file(str(path)), label=label, help=help)
    return polygon_raster.fill(edges)


def _of_picture(path: Path, slide: SlideExtent) -> TissueMask:
    pixels = confined_images.read(path)
    rows, columns = pixels.shape[:2]
    side = tissue_mask.least_side(slide, rows, columns)
    if tissue_mask.shape_at(slide, side) != (rows, columns):
        message = f"this mask of {columns} x {rows} pixels is not of this slide"
        label = f"the slide is {slide.width} x {slide.height}"
        help = "a mask keeps the size that `tcc slide mask` writes it in"
        raise fail("E1307", message, whole_file(str(path)), label=label, help=help)
    return TissueMask(side, pixels.mean(axis=2) >= 128)
