"""What a confined process does with a slide: it opens one, and reads parts of it by OpenSlide.

Plain images are slides of one level.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.data import images
from tcc.compiler.slides import libraries, slide_properties
from tcc.compiler.slides.slide_file import DAMAGED, SMALLEST, Slide, SlideLevel
from tcc.compiler.support.confined_process import Reply
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE_BYTES = 1 << 26
"""What OpenSlide keeps of decoded tiles."""
_OPEN: list[Slide] = []
"""The slide that is open in this process; none or one."""


def answer(request: dict[str, Any], payload: bytes) -> Reply:  # noqa: ARG001 - a slide is a path
    """Open a slide and return its levels, read a part of the one that is open, or close it.

    Raises:
        UserError: As `slide_file.opened` and `Slide.read`.
    """
    match request["do"]:
        case "open":
            _close()
            os.chdir(request["folder"])
            slide = open_slide(Path(request["path"]), request["mpp"], request["what"])
            _OPEN.append(slide)
            levels = [(level.width, level.height, level.scale) for level in slide.levels]
            return {"levels": levels, "mpp": slide.mpp}, b""
        case "read":
            width, height = request["size"]
            place = request["level"], request["left"], request["top"]
            pixels = _OPEN[0].source.read(*place, (width, height))
            return {}, np.ascontiguousarray(pixels).data
        case _:
            _close()
            return {}, b""


def _close() -> None:
    while _OPEN:
        _OPEN.pop().source.close()


def open_slide(path: Path, mpp: float | None, what: str) -> Slide:
    """Open a slide in this process; errors are those of `slide_file.opened`."""
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
