"""Masks that can be edited: a picture, a pixel for each of the mask's, or polygons."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.data import images
from tcc.compiler.slides import contours, geojson, tissue_mask
from tcc.compiler.slides.contours import Ring
from tcc.compiler.slides.slide_file import Slide, SlideExtent
from tcc.compiler.slides.slide_pictures import png
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rings = list[NDArray[np.float64]]

ENDINGS = (".png", ".geojson")
GREY = (150, 150, 150)
MOST_CROSSINGS = 1 << 26
"""Most rows that the edges of all polygons cross."""


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
    return [
        [[(min(x * side, width), min(y * side, height)) for x, y in ring] for ring in rings]
        for rings in polygons
    ]


def read(path: Path, slide: SlideExtent, side: int) -> TissueMask:
    """Return the mask in a file.

    Args:
        path: A picture whose bright pixels are tissue, or polygons in pixels of level 0.
        slide: The slide.
        side: What a pixel of the mask is wide, of polygons; a picture's size tells it.

    Raises:
        UserError: It cannot be read, or is no mask of this slide (E1306, E1307).
    """
    check_name(path)
    if path.suffix.lower() == ".png":
        return _of_picture(path, slide)
    return TissueMask(side, within([rings for _, rings in geojson.read(path)], path, slide, side))


def within(
    polygons: "Sequence[Rings]", path: Path, slide: SlideExtent, side: int
) -> "NDArray[np.bool_]":
    """Return the squares of a slide whose middle is within polygons in pixels of level 0.

    Args:
        polygons: Each its rings.
        path: The file that they are of, for errors.
        slide: The slide.
        side: How wide a square is.

    Raises:
        UserError: There is too much of them (E1307).
    """
    rows, columns = tissue_mask.shape_at(slide, side)
    inside = np.zeros((rows, columns), np.bool_)
    moved = [[_in_pixels(ring, slide, side) for ring in rings] for rings in polygons]
    if sum(contours.crossed_rows(rings) for rings in moved) > MOST_CROSSINGS:
        message = "these polygons go up and down too often"
        raise fail("E1307", message, whole_file(str(path)), help="simplify them")
    for rings in moved:
        corners = np.concatenate(rings)
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, (columns, rows)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, (columns, rows)).astype(int)
        part = contours.raster([ring - (left, top) for ring in rings], (bottom - top, right - left))
        inside[top:bottom, left:right] |= part
    return inside


def _in_pixels(ring: "NDArray[np.float64]", slide: SlideExtent, side: int) -> "NDArray[np.float64]":
    """Return a ring in pixels of a mask, of which the last ones may reach beyond the slide."""
    edge, size = (slide.width, slide.height), tissue_mask.shape_at(slide, side)[::-1]
    return np.where(ring >= edge, np.array(size, np.float64), ring / side)


def _of_picture(path: Path, slide: SlideExtent) -> TissueMask:
    pixels = images.read(path)
    rows, columns = pixels.shape[:2]
    side = tissue_mask.least_side(slide, rows, columns)
    if tissue_mask.shape_at(slide, side) != (rows, columns):
        message = f"this mask of {columns} x {rows} pixels is not of this slide"
        label = f"the slide is {slide.width} x {slide.height}"
        help = "a mask keeps the size that `tcc slide mask` writes it in"
        raise fail("E1307", message, whole_file(str(path)), label=label, help=help)
    return TissueMask(side, pixels.mean(axis=2) >= 128)
