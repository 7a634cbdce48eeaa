"""What is known of slides, in a folder: a file of each, by which results of them are judged.

Masks may be as large as their slides, such as CAMELYON's: of a TIFF pyramid one level is read.
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
"""The mean from which on a square is white by half."""


def read_pyramid(
    path: Path, slide: SlideExtent, side: int, is_white: Callable[[int], bool]
) -> TissueMask:
    """Return which squares of a slide a mask calls white, by half or more of each.

    Args:
        path: A TIFF file, a grey value for each pixel of the slide or for squares of them.
        slide: The slide.
        side: About how many pixels of level 0 a square is wide, at most.
        is_white: Whether a value between black and white stands for white; it may refuse.

    Raises:
        UserError: It cannot be read (E1300, E1302, E1303, E1304), is not of this slide, or is in
            colour (E1307).
    """
    with slide_file.open_slide(path, file_kind="mask") as mask:
        mask_side = tissue_mask.compute_min_side(slide, mask.height, mask.width)
        if tissue_mask.compute_shape(slide, mask_side) != (mask.height, mask.width):
            message = f"this mask of {mask.width} x {mask.height} pixels is not of this slide"
            label = f"the slide is {slide.width} x {slide.height}"
            help = "a mask has a pixel for each of the slide's, or for each square of them"
            raise fail("E1307", message, make_file_span(str(path)), label=label, help=help)
        number, scale = _find_level(mask, max(1, side // mask_side))
        level = mask.levels[number]
        source = _MaskLevel(path, mask.source, number, scale, is_white)
        slide_mask = Slide(path, (SlideLevel(level.width, level.height, 1.0),), None, source)
        step = max(1, side // (mask_side * scale))
        means = compute_block_means(slide_mask, step, silent)[:, :, 0]
    return TissueMask(mask_side * scale * step, means >= MIN_WHITE_MEAN)


def _find_level(mask: Slide, max_scale: int) -> tuple[int, int]:
    """Return the smallest level with square pixels up to `max_scale` wide, and their width.

    Of others OpenSlide mixes neighbours, which for a mask are other values.
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
    """A level of a mask as a slide of its own, which is white where the mask says so."""

    path: Path
    source: PixelSource
    number: int
    scale: int
    is_white: Callable[[int], bool]

    def read_pixels(self, level: int, left: int, top: int, size: tuple[int, int]) -> Pixels:  # noqa: ARG002 - there is one
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
    message = "a mask of a slide's tumours is black and white, or grey, and this is in colour"
    help = "a slide itself is none; give SLIDE_mask.tif"
    return fail("E1307", message, make_file_span(str(path)), help=help)


SUFFIXES = (*annotations.SUFFIXES, ".png", *PYRAMID_SUFFIXES)
MASK_SUFFIX = "_mask"
"""What CAMELYON puts behind a slide's name for that of its mask."""
OUTLINE_MPP = 4.0
"""Micrometres of the squares that outlines become."""


@dataclass(frozen=True)
class TruthFolder:
    """A folder with the tumours of slides: by a slide's name the one file that has them.

    `allows_missing` says that slides without a file are free of tumour.
    """

    path: Path
    files: dict[str, Path]
    classes: AreaClasses
    allows_missing: bool

    @property
    def has_class_names(self) -> bool:
        """Whether some file names classes of areas, as a black and white mask does not."""
        return any(path.suffix.lower() != ".png" for path in self.files.values())

    def rasterize_tumour(self, slide_result: StoredResult) -> tuple[int, NDArray[np.bool_]]:
        """Return which squares of a slide are tumour, and how many pixels wide they are.

        Raises:
            UserError: There is no file of this slide (E1314), it cannot be read (E1300, E1302 to
                E1304, E1306, E1314), is of another slide (E1307, E1320), or has a class that is not
                known (E1315).
        """
        extent = slide_result.grid
        side = tissue_mask.choose_side(extent, slide_result.mpp, OUTLINE_MPP)
        path = self.files.get(slide_result.name)
        if path is None:
            if self.allows_missing:
                return side, np.zeros(tissue_mask.compute_shape(extent, side), np.bool_)
            message = f"nothing here says what of slide {slide_result.name} is tumour"
            help = "with --normal slides without a file are free of tumour"
            raise fail("E1314", message, make_file_span(str(self.path)), help=help)
        if path.suffix.lower() in PYRAMID_SUFFIXES:
            pyramid_mask = read_pyramid(
                path, extent, side, lambda grey_value: self._is_tumour(path, grey_value)
            )
            return pyramid_mask.side, pyramid_mask.inside
        if path.suffix.lower() != ".png":
            return side, annotations.rasterize_tumour(path, extent, side, self.classes)
        # A picture of the slide itself would be taken for a mask, of whatever is bright.
        if not set(np.unique(confined_images.read_image(path)).tolist()) <= {0, 255}:
            message = "a mask of a slide's tumours is black and white alone"
            help = "white is tumour; `tcc slide mask` writes masks of that form"
            raise fail("E1307", message, make_file_span(str(path)), help=help)
        mask = mask_files.read_mask(path, extent, side)
        return mask.side, mask.inside

    def _is_tumour(self, path: Path, grey_value: int) -> bool:
        """Return whether a mask's value, taken for the name of a class, is tumour."""
        if str(grey_value) not in self.classes.tumour | self.classes.non_tumour:
            # In some masks 1 is tumour, in others it is normal tissue.
            message = f"is the value {grey_value} of this mask tumour?"
            help = f"say so with --tumour {grey_value}, or with --other {grey_value} that it is not"
            raise fail("E1315", message, make_file_span(str(path)), help=help)
        return str(grey_value) in self.classes.tumour


def list_truth_folder(path: Path, classes: AreaClasses, *, allows_missing: bool) -> TruthFolder:
    """Return the files of a folder that say what of slides is tumour.

    Raises:
        UserError: There is no such folder, or two files are of one slide (E1314).
    """
    try:
        paths = sorted(path.iterdir())
    except OSError as error:
        label = (error.strerror or str(error))[:200]
        message = "this is no folder of slides' tumours"
        help = "name one with SLIDE.geojson, SLIDE.xml, SLIDE.png or SLIDE_mask.tif"
        raise fail("E1314", message, make_file_span(str(path)), label=label, help=help) from None
    file_by_slide: dict[str, Path] = {}
    for child in paths:
        if child.suffix.lower() not in SUFFIXES or not child.is_file():
            continue
        is_tiff = child.suffix.lower() in PYRAMID_SUFFIXES
        if is_tiff and not child.stem.endswith(MASK_SUFFIX):
            continue  # the slide itself, where truth lies beside it
        name = child.stem.removesuffix(MASK_SUFFIX) if is_tiff else child.stem
        if name in file_by_slide:
            message = f"{file_by_slide[name].name} and {child.name} are both of slide {name}"
            raise fail("E1314", message, make_file_span(str(child)), help="leave one of them there")
        file_by_slide[name] = child
    return TruthFolder(path, file_by_slide, classes, allows_missing)


def check_all_evaluated(truth: TruthFolder, slide_results: Sequence[StoredResult]) -> None:
    """Refuse results that leave out slides whose truth is known (E1321).

    Those on which a run failed would be left out, and the figures be of the easier ones.
    """
    evaluated_names = {slide_result.name for slide_result in slide_results}
    missing_names = sorted(set(truth.files) - evaluated_names)
    if missing_names:
        listed_names = ", ".join(missing_names[:4]) + (
            f" and {len(missing_names) - 4} more" if len(missing_names) > 4 else ""
        )
        message = f"truth is there of slides that have no result: {listed_names}"
        help = "name their results too; --subset judges by the others alone"
        raise fail("E1321", message, make_file_span(str(truth.files[missing_names[0]])), help=help)
