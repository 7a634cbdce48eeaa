"""A slide and its heat map as a page that works without a server, and as one pyramidal image.

A slide becomes square tiles in levels, each of half the size of the next. Each part of it is
decoded once: the tiles of a level are the means of the next one's.
"""

import hashlib
import json
import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.pixel_resampling import Axis, resampled
from tcc.compiler.slides import slide_pictures
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.stored_result import StoredResult
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.npm_packages import NpmPackage
from tcc.compiler.support.progress import Progress

Pixels = NDArray[np.uint8]
PlacedTile = tuple["TilePlace", Pixels]

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
FORMATS = {SHORT: "H", LONG: "I", RATIONAL: "II", LONG8: "Q"}
JPEG, YCBCR, CENTIMETRES = 7, 6, 3


class TiledTiff:
    """Writes a BigTIFF file of levels, the largest first; tiles of the same bytes are kept once.

    The form is that of TIFF 6.0 with its Technical Note 2 (JPEG), in BigTIFF's 64-bit words.
    Written here since tifffile asks for one package more to hold JPEG tiles that are made already.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, int] = {}
        self._next = 8
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def level(
        self, width: int, height: int, tile: int, micrometres: float, tiles: Iterable[bytes]
    ) -> None:
        """Write a level.

        Args:
            width: Its pixels in a row.
            height: Its pixels in a column.
            tile: The side of a tile, a multiple of 16.
            micrometres: How wide a pixel is.
            tiles: JPEG files of whole tiles, row after row, whose colours are halved both ways.
        """
        offsets, sizes = [], []
        for data in tiles:
            offsets.append(self._place(data))
            sizes.append(len(data))
        reduced = int(self._next != 8)
        unit = Fraction(1e4 / micrometres).limit_denominator(1000)
        resolution = [unit.numerator, unit.denominator]
        fields = [
            (254, LONG, [reduced]), (256, LONG, [width]), (257, LONG, [height]),
            (258, SHORT, [8, 8, 8]), (259, SHORT, [JPEG]), (262, SHORT, [YCBCR]),
            (277, SHORT, [3]), (282, RATIONAL, resolution), (283, RATIONAL, resolution),
            (284, SHORT, [1]), (296, SHORT, [CENTIMETRES]), (322, LONG, [tile]),
            (323, LONG, [tile]), (324, LONG8, offsets), (325, LONG, sizes), (530, SHORT, [2, 2]),
        ]  # fmt: skip
        entries = [self._entry(*field) for field in fields]
        at = self._end()
        directory = struct.pack("<Q", len(entries)) + b"".join(entries)
        self._file.write(directory + bytes(8))
        self._file.seek(self._next)
        self._file.write(struct.pack("<Q", at))
        self._next = at + len(directory)

    def _end(self) -> int:
        """Go to an even place at the end, and return it."""
        at = self._file.seek(0, 2)
        self._file.write(bytes(at % 2))
        return at + at % 2

    def _place(self, data: bytes) -> int:
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._places[key] = self._end()
            self._file.write(data)
        return self._places[key]

    def _entry(self, tag: int, kind: int, values: list[int]) -> bytes:
        """Return a field of a directory, whose values lie elsewhere if they are many."""
        letters = FORMATS[kind]
        count = len(values) // len(letters)
        data = struct.pack(f"<{letters[0] * len(values)}", *values)
        if len(data) > 8:
            at = self._end()
            self._file.write(data)
            data = struct.pack("<Q", at)
        return struct.pack("<HHQ", tag, kind, count) + data.ljust(8, b"\0")


TILE = 512
"""Pixels of a tile, a side."""
MOST_TILES = 1 << 18
"""Most tiles of a pyramid."""

TilePlace = tuple[int, int, int]
"""The level, column and row of a tile."""


@dataclass(frozen=True, slots=True)
class TilePyramid:
    """Levels 0 to `depth`; a pixel of the last is `side` pixels of the slide wide."""

    width: int
    height: int
    side: int

    @property
    def depth(self) -> int:
        """The number of the largest level; the smallest, 0, is one tile."""
        longest = max(self._size(self.side))
        return max(0, (-(-longest // TILE) - 1).bit_length())

    def scale(self, level: int) -> int:
        """Return how many pixels of the slide a pixel of a level is wide."""
        return self.side << (self.depth - level)

    def size(self, level: int) -> tuple[int, int]:
        """Return the width and height of a level."""
        return self._size(self.scale(level))

    def count(self, level: int) -> tuple[int, int]:
        """Return the columns and rows of tiles of a level."""
        width, height = self.size(level)
        return -(-width // TILE), -(-height // TILE)

    def shape(self, place: TilePlace) -> tuple[int, int]:
        """Return the width and height of a tile; the last ones of a level are smaller."""
        level, column, row = place
        width, height = self.size(level)
        return min(TILE, width - column * TILE), min(TILE, height - row * TILE)

    def _size(self, scale: int) -> tuple[int, int]:
        return -(-self.width // scale), -(-self.height // scale)


def pyramid(slide: Slide, finest: float) -> TilePyramid:
    """Return the pyramid of a slide whose pixels are at most `finest` pixels of the slide wide.

    Raises:
        UserError: It has too many tiles (E1304).
    """
    made = TilePyramid(slide.width, slide.height, 1 << max(0, int(finest).bit_length() - 1))
    columns, rows = made.count(made.depth)
    if columns * rows > MOST_TILES:
        message = f"this view has {columns * rows:,} tiles, at most {MOST_TILES:,} are written"
        raise fail("E1304", message, whole_file(str(slide.path)), help="take a coarser --at")
    return made


def tiles(slide: Slide, made: TilePyramid, progress: Progress) -> Iterator[PlacedTile]:
    """Yield each tile of all levels, RGB uint8 (height, width, 3).

    Raises:
        UserError: The slide is damaged (E1302).
    """
    columns, rows = made.count(made.depth)
    read = 0
    for place, pixels in _below(slide, made, (0, 0, 0)):
        read += place[0] == made.depth
        progress("tiles", read, columns * rows)
        yield place, pixels


def _below(slide: Slide, made: TilePyramid, place: TilePlace) -> Iterator[PlacedTile]:
    """Yield a tile after all those that it is made of."""
    level, column, row = place
    if level == made.depth:
        yield place, _read(slide, made, place)
        return
    width, height = made.shape(place)
    columns, rows = made.count(level + 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    for below in range(2 * row, min(2 * row + 2, rows)):
        for right in range(2 * column, min(2 * column + 2, columns)):
            for finer, part in _below(slide, made, (level + 1, right, below)):
                yield finer, part
                if finer == (level + 1, right, below):
                    half = _halved(part)
                    top, left = ((n % 2) * (TILE // 2) for n in (below, right))
                    pixels[top : top + len(half), left : left + half.shape[1]] = half
    yield place, pixels


def _halved(pixels: Pixels) -> Pixels:
    """Return the rounded means of squares of four; a last row or column counts twice."""
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.uint16)
    four = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((four + np.uint16(2)) // np.uint16(4)).astype(np.uint8)


def _read(slide: Slide, made: TilePyramid, place: TilePlace) -> Pixels:
    _, column, row = place
    number = slide.level_for(made.side)
    width, height = made.shape(place)
    ratio = made.side / slide.levels[number].scale
    stored = max(1, round(width * ratio)), max(1, round(height * ratio))
    corner = column * TILE * made.side, row * TILE * made.side
    pixels = slide.shown(number, *corner, stored)
    for axis, (have, want) in enumerate(zip(stored[::-1], (height, width), strict=True)):
        if have != want:
            pixels = resampled(pixels, axis, Axis(have, want, 0, want))
    return pixels


OPACITY = 0.45
GREEN, YELLOW, RED = (0, 150, 60), (250, 220, 60), (210, 20, 30)
BLUE, PALE, VERMILION = (0, 90, 181), (240, 240, 235), (220, 80, 10)
MAPS = {"overlay": (GREEN, YELLOW, RED), "overlay-colour-blind": (BLUE, PALE, VERMILION)}
"""The colours of 0, 1/2 and 1 of each map: the paper's, and one that the colour-blind can read."""


def overlay(
    image: NDArray[np.uint8],
    side: int,
    grid: PatchGrid,
    tumour: NDArray[np.float64],
    name: str,
    corner: tuple[int, int] = (0, 0),
) -> NDArray[np.uint8]:
    """Return a slide, or a part of it, with the probabilities over it.

    Args:
        image: The slide made small, RGB (rows, columns, 3).
        side: Pixels of level 0 that a pixel of it is wide.
        grid: The patches; each colours its cell.
        tumour: The probability of each, NaN where nothing was classified.
        name: One of `MAPS`.
        corner: The column and row of level 0 at which the part begins.
    """
    downwards = corner[1] + np.arange(image.shape[0], dtype=np.int64) * side
    across = corner[0] + np.arange(image.shape[1], dtype=np.int64) * side
    rows, row_in = _cells(grid, downwards + side // 2, grid.shape[0], grid.height)
    columns, column_in = _cells(grid, across + side // 2, grid.shape[1], grid.width)
    known = ~np.isnan(tumour)
    levels = np.rint(np.where(known, tumour, 0) * 255).astype(np.uint8)
    shown = known[rows][:, columns] & row_in[:, None] & column_in
    heat = levels[rows][:, columns][shown]
    made = image.copy()
    for channel, mixed in enumerate(_mixed(name)):
        made[:, :, channel][shown] = mixed[heat, image[:, :, channel][shown]]
    return made


def _cells(
    grid: PatchGrid, middles: NDArray[np.int64], count: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the row or column of cells under the middle of each pixel, and whether one is."""
    middle = np.minimum(middles, end - 1) - grid.inset
    place = middle // grid.stride
    inside = (middle >= 0) & (place < count)
    return np.clip(place, 0, count - 1), inside


def _mixed(name: str) -> NDArray[np.uint8]:
    """Return what 256 levels of a map make of 256 of a slide: (3, levels of it, of the slide)."""
    colours = _table(name).T[:, :, None]
    return np.rint(np.arange(256) * (1 - OPACITY) + colours * OPACITY).astype(np.uint8)


def _table(name: str) -> NDArray[np.float64]:
    """Return 256 colours of a map."""
    low, middle, high = MAPS[name]
    at = np.arange(256)
    parts = [np.interp(at, (0, 127.5, 255), three) for three in zip(low, middle, high, strict=True)]
    return np.rint(np.stack(parts, axis=1))


SITE = Path(__file__).resolve().parent / "viewer"
RESULT, OVERLAY = "result.js", "overlay.tif"
LIBRARY = NpmPackage(
    "openseadragon",
    "make pages of slides",
    {
        "build/openseadragon/openseadragon.min.js": (
            "c45c37502ee828c9d68d1c16142b4536fe54814c75c67ab3170f1a095927ed46"
        ),
        "LICENSE.txt": "17da96b26ac706d2cbd06d4555dedb43026782f4943faf0156fe7acf89454228",
    },
)
NAMES = {
    "openseadragon.min.js": "openseadragon.min.js",
    "LICENSE.txt": "LICENSE-openseadragon.txt",
}
"""What the library's files are called in a page."""
COLOURS = {"overlay": "Green to red", "overlay-colour-blind": "Blue to orange (colour-blind safe)"}


@dataclass(frozen=True)
class SlideView:
    """A slide, what a run said of it, and the tiles that are shown."""

    slide: Slide
    result: StoredResult
    pyramid: TilePyramid


def view(slide: Slide, result: StoredResult, at: float | None) -> SlideView:
    """Return the view of a slide.

    Args:
        slide: The slide.
        result: What a run said of it.
        at: Micrometres of the finest pixel shown; None for those of the patches.

    Raises:
        UserError: The result is of another slide (E1313), or the view too large (E1304).
    """
    grid, about = result.grid, result.summary
    if (grid.width, grid.height) != (slide.width, slide.height):
        message = f"the result is of a slide of {grid.width} x {grid.height} pixels"
        label = f"this one has {slide.width} x {slide.height}"
        raise fail("E1313", message, whole_file(str(slide.path)), label=label)
    finest = at / result.mpp if at else grid.span / about.grid.patch
    return SlideView(slide, result, pyramid(slide, finest))


def write(folder: Path, made: SlideView, progress: Progress) -> None:
    """Fill an empty folder with the page, its tiles and the pyramidal image.

    Raises:
        UserError: The slide is damaged (E1302).
        MissingTool: OpenSeadragon is not here.
    """
    for name, data in LIBRARY.files().items():
        (folder / NAMES[name]).write_bytes(data)
    for path in sorted(SITE.iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / RESULT).write_bytes(b"globalThis.RESULT = " + _result(made) + b";\n")
    for level in range(made.pyramid.depth + 1):
        (folder / "tiles" / str(level)).mkdir(parents=True)
    for place, pixels in tiles(made.slide, made.pyramid, progress):
        _tile(folder, place).write_bytes(slide_pictures.jpeg(pixels))
    _overlay(folder, made)


def ours(path: Path) -> str | None:
    """Say why a folder is not replaced by a view; None where it is one itself."""
    same = (path / RESULT).is_file() and (path / OVERLAY).is_file()
    return None if same else "it is no page of a slide"


def _tile(folder: Path, place: TilePlace) -> Path:
    level, column, row = place
    return folder / "tiles" / str(level) / f"{column}_{row}.jpg"


def _result(made: SlideView) -> bytes:
    """Return what the page shows, as JSON."""
    result, grid, about = made.result, made.result.grid, made.result.summary
    width, height = made.pyramid.size(made.pyramid.depth)
    data = {
        "slide": {"name": made.slide.path.name, "width": grid.width, "height": grid.height},
        "image": {
            "width": width,
            "height": height,
            "side": made.pyramid.side,
            "tile": TILE,
            "depth": made.pyramid.depth,
        },
        "grid": {
            "rows": grid.shape[0],
            "columns": grid.shape[1],
            "span": grid.span,
            "stride": grid.stride,
            "inset": grid.inset,
        },
        "classes": about.classes,
        "notice": about.bundle.notice or "",
        "maps": {COLOURS[name]: colours for name, colours in MAPS.items()},
        "patches": {
            "places": _packed(result.places @ (grid.shape[1], 1), "<u4"),
            "tissue": _packed(result.numbers[:, 0], "<f4"),
            "classes": _packed(result.numbers[:, 1:-1], "<f4"),
            "tumour": _packed(result.tumour, "<f4"),
            "positive": _packed(result.positive, "u1"),
        },
        "facts": _facts(made),
    }
    # In a script of its own, so that no text of it can end the page's.
    return json.dumps(data, allow_nan=False).encode()


def _facts(made: SlideView) -> list[tuple[str, str]]:
    about = made.result.summary
    rule = about.tumour
    return [
        ("size", f"{made.slide.width:,} x {made.slide.height:,} pixels"),
        ("pixel", f"{made.result.mpp:g} µm"),
        ("network", f"{about.bundle.network}, {about.bundle.precision}"),
        ("tumour is", " or ".join(rule.classes)),
        ("threshold", "the class taken" if rule.threshold is None else f"{rule.threshold:g}"),
        ("patches", f"{about.patches:,}, {about.positive:,} of them tumour"),
        ("tissue", f"{about.tissue_mm2:.2f} mm²"),
        ("tumour", f"{about.positive_mm2:.2f} mm²"),
        ("damaged", f"{about.damaged:,} patches"),
    ]


def _packed(values: NDArray[Any], kind: str) -> str:
    return b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _overlay(folder: Path, made: SlideView) -> None:
    """Write the slide with its heat map as a pyramid, which slide viewers open."""
    pyramid, heat = made.pyramid, made.result.raster()
    with (folder / OVERLAY).open("w+b") as file:
        written = TiledTiff(file)
        for level in reversed(range(pyramid.depth + 1)):
            micrometres = made.result.mpp * pyramid.scale(level)
            tiles = _encoded(folder, made, level, heat)
            written.level(*pyramid.size(level), TILE, micrometres, tiles)


def _encoded(
    folder: Path, made: SlideView, level: int, heat: NDArray[np.float64]
) -> Iterator[bytes]:
    """Yield the tiles of a level with the heat map over them, whole, as JPEG files."""
    columns, rows = made.pyramid.count(level)
    side = made.pyramid.scale(level)
    for row in range(rows):
        for column in range(columns):
            corner = column * TILE * side, row * TILE * side
            pixels = slide_pictures.of_jpeg(_tile(folder, (level, column, row)).read_bytes())
            drawn = overlay(pixels, side, made.result.grid, heat, "overlay", corner)
            height, width = drawn.shape[:2]
            whole = np.pad(drawn, ((0, TILE - height), (0, TILE - width), (0, 0)), "edge")
            yield slide_pictures.jpeg(whole)
