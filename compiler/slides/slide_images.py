"""Encode images, downscale slides, and render the steps of a tissue mask."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tcc.compiler.slides import patch_grid
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.slide_file import Slide, compute_block_means
from tcc.compiler.slides.tissue_mask import TissueSteps
from tcc.compiler.support.progress import Progress

MAX_IMAGE_SIDE = 2048
"""Maximum side of a preview image in pixels."""
RLE_STRATEGY = 3
"""zlib's Z_RLE."""
REGION_COLOUR, PATCH_COLOUR, BACKGROUND_BRIGHTNESS = (31, 119, 180), (214, 39, 40), 0.35
"""Colours of rectangles, and the weight of background pixels when they are blended with white."""


@dataclass(frozen=True, eq=False)
class SlideImage:
    """A downscaled slide, RGB (rows, columns, 3); a pixel is `side` pixels of level 0 wide."""

    side: int
    pixels: NDArray[np.uint8]


def downscale_slide(slide: Slide, progress: Progress) -> SlideImage:
    """Return a thumbnail of a slide; its longer side has at most `MAX_IMAGE_SIDE` pixels.

    It also has at least half of that, if the slide is large enough.

    Args:
        slide: The slide.
        progress: Receives the number of finished rows.

    Raises:
        UserError: The slide is damaged (E1302).
    """
    min_scale = -(-max(slide.width, slide.height) // MAX_IMAGE_SIDE)
    # Prefer a stored level of about this size: computing means costs more than reading it.
    level_scales = [round(level.scale) for level in slide.levels]
    side = min(
        (scale for scale in level_scales if min_scale <= scale < 2 * min_scale), default=min_scale
    )
    pixels = compute_block_means(
        slide, side, lambda _, done_rows, total: progress("picture", done_rows, total)
    )
    return SlideImage(side, pixels)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of grey (height, width) or RGB (height, width, 3) pixels."""
    buffer = BytesIO()
    if pixels.ndim == 3:
        # Higher compression levels take twice as long, and photographs hardly become smaller.
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=2)
    else:  # uniform areas: run-length matching takes half the time
        Image.fromarray(pixels).save(buffer, "PNG", compress_type=RLE_STRATEGY)
    return buffer.getvalue()


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a JPEG file of RGB (height, width, 3) pixels, with 4:2:0 chroma subsampling."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85, subsampling="4:2:0")
    return buffer.getvalue()


def decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a file from `encode_jpeg`."""
    with Image.open(BytesIO(content), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def render_steps(
    tissue_steps: TissueSteps, grid: PatchGrid | None, min_tissue: float
) -> Mapping[str, bytes]:
    """Return an image of each step, by file name.

    Args:
        tissue_steps: The steps of a mask.
        grid: The patches; None for only the mask.
        min_tissue: The minimum share of tissue of a selected patch.
    """
    shrink = -(-max(tissue_steps.image.shape[:2]) // MAX_IMAGE_SIDE)
    image = tissue_steps.image[::shrink, ::shrink]
    images = {"1-slide.png": encode_png(image)}
    for number, (name, mask) in enumerate(tissue_steps.masks.items(), 2):
        images[f"{number}-{name}.png"] = encode_png(
            np.where(mask, np.uint8(255), 0)[::shrink, ::shrink]
        )
    faded = (image * BACKGROUND_BRIGHTNESS + 255 * (1 - BACKGROUND_BRIGHTNESS)).astype(np.uint8)
    inside = tissue_steps.mask.inside[::shrink, ::shrink, None]
    images["7-without-background.png"] = encode_png(np.where(inside, image, faded))
    if grid:
        images["8-patches.png"] = _render_patches(tissue_steps, grid, min_tissue, shrink)
    return images


def _render_patches(
    tissue_steps: TissueSteps, grid: PatchGrid, min_tissue: float, shrink: int
) -> bytes:
    """Draw each region's rectangle, and the selected patches."""
    image = Image.fromarray(tissue_steps.image[::shrink, ::shrink])
    scale = max(1, -(-800 // max(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    unit = tissue_steps.mask.side * shrink / scale
    for row, column in np.argwhere(
        patch_grid.select_patches(grid, tissue_steps.mask, min_tissue)
    ).tolist():
        x, y = grid.compute_corner(row, column)
        corners = [round(n / unit) for n in (x, y, x + grid.span, y + grid.span)]
        draw.rectangle([*corners[:2], corners[2] - 1, corners[3] - 1], outline=PATCH_COLOUR)
    for rows, columns in tissue_steps.mask.regions:
        first_row, end_row, first_column, end_column = (
            round(n / shrink * scale) for n in (rows.start, rows.stop, columns.start, columns.stop)
        )
        draw.rectangle(
            (first_column, first_row, end_column - 1, end_row - 1), outline=REGION_COLOUR, width=2
        )
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
