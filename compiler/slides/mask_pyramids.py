"""Masks as large as their slides, such as CAMELYON's: TIFF pyramids, of which one level is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.slides import slide_file, tissue_mask
from tcc.compiler.slides.block_means import block_means
from tcc.compiler.slides.slide_file import PixelSource, Slide, SlideExtent, SlideLevel
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.progress import silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

ENDINGS = (".tif", ".tiff")
BLACK, WHITE = 0, 255
HALF = 128
"""The mean from which on a square is white by half."""


def read(path: Path, slide: SlideExtent, side: int, meant: Callable[[int], bool]) -> TissueMask:
    """Return which squares of a slide a mask calls white, by half or more of each.

    Args:
        path: A TIFF file, a grey value for each pixel of the slide or for squares of them.
        slide: The slide.
        side: About how many pixels of level 0 a square is wide, at most.
        meant: Whether a value between black and white stands for white; it may refuse.

    Raises:
        UserError: It cannot be read (E1300, E1302, E1303, E1304), is not of this slide, or is in
            colour (E1307).
    """
    with slide_file.opened(path, what="mask") as mask:
        own = tissue_mask.least_side(slide, mask.height, mask.width)
        if tissue_mask.shape_at(slide, own) != (mask.height, mask.width):
            message = f"this mask of {mask.width} x {mask.height} pixels is not of this slide"
            label = f"the slide is {slide.width} x {slide.height}"
            help = "a mask has a pixel for each of the slide's, or for each square of them"
            raise fail("E1307", message, whole_file(str(path)), label=label, help=help)
        number, scale = _level(mask, max(1, side // own))
        level = mask.levels[number]
        source = _MaskLevel(path, mask.source, number, scale, meant)
        shown = Slide(path, (SlideLevel(level.width, level.height, 1.0),), None, source)
        step = max(1, side // (own * scale))
        means = block_means(shown, step, silent)[:, :, 0]
    return TissueMask(own * scale * step, means >= HALF)


def _level(mask: Slide, most: int) -> tuple[int, int]:
    """Return the smallest level whose pixels are whole squares, `most` wide at most, and how wide.

    Of others OpenSlide mixes neighbours, which for a mask are other values.
    """
    found = (0, 1)
    for number, level in enumerate(mask.levels):
        scale = round(level.scale)
        exact = (level.width * scale, level.height * scale) == (mask.width, mask.height)
        if exact and found[1] < scale <= most:
            found = number, scale
    return found


@dataclass(frozen=True)
class _MaskLevel:
    """A level of a mask as a slide of its own, which is white where the mask says so."""

    path: Path
    source: PixelSource
    number: int
    scale: int
    meant: Callable[[int], bool]

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> "Pixels":  # noqa: ARG002 - there is one
        pixels = self.source.read(self.number, left * self.scale, top * self.scale, size)
        values = pixels[:, :, 0]
        if (values != pixels[:, :, 1]).any() or (values != pixels[:, :, 2]).any():
            raise _coloured(self.path)
        table = np.arange(256, dtype=np.uint8)
        for value in np.flatnonzero(np.bincount(values.reshape(-1), minlength=256)).tolist():
            if value not in (BLACK, WHITE):
                table[value] = WHITE if self.meant(value) else BLACK
        return table[pixels]

    def close(self) -> None:
        pass


def _coloured(path: Path) -> UserError:
    message = "a mask of a slide's tumours is black and white, or grey, and this is in colour"
    help = "a slide itself is none; give SLIDE_mask.tif"
    return fail("E1307", message, whole_file(str(path)), help=help)
