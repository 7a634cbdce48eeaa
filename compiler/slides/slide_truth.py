"""Read the ground truth of slides from a folder with one file per slide.

Masks may be as large as their slides, such as CAMELYON's: only one level of a TIFF pyramid is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images
from tcc.compiler.slides import annotations, mask_files, slide_file, tissue_mask
from tcc.compiler.slides.annotations import AreaClasses
from tcc.compiler.slides.saved_result import StoredResult
from tcc.compiler.slides.slide_file import (
    PixelSource,
    Slide,
    SlideExtent,
    SlideLevel,
    compute_block_means,
)
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.progress import silent

Pixels = NDArray[np.uint8]

PYRAMID_SUFFIXES = (".tif", ".tiff")
BLACK, WHITE = 0, 255
MIN_WHITE_MEAN = 128
"""Minimum mean of a square that is at least half white."""


def read_pyramid(
    path: Path, slide: SlideExtent, side: int, is_white: Callable[[int], bool]
) -> TissueMask:
    """Return the squares of a slide that are at least half white in a mask.

    Args:
        path: A TIFF file, with a grey value for each pixel of the slide or for squares of them.
        slide: The slide.
        side: The approximate maximum width of a square in pixels of level 0.
        is_white: Whether a value between black and white counts as white; it may raise an error.

    Raises:
        UserError: The mask cannot be read (E1300, E1302, E1303, E1304), does not match the slide,
            or is in colour (E1307).
    """
    with slide_file.open_slide(path, file_kind="mask") as mask:
        mask_side = tissue_mask.compute_min_side(slide, mask.height, mask.width)
        if tissue_mask.compute_shape(slide, mask_side) != (mask.height, mask.width):
            message = f"this mask of {mask.width} x {mask.height} pixels does not match this slide"
            label = f"the slide has {slide.width} x {slide.height} pixels"
            help = (
                "give a mask with one pixel for each pixel, or each square of pixels, of the slide"
            )
            raise fail("E1307", message, make_file_span(str(path)), label=label, help=help)
        number, scale = _find_level(mask, max(1, side // mask_side))
        level = mask.levels[number]
        source = _MaskLevel(path, mask.source, number, scale, is_white)
        slide_mask = Slide(path, (SlideLevel(level.width, level.height, 1.0),), None, source)
        step = max(1, side // (mask_side * scale))
        means = compute_block_means(slide_mask, step, silent)[:, :, 0]
    return TissueMask(mask_side * scale * step, means >= MIN_WHITE_MEAN)


def _find_level(mask: Slide, max_scale: int) -> tuple[int, int]:
    """Return the smallest level with an integer scale up to `max_scale`, and this scale.

    For other levels OpenSlide interpolates neighbours, which changes the values of a mask.
    """
    best_level = (0, 1)
    for number, level in enumerate(mask.levels):
        scale = round(level.scale)
        is_exact = (level.width * scale, level.height * scale) == (mask.width, mask.height)
        if is_exact and best_level[1] < scale <= max_scale:
            best_level = number, scale
    return best_level


@dataclass(frozen=True)
class _MaskLevel:
    """A level of a mask as a black and white slide."""

    path: Path
    source: PixelSource
    number: int
    scale: int
    is_white: Callable[[int], bool]

    def read_pixels(self, level: int, left: int, top: int, size: tuple[int, int]) -> Pixels:  # noqa: ARG002 - there is only one
        pixels = self.source.read_pixels(self.number, left * self.scale, top * self.scale, size)
        grey_values = pixels[:, :, 0]
        if (grey_values != pixels[:, :, 1]).any() or (grey_values != pixels[:, :, 2]).any():
            raise _build_colour_error(self.path)
        table = np.arange(256, dtype=np.uint8)
        for grey_value in np.flatnonzero(
            np.bincount(grey_values.reshape(-1), minlength=256)
        ).tolist():
            if grey_value not in (BLACK, WHITE):
                table[grey_value] = WHITE if self.is_white(grey_value) else BLACK
        return table[pixels]

    def close(self) -> None:
        pass


def _build_colour_error(path: Path) -> UserError:
    message = "a tumour mask must be black and white or grey, but this file is in colour"
    help = "give SLIDE_mask.tif, not the slide itself"
    return fail("E1307", message, make_file_span(str(path)), help=help)


SUFFIXES = (*annotations.SUFFIXES, ".png", *PYRAMID_SUFFIXES)
MASK_SUFFIX = "_mask"
"""CAMELYON's suffix for the names of masks."""
OUTLINE_MPP = 4.0
"""Side in micrometres of the squares for rasterizing outlines."""


@dataclass(frozen=True)
class TruthFolder:
    """A folder with the ground truth of slides.

    Attributes:
        path: The folder.
        files: The truth file of each slide, by the slide's name.
        classes: The classes of areas that are tumour, and those that are not.
        allows_missing: Whether slides without a file are free of tumour.
    """

    path: Path
    files: dict[str, Path]
    classes: AreaClasses
    allows_missing: bool

    @property
    def has_class_names(self) -> bool:
        """Whether a file can name classes of areas, unlike a black and white mask."""
        return any(path.suffix.lower() != ".png" for path in self.files.values())

    def rasterize_tumour(self, slide_result: StoredResult) -> tuple[int, NDArray[np.bool_]]:
        """Return the width of squares in pixels, and whether each square of a slide is tumour.

        Raises:
            UserError: There is no file for this slide (E1314), it cannot be read (E1300, E1302 to
                E1304, E1306, E1314), is of another slide (E1307, E1320), or has an unknown class
                (E1315).
        """
        extent = slide_result.grid
        side = tissue_mask.choose_side(extent, slide_result.mpp, OUTLINE_MPP)
        path = self.files.get(slide_result.name)
        if path is None:
            if self.allows_missing:
                return side, np.zeros(tissue_mask.compute_shape(extent, side), np.bool_)
            message = f"this folder has no ground truth for slide {slide_result.name}"
            help = "add its file, or use --normal if slides without a file are free of tumour"
            raise fail("E1314", message, make_file_span(str(self.path)), help=help)
        if path.suffix.lower() in PYRAMID_SUFFIXES:
            pyramid_mask = read_pyramid(
                path, extent, side, lambda grey_value: self._is_tumour(path, grey_value)
            )
            return pyramid_mask.side, pyramid_mask.inside
        if path.suffix.lower() != ".png":
            return side, annotations.rasterize_tumour(path, extent, side, self.classes)
        # Reject other images: an image of the slide would be read as a mask of its bright areas.
        if not set(np.unique(confined_images.read_image(path)).tolist()) <= {0, 255}:
            message = "a tumour mask in PNG format must contain only black and white pixels"
            help = "use white (255) for tumour and black (0) for the rest of the slide"
            raise fail("E1307", message, make_file_span(str(path)), help=help)
        mask = mask_files.read_mask(path, extent, side)
        return mask.side, mask.inside

    def _is_tumour(self, path: Path, grey_value: int) -> bool:
        """Return whether a mask's value, interpreted as a class name, is tumour."""
        if str(grey_value) not in self.classes.tumour | self.classes.non_tumour:
            # In some masks 1 is tumour, in others it is normal tissue.
            message = f"it is unknown whether the value {grey_value} of this mask is tumour"
            help = (
                f"use --tumour {grey_value} if it is tumour, or --other {grey_value} if it is not"
            )
            raise fail("E1315", message, make_file_span(str(path)), help=help)
        return str(grey_value) in self.classes.tumour


def list_truth_folder(path: Path, classes: AreaClasses, *, allows_missing: bool) -> TruthFolder:
    """Return the ground truth files of a folder.

    Raises:
        UserError: There is no such folder, or a slide has two files (E1314).
    """
    try:
        paths = sorted(path.iterdir())
    except OSError as error:
        label = (error.strerror or str(error))[:200]
        message = "cannot read this folder of ground truth"
        help = "give a folder with SLIDE.geojson, SLIDE.xml, SLIDE.png or SLIDE_mask.tif"
        raise fail("E1314", message, make_file_span(str(path)), label=label, help=help) from None
    file_by_slide: dict[str, Path] = {}
    for child in paths:
        if child.suffix.lower() not in SUFFIXES or not child.is_file():
            continue
        is_tiff = child.suffix.lower() in PYRAMID_SUFFIXES
        if is_tiff and not child.stem.endswith(MASK_SUFFIX):
            continue  # the slide itself, if it is in the same folder
        name = child.stem.removesuffix(MASK_SUFFIX) if is_tiff else child.stem
        if name in file_by_slide:
            message = f"{file_by_slide[name].name} and {child.name} are both for slide {name}"
            raise fail("E1314", message, make_file_span(str(child)), help="remove one of them")
        file_by_slide[name] = child
    return TruthFolder(path, file_by_slide, classes, allows_missing)


def check_all_evaluated(truth: TruthFolder, slide_results: Sequence[StoredResult]) -> None:
    """Check that all slides with ground truth have results (E1321).

    Otherwise slides on which a run failed would be missing, and the figures would be too good.
    """
    evaluated_names = {slide_result.name for slide_result in slide_results}
    missing_names = sorted(set(truth.files) - evaluated_names)
    if missing_names:
        listed_names = ", ".join(missing_names[:4]) + (
            f" and {len(missing_names) - 4} more" if len(missing_names) > 4 else ""
        )
        message = f"slides with ground truth have no result: {listed_names}"
        help = "give their results too, or use --subset to evaluate only the given results"
        raise fail("E1321", message, make_file_span(str(truth.files[missing_names[0]])), help=help)
