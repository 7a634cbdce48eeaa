"""Draw the figure of docs/slides.md: a synthetic slide, its tissue mask and its heat map.

    python tools/make_slide_picture.py [--check]

The slide is that of `draw_slide.py`, with a square of pixels for each of its tiles. Mask, patches
and heat map are computed as in `tcc slide run`, but the mean red of a patch replaces the network's
output. With `--check`, write nothing and fail if the figure would have other pixels.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import draw_slide
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tcc.compiler.slides import contours, patch_grid, slide_file, slide_viewer, tissue_mask
from tcc.compiler.slides.patch_grid import PatchGrid, PatchReader
from tcc.compiler.slides.slide_file import Slide, compute_block_means
from tcc.compiler.slides.slide_images import PATCH_COLOUR, encode_png
from tcc.compiler.slides.tissue_mask import TissueChoices
from tcc.compiler.support.progress import silent

PICTURE = Path(__file__).resolve().parents[1] / "docs/pictures/slide.png"
TILES, PIXELS = 40, 16
"""The number of tiles per side of the slide, and the pixels per side of a tile."""
MPP = draw_slide.MPP * draw_slide.TILE / PIXELS
PATCH_SIDE = 12
SCALE, GAP = 2, 12
"""Slide pixels per figure pixel, and the gap between the figure's parts in pixels."""
RED, DARK = draw_slide.COLOURS[draw_slide.TISSUE][0], draw_slide.COLOURS[draw_slide.TUMOUR][0]

Pixels = NDArray[np.uint8]


def draw_picture() -> Pixels:
    """Return slide, mask with patches, and heat map with tumour outlines, side by side."""
    kinds = draw_slide.make_tile_kinds(TILES * draw_slide.TILE)
    colours = np.array(draw_slide.COLOURS, np.uint8)[kinds]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.png"
        path.write_bytes(encode_png(colours.repeat(PIXELS, 0).repeat(PIXELS, 1)))
        with slide_file.open_slide(path, MPP) as slide:
            small = compute_block_means(slide, SCALE, silent)
            choices = TissueChoices(MPP, "wide")
            mask = tissue_mask.find_tissue(slide, MPP, choices, silent).mask
            grid = patch_grid.build_grid(slide, PATCH_SIDE, PATCH_SIDE)
            selected = patch_grid.select_patches(grid, mask, 0.5)
            heat = _compute_heat(slide, grid, selected)
    white = np.where(mask.inside[::SCALE, ::SCALE, None], small, 255).astype(np.uint8)
    over = slide_viewer.draw_overlay(small, SCALE, grid, heat, "overlay")
    parts = small, _draw_patches(white, grid, selected), _draw_outlines(over, kinds)
    gap = np.full((len(small), GAP, 3), 255, np.uint8)
    return np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)


def _compute_heat(
    slide: Slide, grid: PatchGrid, selected: NDArray[np.bool_]
) -> NDArray[np.float64]:
    reader = PatchReader(slide, grid, PATCH_SIDE)
    heat = np.full(grid.shape, np.nan)
    for block in patch_grid.split_into_blocks(reader, selected):
        for position, pixels in zip(block, reader.read_patches(block), strict=True):
            heat[position] = np.clip((RED - pixels[:, :, 0].mean()) / (RED - DARK), 0, 1)
    return heat


def _draw_patches(pixels: Pixels, grid: PatchGrid, selected: NDArray[np.bool_]) -> Pixels:
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    for row, column in np.argwhere(selected).tolist():
        x, y = (n // SCALE for n in grid.compute_corner(row, column))
        pen.rectangle((x, y, x + grid.span // SCALE, y + grid.span // SCALE), outline=PATCH_COLOUR)
    return np.asarray(image)


def _draw_outlines(pixels: Pixels, kinds: NDArray[np.uint8]) -> Pixels:
    image = Image.fromarray(pixels)
    pen: Any = ImageDraw.Draw(image)
    for polygon in contours.find_polygons(kinds == draw_slide.TUMOUR):
        for ring in polygon:
            pen.line(
                [(x * PIXELS // SCALE, y * PIXELS // SCALE) for x, y in ring.tolist()], (0, 0, 0), 2
            )
    return np.asarray(image)


def main() -> int:
    """Write or check the figure; return the exit code."""
    picture = draw_picture()
    if PICTURE.exists():
        with Image.open(PICTURE) as picture_file:
            if np.array_equal(np.asarray(picture_file.convert("RGB")), picture):
                return 0
    if "--check" in sys.argv:
        print(f"{PICTURE.name} is out of date: run tools/{Path(sys.argv[0]).name}")
        return 1
    PICTURE.write_bytes(encode_png(picture))
    print(f"written: {PICTURE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
