"""Read regions of slides: all formats of OpenSlide, and plain images.

Colours are those of the file, without its colour profile. Areas that the scanner omitted are white.
If a damaged tile can still be decoded, its pixels are wrong, as in any viewer.
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
"""Package names by module."""
PURPOSE = "work with slides"


def require_modules(*modules: str) -> None:
    """Check that the packages of modules are installed.

    Raises:
        MissingTool: A package is not installed.
    """
    for name in modules:
        if find_spec(name) is None:
            raise MissingTool(Tool(PACKAGES[name], PURPOSE, None))


def load_module(module: str) -> Any:
    """Import a module of one of `PACKAGES`.

    Raises:
        MissingTool: The package is not installed.
    """
    require_modules(module.partition(".")[0])
    return import_module(module)


MAX_SIDE = 1 << 20
"""Maximum height or width of a slide in pixels."""
DAMAGED_HELP = "copy the slide again, or skip damaged patches with `tcc slide run --skip-damaged`"
MIN_DAMAGE_SIDE = 64
"""Side in pixels at which a damaged square is not divided further."""
MAX_SECONDS = 300.0
"""Time limit for reading a region: a block of the slowest format takes about ten seconds."""
DECODERS = DecoderPool("tcc.compiler.slides.slide_decoder", 4 << 30, "slide")
"""Decoder processes, with memory for OpenSlide's tile cache and the region."""


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One stored resolution of a slide; a pixel is `scale` pixels of level 0 wide."""

    width: int
    height: int
    scale: float


class SlideExtent(Protocol):
    """The size of a slide; an open slide, or a grid of patches."""

    @property
    def width(self) -> int:
        """Width in pixels of level 0."""
        ...

    @property
    def height(self) -> int:
        """Height in pixels of level 0."""
        ...


class PixelSource(Protocol):
    """Source of a slide's pixels."""

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return RGB pixels (height, width, 3) of a level's region.

        The corner is in pixels of level 0; `size` is (width, height) in pixels of the level. Pixels
        beyond the slide's edge are white.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@dataclass(frozen=True)
class Slide:
    """An open slide.

    Attributes:
        path: The file.
        levels: The levels, the largest first.
        mpp: Micrometres per pixel of level 0; None if unknown.
        source: The source of pixels.
        skips_damaged: Whether damaged areas are shown in white.
    """

    path: Path
    levels: tuple[SlideLevel, ...]
    mpp: float | None
    source: PixelSource
    skips_damaged: bool = False

    @property
    def width(self) -> int:
        """Width in pixels of level 0."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height in pixels of level 0."""
        return self.levels[0].height

    def find_level(self, scale: float) -> int:
        """Return the smallest level whose pixels are at most `scale` pixels of level 0 wide."""
        # With a tolerance, because the sizes of levels are rounded.
        fine_levels = [n for n, level in enumerate(self.levels) if level.scale <= scale * 1.01]
        return max(fine_levels, key=lambda n: self.levels[n].scale, default=0)

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return RGB pixels (height, width, 3) of a level's region.

        Args:
            level: The level's index.
            left: The first column, in pixels of level 0.
            top: The first row, in pixels of level 0.
            size: (width, height), in pixels of the level.

        Raises:
            UserError: The region is damaged (E1302).
        """
        return self.source.read_pixels(level, left, top, size)

    def read_for_display(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return pixels as `read_pixels`; with `skips_damaged`, damaged squares are white."""
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
        mpp: Micrometres per pixel; overrides the file's value.
        skips_damaged: Whether to show damaged areas in white.
        file_kind: The word for the file in errors.

    Raises:
        UserError: The slide cannot be read (E1300), does not have 8-bit samples (E1303) or is too
            large (E1304); for plain images, as `images.read_image`.
        MissingTool: OpenSlide is not installed.
    """
    require_modules(*PACKAGES)
    check_exists(path)
    with DECODERS.use_process(str(path)) as decoder:
        source = _ConfinedSlide(path, decoder)
        try:
            slide = replace(source.open(mpp, file_kind), skips_damaged=skips_damaged)
            if max(slide.width, slide.height) > MAX_SIDE:
                label = f"it has {slide.width} x {slide.height} pixels"
                message = f"this slide is too large: the limit is {MAX_SIDE:,} pixels a side"
                help = "cut the slide into parts"
                raise fail("E1304", message, make_file_span(str(path)), label=label, help=help)
            yield slide
        finally:
            source.close()


def get_resolution(slide: Slide) -> float:
    """Return the micrometres per pixel of level 0.

    Raises:
        UserError: The resolution is neither in the file nor given (E1301).
    """
    if slide.mpp is not None:
        return slide.mpp
    message = "this slide's file does not contain its resolution in micrometres per pixel"
    help = "give it with --mpp: about 0.25 for scans at 40x, 0.5 at 20x"
    raise fail("E1301", message, make_file_span(str(slide.path)), help=help)


def check_exists(path: Path) -> None:
    """Check that a slide's file exists (E1300)."""
    if not path.is_file():
        source = make_file_span(str(path))
        raise fail("E1300", "there is no such slide", source, help="give the file of a slide")


def is_damage(error: UserError) -> bool:
    """Whether an error is due to damaged pixels."""
    return error.diagnostics[0].code == "E1302"


class _ConfinedSlide:
    """A slide that is open in a sandboxed process; thread-safe."""

    def __init__(self, path: Path, decoder: ConfinedProcess) -> None:
        self.path, self.decoder, self._lock = path, decoder, threading.Lock()

    def open(self, mpp: float | None, file_kind: str) -> Slide:
        """Open the slide in the process and return it."""
        request = {"do": "open", "path": str(self.path), "folder": os.getcwd(), "mpp": mpp}
        reply, _ = self._send_request(request | {"what": file_kind}, 0)
        try:
            levels = tuple(_read_level(level) for level in reply["levels"])
            slide_mpp = None if reply["mpp"] is None else _check_scale(reply["mpp"])
        except (KeyError, TypeError, ValueError):
            levels, slide_mpp = (), None
        if not levels:
            raise make_decoder_error(
                str(self.path), DECODERS.noun, "its reply contains no valid slide"
            )
        return Slide(self.path, levels, slide_mpp, self)

    def read_pixels(
        self, level: int, left: int, top: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        width, height = size
        request = {"do": "read", "level": level, "left": left, "top": top, "size": size}
        pixels = self._send_request(request, 3 * width * height)[1]
        if len(pixels) != 3 * width * height:
            reason = "its reply contains no valid pixels"
            raise make_decoder_error(str(self.path), DECODERS.noun, reason)
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
        raise ValueError("a length is not a positive number")
    return float(number)


READ_SIDE = 2048
"""Side in pixels of the regions that are read at a time."""
MAX_LEVEL_PIXELS = 1 << 36
"""Maximum number of pixels to read from a level: about an hour; scanners write smaller levels."""


def compute_block_means(slide: Slide, side: int, progress: Progress) -> NDArray[np.uint8]:
    """Return the mean colour of squares of `side` pixels of level 0, uint8 (rows, columns, 3).

    They are computed from the smallest level with at least one pixel per square. Squares in the
    last row and column are cut off at the slide's edge.

    Raises:
        UserError: The slide is damaged (E1302), or has no level that is small enough (E1304).
    """
    number = slide.find_level(side)
    level = slide.levels[number]
    if level.width * level.height > MAX_LEVEL_PIXELS:
        message = (
            f"a level with {level.width * level.height:,} pixels would have to be read, the limit "
            f"is {MAX_LEVEL_PIXELS:,}"
        )
        help = "convert the slide to a pyramid with smaller levels"
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
    """Return the edges of squares in a level of `level_pixels` pixels along one axis."""
    count = -(-pixels // side)
    positions = np.minimum(np.arange(count + 1, dtype=np.int64) * side, pixels)
    max_edges = np.r_[np.full(count, level_pixels - 1), level_pixels]
    edges: Indices = np.minimum(positions * level_pixels // pixels, max_edges)
    return edges


def _compute_means(pixels: NDArray[np.uint8], down: Indices, across: Indices) -> NDArray[np.uint8]:
    """Return the rounded mean of each square; a square below one pixel gets that pixel."""
    heights, widths = (np.maximum(np.diff(edges), 1) for edges in (down, across))
    tops, lefts = (
        np.minimum(edges[:-1] - edges[0], length - 1)
        for edges, length in zip((down, across), pixels.shape, strict=False)
    )
    means = np.empty((len(tops), len(lefts), 3), np.uint8)
    if means.shape == pixels.shape and heights.max() == widths.max() == 1:
        return pixels
    counts = widths[:, None] * heights
    # uint32 holds the largest sum, including half of the count for rounding; most squares are small
    # enough for uint16.
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
    """Return the sum of each run of lines, computed for all runs at once.

    Args:
        lines: (lines, numbers).
        starts: The first line of each run.
        lengths: The number of lines of each run.
        dtype: The type of the sums.
    """
    sums = lines[starts].astype(dtype)
    for number in range(1, int(lengths.max())):
        is_long = lengths > number
        if is_long.all():
            sums += lines[starts + number]
        else:
            sums[is_long] += lines[starts[is_long] + number]
    return sums
