"""Slides, a part at a time: what OpenSlide opens, and plain images.

Colours are those of the file, without its colour profile. What a scanner left out is white. A tile
whose bytes are damaged so that its decoder does not notice has wrong pixels, here as in any viewer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tcc.compiler.data import images
from tcc.compiler.slides import libraries, slide_properties
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SIDE = 1 << 20
"""Largest height or width of a slide, in pixels."""
DAMAGED = "copy the slide anew; `tcc slide run --skip-damaged` leaves out the patches there"
SMALLEST = 64
"""Pixels of a side below which a damaged square is not looked at in parts."""
CACHE_BYTES = 1 << 26
"""What OpenSlide keeps of decoded tiles."""


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One size at which a slide is stored; a pixel is `scale` pixels of level 0 wide."""

    width: int
    height: int
    scale: float


class SlideExtent(Protocol):
    """What has the size of a slide: one that is open, or its grid of patches."""

    @property
    def width(self) -> int:
        """Pixels of a row of level 0."""
        ...

    @property
    def height(self) -> int:
        """Pixels of a column of level 0."""
        ...


class PixelSource(Protocol):
    """What gives pixels of a slide."""

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> "NDArray[np.uint8]":
        """Return RGB pixels (height, width, 3) of a level, from a pixel of level 0 on.

        `size` is (width, height), in pixels of the level. Beyond the slide's edge all is white.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@dataclass(frozen=True)
class Slide:
    """An open slide: `mpp` is the side of a pixel of level 0 in micrometres, None if unknown.

    `skips` says that what is damaged is shown white.
    """

    path: Path
    levels: tuple[SlideLevel, ...]
    mpp: float | None
    source: PixelSource
    skips: bool = False

    @property
    def width(self) -> int:
        """Pixels of a row of level 0."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Pixels of a column of level 0."""
        return self.levels[0].height

    def level_for(self, scale: float) -> int:
        """Return the smallest level whose pixels are at most `scale` pixels of level 0 wide."""
        # Sizes of levels are rounded, so that their scales are a little off.
        fit = [n for n, level in enumerate(self.levels) if level.scale <= scale * 1.01]
        return max(fit, key=lambda n: self.levels[n].scale, default=0)

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> "NDArray[np.uint8]":
        """Return RGB pixels (height, width, 3) of a level, from a pixel of level 0 on.

        Args:
            level: Its number.
            left: The first column, in pixels of level 0.
            top: The first row, in pixels of level 0.
            size: (width, height), in pixels of the level.

        Raises:
            UserError: The pixels there are damaged (E1302).
        """
        return self.source.read(level, left, top, size)

    def shown(self, level: int, left: int, top: int, size: tuple[int, int]) -> "NDArray[np.uint8]":
        """Return the same for a picture, in which damaged squares may be white."""
        try:
            return self.read(level, left, top, size)
        except UserError as error:
            if not (self.skips and is_damage(error)):
                raise
        width, height = size
        made = np.full((height, width, 3), 255, np.uint8)
        if max(size) <= SMALLEST:
            return made
        scale, step = self.levels[level].scale, -(-max(size) // 2)
        for y in range(0, height, step):
            for x in range(0, width, step):
                at = (left + round(x * scale), top + round(y * scale))
                part = (min(step, width - x), min(step, height - y))
                made[y : y + step, x : x + step] = self.shown(level, *at, part)
        return made


@contextmanager
def opened(
    path: Path, mpp: float | None = None, *, skips: bool = False, what: str = "slide"
) -> Iterator[Slide]:
    """Open a slide.

    Args:
        path: The file.
        mpp: Micrometres of a pixel, for what the file says of it.
        skips: Show what is damaged white.
        what: What it is called in errors.

    Raises:
        UserError: It cannot be read (E1300), has no 8-bit samples (E1303) or is too large (E1304);
            as a plain image, as `images.read` has it.
        MissingTool: OpenSlide is not installed.
    """
    slide = replace(_open(path, mpp, what), skips=skips)
    try:
        if max(slide.width, slide.height) > MAX_SIDE:
            found = f"it is {slide.width} x {slide.height}"
            message = f"a slide has at most {MAX_SIDE:,} pixels a side"
            raise fail("E1304", message, whole_file(str(path)), label=found)
        yield slide
    finally:
        slide.source.close()


def resolution(slide: Slide) -> float:
    """Return the micrometres of a pixel of level 0.

    Raises:
        UserError: Neither the file nor anybody says so (E1301).
    """
    if slide.mpp is not None:
        return slide.mpp
    message = "this slide does not say how many micrometres a pixel is wide"
    help = "say it with --mpp: about 0.25 for scans at 40x, 0.5 at 20x"
    raise fail("E1301", message, whole_file(str(slide.path)), help=help)


def check_there(path: Path) -> None:
    """Refuse a slide that does not exist (E1300)."""
    if not path.is_file():
        where = whole_file(str(path))
        raise fail("E1300", "there is no such slide", where, help="name a slide's file")


def _open(path: Path, mpp: float | None, what: str) -> Slide:
    libraries.require(*libraries.PACKAGES)
    check_there(path)
    where = whole_file(str(path))
    library: Any = libraries.load("openslide")
    try:
        if library.OpenSlide.detect_format(str(path)) is None:
            slide_properties.check_whole(path, what)
            return _plain(path, mpp)
        slide_properties.check_depth(path, what)
        source = _OpenSlideFile(path, library)
    except (library.OpenSlideError, OSError) as error:
        label = str(error)[:200]
        raise fail("E1300", f"this {what} cannot be read", where, label=label) from None
    file = source.file
    try:
        slide_properties.check_tiles(path, file.properties, file.level_count)
    except UserError:
        source.close()
        raise
    sizes = zip(file.level_dimensions, file.level_downsamples, strict=True)
    levels = tuple(SlideLevel(width, height, float(scale)) for (width, height), scale in sizes)
    found = mpp or slide_properties.mpp(file.properties)
    return Slide(path, levels, found, source)


def _plain(path: Path, mpp: float | None) -> Slide:
    pixels = images.read(path)
    height, width, _ = pixels.shape
    return Slide(path, (SlideLevel(width, height, 1.0),), mpp, _PlainImage(pixels))


def is_damage(error: UserError) -> bool:
    """Whether an error is that of pixels that cannot be decoded."""
    return error.diagnostics[0].code == "E1302"


class _OpenSlideFile:
    def __init__(self, path: Path, library: Any) -> None:
        self.path, self.library = path, library
        self.file = self._opened()

    def _opened(self) -> Any:
        file = self.library.OpenSlide(str(self.path))
        file.set_cache(self.library.OpenSlideCache(CACHE_BYTES))
        return file

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> "NDArray[np.uint8]":
        try:
            found = np.asarray(self.file.read_region((left, top), level, size))
        except self.library.OpenSlideError as error:
            self.file.close()
            self.file = self._opened()  # it reads nothing more of a file after an error
            self._look_closer(level, left, top, size)
            message = f"the slide is damaged near column {left}, row {top} of level 0"
            where, label = whole_file(str(self.path)), str(error)[:200]
            raise fail("E1302", message, where, label=label, help=DAMAGED) from None
        colours, alpha = found[:, :, :3], found[:, :, 3:]
        if alpha.min() == 255:
            made = np.empty(colours.shape, np.uint8)
            for channel in range(3):  # a sixth of the time that three of four bytes take
                made[:, :, channel] = found[:, :, channel]
            return made
        if alpha.max() == 0:  # the tiles that a scanner left out
            return np.full(colours.shape, 255, np.uint8)
        over = colours * alpha.astype(np.uint32) + 255 * (255 - alpha.astype(np.uint32))
        return np.asarray((over + 127) // 255, np.uint8)

    def _look_closer(self, level: int, left: int, top: int, size: tuple[int, int]) -> None:
        """Read a quarter after the other, so that the error names the first that is damaged."""
        if max(size) <= SMALLEST:
            return
        width, height = (-(-n // 2) for n in size)
        scale = self.file.level_downsamples[level]
        for y in (0, height):
            for x in (0, width):
                self.read(level, left + round(x * scale), top + round(y * scale), (width, height))

    def close(self) -> None:
        self.file.close()


@dataclass(frozen=True)
class _PlainImage:
    pixels: "NDArray[np.uint8]"

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> "NDArray[np.uint8]":  # noqa: ARG002 - there is one
        width, height = size
        made = np.full((height, width, 3), 255, np.uint8)
        shown = self.pixels[top : top + height, left : left + width]
        made[: shown.shape[0], : shown.shape[1]] = shown
        return made

    def close(self) -> None:
        pass
