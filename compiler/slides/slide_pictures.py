"""Pixels as PNG files, and the pictures of how a mask and its patches come about."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tcc.compiler.slides import patch_grid
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.slide_file import Slide, block_means
from tcc.compiler.slides.tissue_mask import TissueSteps
from tcc.compiler.support.progress import Progress

LARGEST = 2048
"""Most pixels of a side of a picture that is only looked at."""
RUNS = 3
"""zlib's Z_RLE."""
REGION, PATCH, LEFT_OUT = (31, 119, 180), (214, 39, 40), 0.35
"""Colours of rectangles, and what is left of the brightness of what is no tissue."""


@dataclass(frozen=True, eq=False)
class SlidePicture:
    """A slide made small, RGB (rows, columns, 3); a pixel is `side` of level 0 wide."""

    side: int
    pixels: NDArray[np.uint8]


def small(slide: Slide, progress: Progress) -> SlidePicture:
    """Return a slide made small, with half of `LARGEST` pixels a side or more, where it has them.

    Args:
        slide: The slide.
        progress: Told of the picture's rows.

    Raises:
        UserError: The slide is damaged (E1302).
    """
    least = -(-max(slide.width, slide.height) // LARGEST)
    # Of what is stored at about this size no means are taken, which cost more than to read it.
    stored = [round(level.scale) for level in slide.levels]
    side = min((scale for scale in stored if least <= scale < 2 * least), default=least)
    pixels = block_means(slide, side, lambda _, seen, total: progress("picture", seen, total))
    return SlidePicture(side, pixels)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of grey (height, width) or RGB (height, width, 3) pixels."""
    out = BytesIO()
    if pixels.ndim == 3:
        # What was photographed is hardly smaller at higher levels, which take twice as long.
        Image.fromarray(pixels).save(out, "PNG", compress_level=2)
    else:  # areas of one grey: looking for runs alone takes half the time
        Image.fromarray(pixels).save(out, "PNG", compress_type=RUNS)
    return out.getvalue()


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a JPEG file of RGB (height, width, 3) pixels, colours at half the size."""
    out = BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85, subsampling="4:2:0")
    return out.getvalue()


def of_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of what `jpeg` wrote."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def steps(found: TissueSteps, grid: PatchGrid | None, least: float) -> Mapping[str, bytes]:
    """Return a picture of each step, by file name.

    Args:
        found: The steps to a mask.
        grid: The patches, None where only the mask is wanted.
        least: The share of tissue from which a patch is kept.
    """
    shrink = -(-max(found.image.shape[:2]) // LARGEST)
    shown = found.image[::shrink, ::shrink]
    made = {"1-slide.png": png(shown)}
    for number, (name, mask) in enumerate(found.masks.items(), 2):
        made[f"{number}-{name}.png"] = png(np.where(mask, np.uint8(255), 0)[::shrink, ::shrink])
    faded = (shown * LEFT_OUT + 255 * (1 - LEFT_OUT)).astype(np.uint8)
    inside = found.mask.inside[::shrink, ::shrink, None]
    made["7-without-background.png"] = png(np.where(inside, shown, faded))
    if grid:
        made["8-patches.png"] = _patches(found, grid, least, shrink)
    return made


def _patches(found: TissueSteps, grid: PatchGrid, least: float, shrink: int) -> bytes:
    """Draw each region's rectangle, and the patches of it that are kept."""
    image = Image.fromarray(found.image[::shrink, ::shrink])
    scale = max(1, -(-800 // max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    unit = found.mask.side * shrink / scale
    for row, column in np.argwhere(patch_grid.kept(grid, found.mask, least)).tolist():
        x, y = grid.corner(row, column)
        corners = [round(n / unit) for n in (x, y, x + grid.span, y + grid.span)]
        pen.rectangle([*corners[:2], corners[2] - 1, corners[3] - 1], outline=PATCH)
    for rows, columns in found.mask.regions:
        top, bottom, left, right = (
            round(n / shrink * scale) for n in (rows.start, rows.stop, columns.start, columns.stop)
        )
        pen.rectangle((left, top, right - 1, bottom - 1), outline=REGION, width=2)
    out = BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()
