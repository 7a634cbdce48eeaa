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
from tcc.compiler.slides.slide_file import PixelSource, Slide, SlideExtent, SlideLevel, block_means
from tcc.compiler.slides.stored_result import StoredResult
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.progress import silent

Pixels = NDArray[np.uint8]

PYRAMID_ENDINGS = (".tif", ".tiff")
BLACK, WHITE = 0, 255
HALF = 128
"""The mean from which on a square is white by half."""


def read_pyramid(
    path: Path, slide: SlideExtent, side: int, meant: Callable[[int], bool]
) -> TissueMask:
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

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> Pixels:  # noqa: ARG002 - there is one
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


ENDINGS = (*annotations.ENDINGS, ".png", *PYRAMID_ENDINGS)
MASK = "_mask"
"""What CAMELYON puts behind a slide's name for that of its mask."""
FINE = 4.0
"""Micrometres of the squares that outlines become."""


@dataclass(frozen=True)
class TruthFolder:
    """A folder with the tumours of slides: by a slide's name the one file that has them.

    `normal` says that slides without a file are free of tumour.
    """

    path: Path
    files: dict[str, Path]
    classes: AreaClasses
    normal: bool

    @property
    def annotated(self) -> bool:
        """Whether some file names classes of areas, as a black and white mask does not."""
        return any(path.suffix.lower() != ".png" for path in self.files.values())

    def tumour(self, result: StoredResult) -> tuple[int, NDArray[np.bool_]]:
        """Return which squares of a slide are tumour, and how many pixels wide they are.

        Raises:
            UserError: There is no file of this slide (E1314), it cannot be read (E1300, E1302 to
                E1304, E1306, E1314), is of another slide (E1307, E1320), or has a class that is not
                known (E1315).
        """
        extent = result.grid
        side = tissue_mask.side_for(extent, result.mpp, FINE)
        path = self.files.get(result.name)
        if path is None:
            if self.normal:
                return side, np.zeros(tissue_mask.shape_at(extent, side), np.bool_)
            message = f"nothing here says what of slide {result.name} is tumour"
            help = "with --normal slides without a file are free of tumour"
            raise fail("E1314", message, whole_file(str(self.path)), help=help)
        if path.suffix.lower() in PYRAMID_ENDINGS:
            found = read_pyramid(path, extent, side, lambda value: self._meant(path, value))
            return found.side, found.inside
        if path.suffix.lower() != ".png":
            return side, annotations.tumour(path, extent, side, self.classes)
        # A picture of the slide itself would be taken for a mask, of whatever is bright.
        if not set(np.unique(confined_images.read(path)).tolist()) <= {0, 255}:
            message = "a mask of a slide's tumours is black and white alone"
            help = "white is tumour; `tcc slide mask` writes masks of that form"
            raise fail("E1307", message, whole_file(str(path)), help=help)
        mask = mask_files.read(path, extent, side)
        return mask.side, mask.inside

    def _meant(self, path: Path, value: int) -> bool:
        """Return whether a mask's value, taken for the name of a class, is tumour."""
        if str(value) not in self.classes.tumour | self.classes.other:
            # In some masks 1 is tumour, in others it is normal tissue.
            message = f"is the value {value} of this mask tumour?"
            help = f"say so with --tumour {value}, or with --other {value} that it is not"
            raise fail("E1315", message, whole_file(str(path)), help=help)
        return str(value) in self.classes.tumour


def folder(path: Path, classes: AreaClasses, *, normal: bool) -> TruthFolder:
    """Return the files of a folder that say what of slides is tumour.

    Raises:
        UserError: There is no such folder, or two files are of one slide (E1314).
    """
    try:
        names = sorted(path.iterdir())
    except OSError as error:
        label = (error.strerror or str(error))[:200]
        message = "this is no folder of slides' tumours"
        help = "name one with SLIDE.geojson, SLIDE.xml, SLIDE.png or SLIDE_mask.tif"
        raise fail("E1314", message, whole_file(str(path)), label=label, help=help) from None
    found: dict[str, Path] = {}
    for each in names:
        if each.suffix.lower() not in ENDINGS or not each.is_file():
            continue
        tiff = each.suffix.lower() in PYRAMID_ENDINGS
        if tiff and not each.stem.endswith(MASK):
            continue  # the slide itself, where truth lies beside it
        name = each.stem.removesuffix(MASK) if tiff else each.stem
        if name in found:
            message = f"{found[name].name} and {each.name} are both of slide {name}"
            raise fail("E1314", message, whole_file(str(each)), help="leave one of them there")
        found[name] = each
    return TruthFolder(path, found, classes, normal)


def check_all(truth: TruthFolder, results: Sequence[StoredResult]) -> None:
    """Refuse results that leave out slides whose truth is known (E1321).

    Those on which a run failed would be left out, and the figures be of the easier ones.
    """
    there = {one.name for one in results}
    absent = sorted(set(truth.files) - there)
    if absent:
        some = ", ".join(absent[:4]) + (f" and {len(absent) - 4} more" if len(absent) > 4 else "")
        message = f"truth is there of slides that have no result: {some}"
        help = "name their results too; --subset judges by the others alone"
        raise fail("E1321", message, whole_file(str(truth.files[absent[0]])), help=help)
