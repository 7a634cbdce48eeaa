"""Slides, a part at a time: what OpenSlide opens, and plain images.

Colours are those of the file, without its colour profile. What a scanner left out is white. A tile
whose bytes are damaged so that its decoder does not notice has wrong pixels, here as in any viewer.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.support.confined_process import (
    ConfinedProcess,
    DecoderPool,
    Reply,
    explain_exit,
    make_decoder_error,
)
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.progress import Progress

Indices = NDArray[np.int64]

PACKAGES = {"openslide": "openslide-python", "scipy": "scipy", "tifffile": "tifffile"}
"""Packages by their modules."""
PURPOSE = "work with slides"


def require_modules(*modules: str) -> None:
    """Refuse to go on without some of them.

    Raises:
        MissingTool: One is not here.
    """
    for name in modules:
        if find_spec(name) is None:
            raise MissingTool(Tool(PACKAGES[name], PURPOSE, None))


def load_module(module: str) -> Any:
    """Return a module of one of them.

    Raises:
        MissingTool: It is not here.
    """
    require_modules(module.partition(".")[0])
    return import_module(module)


MAX_SIDE = 1 << 20
"""Largest height or width of a slide, in pixels."""
DAMAGED_HELP = "copy the slide anew; `tcc slide run --skip-damaged` leaves out the patches there"
MIN_DAMAGE_SIDE = 64
"""Pixels of a side below which a damaged square is not looked at in parts."""
MAX_SECONDS = 300.0
"""How long a part of a slide may take: a block of the slowest format takes some ten."""
DECODERS = DecoderPool("tcc.compiler.slides.slide_decoder", 4 << 30, "slide")
"""Processes that read slides: each keeps OpenSlide's tiles and the part that is read."""


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

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
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

    `skips_damaged` says that what is damaged is shown white.
    """

    path: Path
    levels: tuple[SlideLevel, ...]
    mpp: float | None
    source: PixelSource
    skips_damaged: bool = False

    @property
    def width(self) -> int:
        """Pixels of a row of level 0."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Pixels of a column of level 0."""
        return self.levels[0].height

    def find_level(self, scale: float) -> int:
        """Return the smallest level whose pixels are at most `scale` pixels of level 0 wide."""
        # Sizes of levels are rounded, so that their scales are a little off.
        fine_levels = [n for n, level in enumerate(self.levels) if level.scale <= scale * 1.01]
        return max(fine_levels, key=lambda n: self.levels[n].scale, default=0)

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return RGB pixels (height, width, 3) of a level, from a pixel of level 0 on.

        Args:
            level: Its number.
            left: The first column, in pixels of level 0.
            top: The first row, in pixels of level 0.
            size: (width, height), in pixels of the level.

        Raises:
            UserError: The pixels there are damaged (E1302).
        """
        return self.source.read_pixels(level, left, top, size)

    def read_for_display(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return the same for a picture, in which damaged squares may be white."""
        try:
            return self.read_pixels(level, left, top, size)
        except UserError as error:
            if not (self.skips_damaged and is_damage(error)):
                raise
        width, height = size
        pixels = np.full((height, width, 3), 255, np.uint8)
        if max(size) <= MIN_DAMAGE_SIDE:
            return pixels
        scale, step = self.levels[level].scale, -(-max(size) // 2)
        for y in range(0, height, step):
            for x in range(0, width, step):
                corner = (left + round(x * scale), top + round(y * scale))
                part_size = (min(step, width - x), min(step, height - y))
                pixels[y : y + step, x : x + step] = self.read_for_display(
                    level, *corner, part_size
                )
        return pixels


@contextmanager
def open_slide(
    path: Path, mpp: float | None = None, *, skips_damaged: bool = False, file_kind: str = "slide"
) -> Iterator[Slide]:
    """Open a slide.

    Args:
        path: The file.
        mpp: Micrometres of a pixel, for what the file says of it.
        skips_damaged: Show what is damaged white.
        file_kind: What it is called in errors.

    Raises:
        UserError: It cannot be read (E1300), has no 8-bit samples (E1303) or is too large (E1304);
            as a plain image, as `images.read` has it.
        MissingTool: OpenSlide is not installed.
    """
    require_modules(*PACKAGES)
    check_exists(path)
    with DECODERS.use_process(str(path)) as decoder:
        source = _ConfinedSlide(path, decoder)
        try:
            slide = replace(source.open(mpp, file_kind), skips_damaged=skips_damaged)
            if max(slide.width, slide.height) > MAX_SIDE:
                label = f"it is {slide.width} x {slide.height}"
                message = f"a slide has at most {MAX_SIDE:,} pixels a side"
                raise fail("E1304", message, make_file_span(str(path)), label=label)
            yield slide
        finally:
            source.close()


def get_resolution(slide: Slide) -> float:
    """Return the micrometres of a pixel of level 0.

    Raises:
        UserError: Neither the file nor anybody says so (E1301).
    """
    if slide.mpp is not None:
        return slide.mpp
    message = "this slide does not say how many micrometres a pixel is wide"
    help = "say it with --mpp: about 0.25 for scans at 40x, 0.5 at 20x"
    raise fail("E1301", message, make_file_span(str(slide.path)), help=help)


def check_exists(path: Path) -> None:
    """Refuse a slide that does not exist (E1300)."""
    if not path.is_file():
        source = make_file_span(str(path))
        raise fail("E1300", "there is no such slide", source, help="name a slide's file")


def is_damage(error: UserError) -> bool:
    """Whether an error is that of pixels that cannot be decoded."""
    return error.diagnostics[0].code == "E1302"


class _ConfinedSlide:
    """A slide that a confined process has open; threads may read it in turn."""

    def __init__(self, path: Path, decoder: ConfinedProcess) -> None:
        self.path, self.decoder, self._lock = path, decoder, threading.Lock()

    def open(self, mpp: float | None, file_kind: str) -> Slide:
        """Return the slide as the process describes it."""
        request = {"do": "open", "path": str(self.path), "folder": os.getcwd(), "mpp": mpp}
        reply, _ = self._send_request(request | {"what": file_kind}, 0)
        try:
            levels = tuple(_read_level(level) for level in reply["levels"])
            slide_mpp = None if reply["mpp"] is None else _check_scale(reply["mpp"])
        except (KeyError, TypeError, ValueError):
            levels, slide_mpp = (), None
        if not levels:
            raise make_decoder_error(str(self.path), DECODERS.noun, "it answers what is no slide")
        return Slide(self.path, levels, slide_mpp, self)

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        width, height = size
        request = {"do": "read", "level": level, "left": left, "top": top, "size": size}
        pixels = self._send_request(request, 3 * width * height)[1]
        if len(pixels) != 3 * width * height:
            raise make_decoder_error(str(self.path), DECODERS.noun, "it answers what are no pixels")
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        if not self.decoder.is_closed:
            self._send_request({"do": "close"}, 0)

    def _send_request(self, request: dict[str, Any], max_bytes: int) -> Reply:
        with self._lock, explain_exit(str(self.path), DECODERS.noun):
            return self.decoder.send_request(request, b"", MAX_SECONDS, max_bytes)


def _read_level(description: Any) -> SlideLevel:
    width, height, scale = description
    if not all(type(side) is int and 0 < side < 1 << 40 for side in (width, height)):
        raise ValueError("a level has no size")
    return SlideLevel(width, height, _check_scale(scale))


def _check_scale(number: Any) -> float:
    if type(number) not in (int, float) or not (isfinite(number) and number > 0):
        raise ValueError("a length is none")
    return float(number)


READ_SIDE = 2048
"""Pixels of a level, a side, that are read at a time."""
MAX_LEVEL_PIXELS = 1 << 36
"""Most pixels of a level that are read: an hour's work, and no scanner's."""


def compute_block_means(slide: Slide, side: int, progress: Progress) -> NDArray[np.uint8]:
    """Return the mean colour of squares of `side` pixels of level 0, uint8 (rows, columns, 3).

    They are computed from the smallest level that has a pixel or more for each; the last row and
    column are of what is left of the slide there.

    Raises:
        UserError: The slide is damaged (E1302), or has no level that is small enough (E1304).
    """
    number = slide.find_level(side)
    level = slide.levels[number]
    if level.width * level.height > MAX_LEVEL_PIXELS:
        message = (
            f"{level.width * level.height:,} pixels would have to be read, at most "
            f"{MAX_LEVEL_PIXELS:,} are"
        )
        help = "write it anew with smaller levels"
        raise fail("E1304", message, make_file_span(str(slide.path)), help=help)
    rows = _compute_edges(slide.height, side, level.height)
    columns = _compute_edges(slide.width, side, level.width)
    means = np.empty((len(rows) - 1, len(columns) - 1, 3), np.uint8)
    step = max(1, int(READ_SIDE * level.scale) // side)
    for first_row in range(0, len(means), step):
        progress("tissue", first_row, len(means))
        down = rows[first_row : first_row + step + 1]
        for first_column in range(0, means.shape[1], step):
            across = columns[first_column : first_column + step + 1]
            size = (int(across[-1] - across[0]) or 1, int(down[-1] - down[0]) or 1)
            corner = (round(int(across[0]) * level.scale), round(int(down[0]) * level.scale))
            pixels = slide.read_for_display(number, *corner, size)
            means[first_row : first_row + step, first_column : first_column + step] = (
                _compute_means(pixels, down, across)
            )
    return means


def _compute_edges(pixels: int, side: int, level_pixels: int) -> Indices:
    """Return where squares begin in a level of `level_pixels` pixels, and where they end."""
    count = -(-pixels // side)
    positions = np.minimum(np.arange(count + 1, dtype=np.int64) * side, pixels)
    max_edges = np.r_[np.full(count, level_pixels - 1), level_pixels]
    edges: Indices = np.minimum(positions * level_pixels // pixels, max_edges)
    return edges


def _compute_means(pixels: NDArray[np.uint8], down: Indices, across: Indices) -> NDArray[np.uint8]:
    """Return the rounded mean of each square; one that is less than a pixel has that pixel."""
    heights, widths = (np.maximum(np.diff(edges), 1) for edges in (down, across))
    tops, lefts = (
        np.minimum(edges[:-1] - edges[0], length - 1)
        for edges, length in zip((down, across), pixels.shape, strict=False)
    )
    means = np.empty((len(tops), len(lefts), 3), np.uint8)
    if means.shape == pixels.shape and heights.max() == widths.max() == 1:
        return pixels
    counts = widths[:, None] * heights
    # With half of their number, the sum of a square of `WIDEST` pixels a side, each 255, is just
    # below 2**32; most squares are small.
    dtype = np.uint16 if counts.max() <= 256 else np.uint32
    for channel in range(3):
        rows = _sum_runs(np.ascontiguousarray(pixels[:, :, channel]), tops, heights, dtype)
        sums = _sum_runs(np.ascontiguousarray(rows.T), lefts, widths, dtype)
        sums += (counts // 2).astype(dtype)
        means[:, :, channel] = (sums // counts.astype(dtype)).T
    return means


def _sum_runs(
    lines: NDArray[Any], starts: Indices, lengths: Indices, dtype: type[Any]
) -> NDArray[Any]:
    """Return the sum of each run of lines: whole lines are added, of all runs at once.

    Args:
        lines: (lines, numbers).
        starts: Where each run begins.
        lengths: How many lines each has.
        dtype: The type of sums.
    """
    sums = lines[starts].astype(dtype)
    for number in range(1, int(lengths.max())):
        is_long = lengths > number
        if is_long.all():
            sums += lines[starts + number]
        else:
            sums[is_long] += lines[starts[is_long] + number]
    return sums
