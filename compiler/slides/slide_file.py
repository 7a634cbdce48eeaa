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
    explain_end,
    refuse_answer,
)
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.progress import Progress

Places = NDArray[np.int64]

PACKAGES = {"openslide": "openslide-python", "scipy": "scipy", "tifffile": "tifffile"}
"""Packages by their modules."""
NEEDED_FOR = "work with slides"


def require(*modules: str) -> None:
    """Refuse to go on without some of them.

    Raises:
        MissingTool: One is not here.
    """
    for name in modules:
        if find_spec(name) is None:
            raise MissingTool(Tool(PACKAGES[name], NEEDED_FOR, None))


def load(module: str) -> Any:
    """Return a module of one of them.

    Raises:
        MissingTool: It is not here.
    """
    require(module.partition(".")[0])
    return import_module(module)


MAX_SIDE = 1 << 20
"""Largest height or width of a slide, in pixels."""
DAMAGED = "copy the slide anew; `tcc slide run --skip-damaged` leaves out the patches there"
SMALLEST = 64
"""Pixels of a side below which a damaged square is not looked at in parts."""
SECONDS = 300.0
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

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> NDArray[np.uint8]:
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

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> NDArray[np.uint8]:
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

    def shown(self, level: int, left: int, top: int, size: tuple[int, int]) -> NDArray[np.uint8]:
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
    require(*PACKAGES)
    check_there(path)
    with DECODERS.lend(str(path)) as decoder:
        source = _ConfinedSlide(path, decoder)
        try:
            slide = replace(source.open(mpp, what), skips=skips)
            if max(slide.width, slide.height) > MAX_SIDE:
                found = f"it is {slide.width} x {slide.height}"
                message = f"a slide has at most {MAX_SIDE:,} pixels a side"
                raise fail("E1304", message, whole_file(str(path)), label=found)
            yield slide
        finally:
            source.close()


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


def is_damage(error: UserError) -> bool:
    """Whether an error is that of pixels that cannot be decoded."""
    return error.diagnostics[0].code == "E1302"


class _ConfinedSlide:
    """A slide that a confined process has open; threads may read it in turn."""

    def __init__(self, path: Path, decoder: ConfinedProcess) -> None:
        self.path, self.decoder, self._lock = path, decoder, threading.Lock()

    def open(self, mpp: float | None, what: str) -> Slide:
        """Return the slide as the process describes it."""
        request = {"do": "open", "path": str(self.path), "folder": os.getcwd(), "mpp": mpp}
        reply, _ = self._ask(request | {"what": what}, 0)
        try:
            levels = tuple(_read_level(level) for level in reply["levels"])
            found = None if reply["mpp"] is None else _check_scale(reply["mpp"])
        except (KeyError, TypeError, ValueError):
            levels, found = (), None
        if not levels:
            raise refuse_answer(str(self.path), DECODERS.what, "it answers what is no slide")
        return Slide(self.path, levels, found, self)

    def read(self, level: int, left: int, top: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        width, height = size
        request = {"do": "read", "level": level, "left": left, "top": top, "size": size}
        pixels = self._ask(request, 3 * width * height)[1]
        if len(pixels) != 3 * width * height:
            raise refuse_answer(str(self.path), DECODERS.what, "it answers what are no pixels")
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)

    def close(self) -> None:
        if not self.decoder.is_closed:
            self._ask({"do": "close"}, 0)

    def _ask(self, request: dict[str, Any], most: int) -> Reply:
        with self._lock, explain_end(str(self.path), DECODERS.what):
            return self.decoder.ask(request, b"", SECONDS, most)


def _read_level(described: Any) -> SlideLevel:
    width, height, scale = described
    if not all(type(side) is int and 0 < side < 1 << 40 for side in (width, height)):
        raise ValueError("a level has no size")
    return SlideLevel(width, height, _check_scale(scale))


def _check_scale(number: Any) -> float:
    if type(number) not in (int, float) or not (isfinite(number) and number > 0):
        raise ValueError("a length is none")
    return float(number)


READ = 2048
"""Pixels of a level, a side, that are read at a time."""
MOST = 1 << 36
"""Most pixels of a level that are read: an hour's work, and no scanner's."""


def block_means(slide: Slide, side: int, progress: Progress) -> NDArray[np.uint8]:
    """Return the mean colour of squares of `side` pixels of level 0, uint8 (rows, columns, 3).

    They are computed from the smallest level that has a pixel or more for each; the last row and
    column are of what is left of the slide there.

    Raises:
        UserError: The slide is damaged (E1302), or has no level that is small enough (E1304).
    """
    number = slide.level_for(side)
    level = slide.levels[number]
    if level.width * level.height > MOST:
        message = (
            f"{level.width * level.height:,} pixels would have to be read, at most {MOST:,} are"
        )
        help = "write it anew with smaller levels"
        raise fail("E1304", message, whole_file(str(slide.path)), help=help)
    rows = _edges(slide.height, side, level.height)
    columns = _edges(slide.width, side, level.width)
    made = np.empty((len(rows) - 1, len(columns) - 1, 3), np.uint8)
    step = max(1, int(READ * level.scale) // side)
    for top in range(0, len(made), step):
        progress("tissue", top, len(made))
        down = rows[top : top + step + 1]
        for left in range(0, made.shape[1], step):
            across = columns[left : left + step + 1]
            size = (int(across[-1] - across[0]) or 1, int(down[-1] - down[0]) or 1)
            at = (round(int(across[0]) * level.scale), round(int(down[0]) * level.scale))
            pixels = slide.shown(number, *at, size)
            made[top : top + step, left : left + step] = _means(pixels, down, across)
    return made


def _edges(pixels: int, side: int, stored: int) -> Places:
    """Return where squares begin in a level of `stored` pixels, and where the last one ends."""
    count = -(-pixels // side)
    places = np.minimum(np.arange(count + 1, dtype=np.int64) * side, pixels)
    most = np.r_[np.full(count, stored - 1), stored]
    found: Places = np.minimum(places * stored // pixels, most)
    return found


def _means(pixels: NDArray[np.uint8], down: Places, across: Places) -> NDArray[np.uint8]:
    """Return the rounded mean of each square; one that is less than a pixel has that pixel."""
    heights, widths = (np.maximum(np.diff(edges), 1) for edges in (down, across))
    tops, lefts = (
        np.minimum(edges[:-1] - edges[0], length - 1)
        for edges, length in zip((down, across), pixels.shape, strict=False)
    )
    made = np.empty((len(tops), len(lefts), 3), np.uint8)
    if made.shape == pixels.shape and heights.max() == widths.max() == 1:
        return pixels
    counts = widths[:, None] * heights
    # With half of their number, the sum of a square of `WIDEST` pixels a side, each 255, is just
    # below 2**32; most squares are small.
    kind = np.uint16 if counts.max() <= 256 else np.uint32
    for channel in range(3):
        rows = _sums(np.ascontiguousarray(pixels[:, :, channel]), tops, heights, kind)
        sums = _sums(np.ascontiguousarray(rows.T), lefts, widths, kind)
        sums += (counts // 2).astype(kind)
        made[:, :, channel] = (sums // counts.astype(kind)).T
    return made


def _sums(lines: NDArray[Any], firsts: Places, lengths: Places, kind: type[Any]) -> NDArray[Any]:
    """Return the sum of each run of lines: whole lines are added, of all runs at once.

    Args:
        lines: (lines, numbers).
        firsts: Where each run begins.
        lengths: How many lines each has.
        kind: The type of sums.
    """
    made = lines[firsts].astype(kind)
    for number in range(1, int(lengths.max())):
        there = lengths > number
        if there.all():
            made += lines[firsts + number]
        else:
            made[there] += lines[firsts[there] + number]
    return made
