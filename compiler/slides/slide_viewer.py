"""Write a slide with its heat map as a web page without a server, and as a pyramidal image.

A slide is cut into square tiles at several levels; each level is half the size of the next. Each
part of the slide is decoded once, because a level's tiles are means of the next level's.
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

from tcc.compiler.ir.pixel_resampling import Axis, resample
from tcc.compiler.slides import slide_images
from tcc.compiler.slides.patch_grid import PatchGrid
from tcc.compiler.slides.saved_result import StoredResult
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.npm_packages import NpmPackage
from tcc.compiler.support.progress import Progress

Pixels = NDArray[np.uint8]
IndexedTile = tuple["TileIndex", Pixels]

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
FORMATS = {SHORT: "H", LONG: "I", RATIONAL: "II", LONG8: "Q"}
JPEG, YCBCR, CENTIMETRES = 7, 6, 3


class TiledTiff:
    """Writes a BigTIFF file of levels, the largest first; identical tiles are stored once.

    The format is TIFF 6.0 with Technical Note 2 (JPEG), with BigTIFF's 64-bit offsets. tifffile is
    not used, because it needs another package to store encoded JPEG tiles.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset_by_digest: dict[bytes, int] = {}
        self._directory_link = 8
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def write_level(
        self, width: int, height: int, tile: int, micrometres: float, tiles: Iterable[bytes]
    ) -> None:
        """Write a level.

        Args:
            width: The width in pixels.
            height: The height in pixels.
            tile: The side of a tile, a multiple of 16.
            micrometres: The width of a pixel in micrometres.
            tiles: JPEG files of complete tiles with 4:2:0 chroma subsampling, row by row.
        """
        offsets, sizes = [], []
        for content in tiles:
            offsets.append(self._store_tile(content))
            sizes.append(len(content))
        is_reduced = int(self._directory_link != 8)
        unit = Fraction(1e4 / micrometres).limit_denominator(1000)
        resolution = [unit.numerator, unit.denominator]
        fields = [
            (254, LONG, [is_reduced]), (256, LONG, [width]), (257, LONG, [height]),
            (258, SHORT, [8, 8, 8]), (259, SHORT, [JPEG]), (262, SHORT, [YCBCR]),
            (277, SHORT, [3]), (282, RATIONAL, resolution), (283, RATIONAL, resolution),
            (284, SHORT, [1]), (296, SHORT, [CENTIMETRES]), (322, LONG, [tile]),
            (323, LONG, [tile]), (324, LONG8, offsets), (325, LONG, sizes), (530, SHORT, [2, 2]),
        ]  # fmt: skip
        directory_entries = [self._encode_field(*field) for field in fields]
        directory_offset = self._seek_end()
        directory = struct.pack("<Q", len(directory_entries)) + b"".join(directory_entries)
        self._file.write(directory + bytes(8))
        self._file.seek(self._directory_link)
        self._file.write(struct.pack("<Q", directory_offset))
        self._directory_link = directory_offset + len(directory)

    def _seek_end(self) -> int:
        """Seek to the end, padded to an even offset, and return the offset."""
        end_offset = self._file.seek(0, 2)
        self._file.write(bytes(end_offset % 2))
        return end_offset + end_offset % 2

    def _store_tile(self, content: bytes) -> int:
        key = hashlib.sha256(content).digest()
        if key not in self._offset_by_digest:
            self._offset_by_digest[key] = self._seek_end()
            self._file.write(content)
        return self._offset_by_digest[key]

    def _encode_field(self, tag: int, field_type: int, numbers: list[int]) -> bytes:
        """Return a directory field; values of more than 8 bytes are written separately."""
        letters = FORMATS[field_type]
        count = len(numbers) // len(letters)
        encoded = struct.pack(f"<{letters[0] * len(numbers)}", *numbers)
        if len(encoded) > 8:
            offset = self._seek_end()
            self._file.write(encoded)
            encoded = struct.pack("<Q", offset)
        return struct.pack("<HHQ", tag, field_type, count) + encoded.ljust(8, b"\0")


TILE_SIDE = 512
"""Side of a tile in pixels."""
MAX_TILES = 1 << 18
"""Maximum number of tiles of a pyramid's largest level."""

TileIndex = tuple[int, int, int]
"""The level, column and row of a tile."""


@dataclass(frozen=True, slots=True)
class TilePyramid:
    """Levels 0 to `depth`; a pixel of the last level is `side` pixels of the slide wide."""

    width: int
    height: int
    side: int

    @property
    def depth(self) -> int:
        """The index of the largest level; level 0 has one tile."""
        longest = max(self._compute_size(self.side))
        return max(0, (-(-longest // TILE_SIDE) - 1).bit_length())

    def compute_scale(self, level: int) -> int:
        """Return the width of a level's pixel in pixels of the slide."""
        return self.side << (self.depth - level)

    def compute_size(self, level: int) -> tuple[int, int]:
        """Return the width and height of a level."""
        return self._compute_size(self.compute_scale(level))

    def count_tiles(self, level: int) -> tuple[int, int]:
        """Return the number of columns and rows of tiles of a level."""
        width, height = self.compute_size(level)
        return -(-width // TILE_SIDE), -(-height // TILE_SIDE)

    def compute_tile_shape(self, tile_index: TileIndex) -> tuple[int, int]:
        """Return the width and height of a tile; the last tiles of a level may be smaller."""
        level, column, row = tile_index
        width, height = self.compute_size(level)
        return min(TILE_SIDE, width - column * TILE_SIDE), min(TILE_SIDE, height - row * TILE_SIDE)

    def _compute_size(self, scale: int) -> tuple[int, int]:
        return -(-self.width // scale), -(-self.height // scale)


def build_pyramid(slide: Slide, max_scale: float) -> TilePyramid:
    """Return the pyramid of a slide, with pixels of at most `max_scale` pixels of the slide.

    Raises:
        UserError: The pyramid has too many tiles (E1304).
    """
    tile_pyramid = TilePyramid(
        slide.width, slide.height, 1 << max(0, int(max_scale).bit_length() - 1)
    )
    columns, rows = tile_pyramid.count_tiles(tile_pyramid.depth)
    if columns * rows > MAX_TILES:
        message = f"this view has {columns * rows:,} tiles, the limit is {MAX_TILES:,}"
        raise fail("E1304", message, make_file_span(str(slide.path)), help="use a coarser --at")
    return tile_pyramid


def iterate_tiles(
    slide: Slide, tile_pyramid: TilePyramid, progress: Progress
) -> Iterator[IndexedTile]:
    """Yield each tile of all levels, RGB uint8 (height, width, 3).

    Raises:
        UserError: The slide is damaged (E1302).
    """
    columns, rows = tile_pyramid.count_tiles(tile_pyramid.depth)
    read_count = 0
    for tile_index, pixels in _iterate_subtiles(slide, tile_pyramid, (0, 0, 0)):
        read_count += tile_index[0] == tile_pyramid.depth
        progress("tiles", read_count, columns * rows)
        yield tile_index, pixels


def _iterate_subtiles(
    slide: Slide, tile_pyramid: TilePyramid, tile_index: TileIndex
) -> Iterator[IndexedTile]:
    """Yield a tile, after all tiles that it is computed from."""
    level, column, row = tile_index
    if level == tile_pyramid.depth:
        yield tile_index, _read_tile(slide, tile_pyramid, tile_index)
        return
    width, height = tile_pyramid.compute_tile_shape(tile_index)
    columns, rows = tile_pyramid.count_tiles(level + 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    for subtile_row in range(2 * row, min(2 * row + 2, rows)):
        for subtile_column in range(2 * column, min(2 * column + 2, columns)):
            for subtile_index, subtile in _iterate_subtiles(
                slide, tile_pyramid, (level + 1, subtile_column, subtile_row)
            ):
                yield subtile_index, subtile
                if subtile_index == (level + 1, subtile_column, subtile_row):
                    downsampled = _downsample(subtile)
                    first_row, first_column = (
                        (n % 2) * (TILE_SIDE // 2) for n in (subtile_row, subtile_column)
                    )
                    pixels[
                        first_row : first_row + len(downsampled),
                        first_column : first_column + downsampled.shape[1],
                    ] = downsampled
    yield tile_index, pixels


def _downsample(pixels: Pixels) -> Pixels:
    """Return the rounded means of 2 x 2 pixels; an odd last row or column is duplicated."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.uint16)
    square_sums = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return ((square_sums + np.uint16(2)) // np.uint16(4)).astype(np.uint8)


def _read_tile(slide: Slide, tile_pyramid: TilePyramid, tile_index: TileIndex) -> Pixels:
    _, column, row = tile_index
    number = slide.find_level(tile_pyramid.side)
    width, height = tile_pyramid.compute_tile_shape(tile_index)
    ratio = tile_pyramid.side / slide.levels[number].scale
    stored_size = max(1, round(width * ratio)), max(1, round(height * ratio))
    corner = column * TILE_SIDE * tile_pyramid.side, row * TILE_SIDE * tile_pyramid.side
    pixels = slide.read_for_display(number, *corner, stored_size)
    for axis, (source_length, target_length) in enumerate(
        zip(stored_size[::-1], (height, width), strict=True)
    ):
        if source_length != target_length:
            pixels = resample(pixels, axis, Axis(source_length, target_length, 0, target_length))
    return pixels


OPACITY = 0.45
GREEN, YELLOW, RED = (0, 150, 60), (250, 220, 60), (210, 20, 30)
BLUE, PALE, VERMILION = (0, 90, 181), (240, 240, 235), (220, 80, 10)
MAPS = {"overlay": (GREEN, YELLOW, RED), "overlay-colour-blind": (BLUE, PALE, VERMILION)}
"""The colours for 0, 1/2 and 1 of each map: the paper's, and a colour-blind safe one."""


def draw_overlay(
    image: NDArray[np.uint8],
    side: int,
    grid: PatchGrid,
    tumour: NDArray[np.float64],
    name: str,
    corner: tuple[int, int] = (0, 0),
) -> NDArray[np.uint8]:
    """Return a slide, or a part of it, with the heat map blended over it.

    Args:
        image: The downscaled slide, RGB (rows, columns, 3).
        side: The width of an image pixel in pixels of level 0.
        grid: The patches; each colours its cell.
        tumour: The tumour probability of each patch, NaN where nothing was classified.
        name: One of `MAPS`.
        corner: The column and row of level 0 at which the part starts.
    """
    downwards = corner[1] + np.arange(image.shape[0], dtype=np.int64) * side
    across = corner[0] + np.arange(image.shape[1], dtype=np.int64) * side
    rows, row_in = _find_cells(grid, downwards + side // 2, grid.shape[0], grid.height)
    columns, column_in = _find_cells(grid, across + side // 2, grid.shape[1], grid.width)
    is_classified = ~np.isnan(tumour)
    colour_indices = np.rint(np.where(is_classified, tumour, 0) * 255).astype(np.uint8)
    is_covered = is_classified[rows][:, columns] & row_in[:, None] & column_in
    heat = colour_indices[rows][:, columns][is_covered]
    blended = image.copy()
    for channel, blend_table in enumerate(_build_blend_table(name)):
        blended[:, :, channel][is_covered] = blend_table[heat, image[:, :, channel][is_covered]]
    return blended


def _find_cells(
    grid: PatchGrid, middles: NDArray[np.int64], count: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the cell row or column at the centre of each pixel, and whether there is a cell."""
    middle = np.minimum(middles, end - 1) - grid.inset
    cell = middle // grid.stride
    is_inside = (middle >= 0) & (cell < count)
    return np.clip(cell, 0, count - 1), is_inside


def _build_blend_table(name: str) -> NDArray[np.uint8]:
    """Return the blended colours, (3, 256 map values, 256 slide values)."""
    map_colours = _build_colour_table(name).T[:, :, None]
    return np.rint(np.arange(256) * (1 - OPACITY) + map_colours * OPACITY).astype(np.uint8)


def _build_colour_table(name: str) -> NDArray[np.float64]:
    """Return the 256 colours of a map (256, 3)."""
    low, middle, high = MAPS[name]
    indices = np.arange(256)
    channels = [
        np.interp(indices, (0, 127.5, 255), stops) for stops in zip(low, middle, high, strict=True)
    ]
    return np.rint(np.stack(channels, axis=1))


PAGE_FOLDER = Path(__file__).resolve().parent / "viewer"
RESULT_FILE, OVERLAY_FILE = "result.js", "overlay.tif"
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
LIBRARY_FILES = {
    "openseadragon.min.js": "openseadragon.min.js",
    "LICENSE.txt": "LICENSE-openseadragon.txt",
}
"""File names of the library in a page."""
MAP_TITLES = {
    "overlay": "Green to red",
    "overlay-colour-blind": "Blue to orange (colour-blind safe)",
}


@dataclass(frozen=True)
class SlideView:
    """A slide, its result, and the tiles to show."""

    slide: Slide
    slide_result: StoredResult
    pyramid: TilePyramid


def build_view(slide: Slide, slide_result: StoredResult, finest_mpp: float | None) -> SlideView:
    """Return the view of a slide.

    Args:
        slide: The slide.
        slide_result: The result of a run.
        finest_mpp: Micrometres per pixel of the largest level; None for the patches' resolution.

    Raises:
        UserError: The result is of another slide (E1313), or the view is too large (E1304).
    """
    grid, summary = slide_result.grid, slide_result.summary
    if (grid.width, grid.height) != (slide.width, slide.height):
        message = f"the result is for a slide of {grid.width} x {grid.height} pixels"
        label = f"this slide has {slide.width} x {slide.height} pixels"
        help = "give the slide that the result was computed from"
        raise fail("E1313", message, make_file_span(str(slide.path)), label=label, help=help)
    max_scale = finest_mpp / slide_result.mpp if finest_mpp else grid.span / summary.grid.patch
    return SlideView(slide, slide_result, build_pyramid(slide, max_scale))


def write_page(folder: Path, slide_view: SlideView, progress: Progress) -> None:
    """Fill an empty folder with the page, its tiles and the pyramidal image.

    Raises:
        UserError: The slide is damaged (E1302).
        MissingTool: OpenSeadragon is not available.
    """
    for name, content in LIBRARY.load_files().items():
        (folder / LIBRARY_FILES[name]).write_bytes(content)
    for path in sorted(PAGE_FOLDER.iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / RESULT_FILE).write_bytes(
        b"globalThis.RESULT = " + _encode_result(slide_view) + b";\n"
    )
    for level in range(slide_view.pyramid.depth + 1):
        (folder / "tiles" / str(level)).mkdir(parents=True)
    for tile_index, pixels in iterate_tiles(slide_view.slide, slide_view.pyramid, progress):
        _locate_tile(folder, tile_index).write_bytes(slide_images.encode_jpeg(pixels))
    _write_overlay(folder, slide_view)


def check_overwrite(path: Path) -> str | None:
    """Return the reason not to replace a folder by a view; None if it is a view."""
    is_page = (path / RESULT_FILE).is_file() and (path / OVERLAY_FILE).is_file()
    return None if is_page else "it is not the page of a slide"


def _locate_tile(folder: Path, tile_index: TileIndex) -> Path:
    level, column, row = tile_index
    return folder / "tiles" / str(level) / f"{column}_{row}.jpg"


def _encode_result(slide_view: SlideView) -> bytes:
    """Return the data of the page as JSON."""
    slide_result, grid, summary = (
        slide_view.slide_result,
        slide_view.slide_result.grid,
        slide_view.slide_result.summary,
    )
    width, height = slide_view.pyramid.compute_size(slide_view.pyramid.depth)
    document = {
        "slide": {"name": slide_view.slide.path.name, "width": grid.width, "height": grid.height},
        "image": {
            "width": width,
            "height": height,
            "side": slide_view.pyramid.side,
            "tile": TILE_SIDE,
            "depth": slide_view.pyramid.depth,
        },
        "grid": {
            "rows": grid.shape[0],
            "columns": grid.shape[1],
            "span": grid.span,
            "stride": grid.stride,
            "inset": grid.inset,
        },
        "classes": summary.classes,
        "notice": summary.bundle.notice or "",
        "maps": {MAP_TITLES[name]: colours for name, colours in MAPS.items()},
        "patches": {
            "places": _encode_base64(slide_result.cells @ (grid.shape[1], 1), "<u4"),
            "tissue": _encode_base64(slide_result.numbers[:, 0], "<f4"),
            "classes": _encode_base64(slide_result.numbers[:, 1:-1], "<f4"),
            "tumour": _encode_base64(slide_result.tumour, "<f4"),
            "positive": _encode_base64(slide_result.is_positive, "u1"),
        },
        "facts": _list_facts(slide_view),
    }
    # For a separate script file, so that no text in it can end the page's script element.
    return json.dumps(document, allow_nan=False).encode()


def _list_facts(slide_view: SlideView) -> list[tuple[str, str]]:
    summary = slide_view.slide_result.summary
    rule = summary.tumour
    return [
        ("size", f"{slide_view.slide.width:,} x {slide_view.slide.height:,} pixels"),
        ("pixel", f"{slide_view.slide_result.mpp:g} µm"),
        ("network", f"{summary.bundle.network}, {summary.bundle.precision}"),
        ("tumour is", " or ".join(rule.classes)),
        ("threshold", "the predicted class" if rule.threshold is None else f"{rule.threshold:g}"),
        ("patches", f"{summary.patches:,}, {summary.positive:,} of them tumour"),
        ("tissue", f"{summary.tissue_mm2:.2f} mm²"),
        ("tumour", f"{summary.positive_mm2:.2f} mm²"),
        ("damaged", f"{summary.damaged:,} patches"),
    ]


def _encode_base64(numbers: NDArray[Any], dtype: str) -> str:
    return b64encode(np.ascontiguousarray(numbers, dtype).tobytes()).decode()


def _write_overlay(folder: Path, slide_view: SlideView) -> None:
    """Write the slide with its heat map as a pyramidal TIFF for slide viewers."""
    pyramid, heat = slide_view.pyramid, slide_view.slide_result.to_raster()
    with (folder / OVERLAY_FILE).open("w+b") as file:
        tiff = TiledTiff(file)
        for level in reversed(range(pyramid.depth + 1)):
            micrometres = slide_view.slide_result.mpp * pyramid.compute_scale(level)
            tiles = _encode_tiles(folder, slide_view, level, heat)
            tiff.write_level(*pyramid.compute_size(level), TILE_SIDE, micrometres, tiles)


def _encode_tiles(
    folder: Path, slide_view: SlideView, level: int, heat: NDArray[np.float64]
) -> Iterator[bytes]:
    """Yield the complete tiles of a level with the heat map, as JPEG files."""
    columns, rows = slide_view.pyramid.count_tiles(level)
    side = slide_view.pyramid.compute_scale(level)
    for row in range(rows):
        for column in range(columns):
            corner = column * TILE_SIDE * side, row * TILE_SIDE * side
            pixels = slide_images.decode_jpeg(
                _locate_tile(folder, (level, column, row)).read_bytes()
            )
            blended = draw_overlay(
                pixels, side, slide_view.slide_result.grid, heat, "overlay", corner
            )
            height, width = blended.shape[:2]
            padded = np.pad(
                blended, ((0, TILE_SIDE - height), (0, TILE_SIDE - width), (0, 0)), "edge"
            )
            yield slide_images.encode_jpeg(padded)
