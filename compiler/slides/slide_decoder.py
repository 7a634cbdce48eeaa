"""Slide decoder for a sandboxed process: opens a slide and reads regions with OpenSlide.

Plain images are slides with one level.
"""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import images
from tcc.compiler.slides import slide_file
from tcc.compiler.slides.slide_file import DAMAGED_HELP, MIN_DAMAGE_SIDE, Slide, SlideLevel
from tcc.compiler.support import regular_files
from tcc.compiler.support.confined_process import Reply
from tcc.compiler.support.decimal_numbers import parse_float, parse_int
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_TILE = 1 << 26
"""Maximum number of pixels in a tile, because reading any part decodes the complete tile."""
MIN_MPP, MAX_MPP = 0.01, 100.0
"""Plausible range of micrometres per pixel for a microscope."""
TIFF_LAYOUTS = {
    (mark, version): form
    for mark in (b"II", b"MM")
    for version, form in ((42, (4, 2, 12, 4)), (43, (8, 8, 20, 8)))
}
"""Layout of TIFF and BigTIFF, by byte order and version: the position of the first page's offset,
and the sizes in bytes of a page's field count, of a field, and of a page offset."""
MAX_PAGES = 1 << 16
"""Maximum number of pages that are checked."""
MAX_ASPECT_DIFFERENCE = 0.02
"""Maximum relative difference of a pixel's width and height."""


def check_depth(path: Path, file_kind: str) -> None:
    """Reject samples that do not have 8 bits, because OpenSlide truncates them silently (E1303)."""
    library: Any = slide_file.load_module("tifffile")
    depth: Any = 8
    with suppress(Exception), library.TiffFile(path) as file:  # most formats are not TIFF
        depth = file.pages[0].bitspersample
    if depth != 8:
        bits = "1 bit" if depth == 1 else f"{depth} bits"
        message = f"this {file_kind} has samples of {bits}, but only 8 bits are supported"
        help = "convert it to 8 bits per sample and choose the black and white values"
        raise fail("E1303", message, make_file_span(str(path)), help=help)


def check_complete(path: Path, file_kind: str) -> None:
    """Reject a TIFF file that ends before the start of its last page (E1300)."""
    with regular_files.open_file(path) as file:
        size = file.seek(0, 2)
        missing_offset = _find_missing_page(file, size)
    if missing_offset is not None:
        message = f"the file of this {file_kind} is truncated"
        label = f"it has {size:,} bytes, but a page is at byte {missing_offset:,}"
        source = make_file_span(str(path))
        raise fail("E1300", message, source, label=label, help="copy or export it again")


def _find_missing_page(file: BinaryIO, size: int) -> int | None:
    """Return the offset of the first page outside a TIFF or BigTIFF file, or None."""
    file.seek(0)
    header = file.read(16).ljust(16, b"\0")
    order: Literal["little", "big"] = "little" if header[:2] == b"II" else "big"
    layout = TIFF_LAYOUTS.get((header[:2], int.from_bytes(header[2:4], order)))
    if layout is None:
        return None
    first_offset, count_bytes, entry_bytes, link_bytes = layout
    page_offset, visited = (
        int.from_bytes(header[first_offset : first_offset + link_bytes], order),
        set[int](),
    )
    while page_offset and page_offset not in visited and len(visited) < MAX_PAGES:
        visited.add(page_offset)
        page_end = page_offset + count_bytes
        if page_end <= size:
            file.seek(page_offset)
            page_end += int.from_bytes(file.read(count_bytes), order) * entry_bytes + link_bytes
        if page_end > size:
            return page_offset
        file.seek(page_end - link_bytes)
        page_offset = int.from_bytes(file.read(link_bytes), order)
    return None


def check_tiles(path: Path, properties: Mapping[str, str], levels: int) -> None:
    """Reject large tiles (E1304), because their memory is allocated before they are decoded."""
    for level in range(levels):
        names = (f"openslide.level[{level}].tile-{side}" for side in ("width", "height"))
        pixels = math.prod(parse_int(properties[name]) for name in names if name in properties)
        if pixels > MAX_TILE:
            message = f"a tile of this slide has {pixels:,} pixels, the limit is {MAX_TILE:,}"
            help = "convert the slide to smaller tiles, such as 512 x 512 pixels"
            raise fail("E1304", message, make_file_span(str(path)), help=help)


def read_mpp(properties: Mapping[str, str]) -> float | None:
    """Return the resolution from a file's properties; None if it is missing or implausible."""
    resolutions = []
    for name in ("openslide.mpp-x", "openslide.mpp-y"):
        with suppress(KeyError, ValueError):
            resolutions.append(parse_float(properties[name]))
    if len(resolutions) < 2:
        return None
    if (
        min(resolutions) < MIN_MPP
        or max(resolutions) > MAX_MPP
        or max(resolutions) > min(resolutions) * (1 + MAX_ASPECT_DIFFERENCE)
    ):
        return None
    return sum(resolutions) / 2


MAX_CACHE_BYTES = 1 << 26
"""Size of OpenSlide's cache of decoded tiles in bytes."""
_OPEN_SLIDES: list[Slide] = []
"""The open slide of this process, if any."""


def answer(request: dict[str, Any], payload: bytes) -> Reply:  # noqa: ARG001 - a slide is a path
    """Open a slide and return its levels, read a region of the open slide, or close it.

    Raises:
        UserError: As `slide_file.open_slide` and `Slide.read_pixels`.
    """
    match request["do"]:
        case "open":
            _release_slides()
            os.chdir(request["folder"])
            slide = open_slide(Path(request["path"]), request["mpp"], request["what"])
            _OPEN_SLIDES.append(slide)
            levels = [(level.width, level.height, level.scale) for level in slide.levels]
            return {"levels": levels, "mpp": slide.mpp}, b""
        case "read":
            width, height = request["size"]
            location = request["level"], request["left"], request["top"]
            pixels = _OPEN_SLIDES[0].source.read_pixels(*location, (width, height))
            return {}, np.ascontiguousarray(pixels).data
        case _:
            _release_slides()
            return {}, b""


def _release_slides() -> None:
    while _OPEN_SLIDES:
        _OPEN_SLIDES.pop().source.close()


def open_slide(path: Path, mpp: float | None, file_kind: str) -> Slide:
    """Open a slide in this process; errors are those of `slide_file.open_slide`."""
    location = make_file_span(str(path))
    library: Any = slide_file.load_module("openslide")
    try:
        if library.OpenSlide.detect_format(str(path)) is None:
            check_complete(path, file_kind)
            return _open_image(path, mpp)
        check_depth(path, file_kind)
        source = _OpenSlideFile(path, library)
    except (library.OpenSlideError, OSError) as error:
        label = str(error)[:200]
        message, help = f"this {file_kind} cannot be read", "copy or export it again"
        raise fail("E1300", message, location, label=label, help=help) from None
    file = source.file
    try:
        check_tiles(path, file.properties, file.level_count)
    except UserError:
        source.close()
        raise
    sizes = zip(file.level_dimensions, file.level_downsamples, strict=True)
    levels = tuple(SlideLevel(width, height, float(scale)) for (width, height), scale in sizes)
    slide_mpp = mpp or read_mpp(file.properties)
    return Slide(path, levels, slide_mpp, source)


def _open_image(path: Path, mpp: float | None) -> Slide:
    pixels = images.read_image(path)
    height, width, _ = pixels.shape
    return Slide(path, (SlideLevel(width, height, 1.0),), mpp, _PlainImage(pixels))


class _OpenSlideFile:
    def __init__(self, path: Path, library: Any) -> None:
        self.path, self.library = path, library
        self.file = self._open_file()

    def _open_file(self) -> Any:
        file = self.library.OpenSlide(str(self.path))
        file.set_cache(self.library.OpenSlideCache(MAX_CACHE_BYTES))
        return file

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        try:
            rgba = np.asarray(self.file.read_region((left, top), level, size))
        except self.library.OpenSlideError as error:
            self.file.close()
            self.file = self._open_file()  # OpenSlide cannot read from a file after an error
            self._locate_damage(level, left, top, size)
            message = f"the slide is damaged near column {left}, row {top} of level 0"
            source, label = make_file_span(str(self.path)), str(error)[:200]
            raise fail("E1302", message, source, label=label, help=DAMAGED_HELP) from None
        colours, alpha = rgba[:, :, :3], rgba[:, :, 3:]
        if alpha.min() == 255:
            rgb = np.empty(colours.shape, np.uint8)
            for channel in range(3):  # takes a sixth of the time of copying three of four bytes
                rgb[:, :, channel] = rgba[:, :, channel]
            return rgb
        if alpha.max() == 0:  # tiles that the scanner omitted
            return np.full(colours.shape, 255, np.uint8)
        blended = colours * alpha.astype(np.uint32) + 255 * (255 - alpha.astype(np.uint32))
        return np.asarray((blended + 127) // 255, np.uint8)

    def _locate_damage(self, level: int, left: int, top: int, size: tuple[int, int]) -> None:
        """Read the quarters in order, so that the error names the first damaged one."""
        if max(size) <= MIN_DAMAGE_SIDE:
            return
        width, height = (-(-n // 2) for n in size)
        scale = self.file.level_downsamples[level]
        for y in (0, height):
            for x in (0, width):
                self.read_pixels(
                    level, left + round(x * scale), top + round(y * scale), (width, height)
                )

    def close(self) -> None:
        self.file.close()


@dataclass(frozen=True)
class _PlainImage:
    pixels: NDArray[np.uint8]

    def read_pixels(
        self,
        level: int,  # noqa: ARG002 - there is only one
        left: int,
        top: int,
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        width, height = size
        canvas = np.full((height, width, 3), 255, np.uint8)
        crop = self.pixels[top : top + height, left : left + width]
        canvas[: crop.shape[0], : crop.shape[1]] = crop
        return canvas

    def close(self) -> None:
        pass
