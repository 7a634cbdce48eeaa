"""A slide and its heat map as a page that works without a server, and as one pyramidal image."""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.slides import heat_maps, slide_pictures, tile_pyramid
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.stored_result import StoredResult
from tcc.compiler.slides.tile_pyramid import TILE, TilePlace, TilePyramid
from tcc.compiler.slides.tiled_tiff import TiledTiff
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.npm_packages import NpmPackage
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    return SlideView(slide, result, tile_pyramid.pyramid(slide, finest))


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
    for place, pixels in tile_pyramid.tiles(made.slide, made.pyramid, progress):
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
        "maps": {COLOURS[name]: colours for name, colours in heat_maps.MAPS.items()},
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


def _packed(values: "NDArray[Any]", kind: str) -> str:
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
    folder: Path, made: SlideView, level: int, heat: "NDArray[np.float64]"
) -> Iterator[bytes]:
    """Yield the tiles of a level with the heat map over them, whole, as JPEG files."""
    columns, rows = made.pyramid.count(level)
    side = made.pyramid.scale(level)
    for row in range(rows):
        for column in range(columns):
            corner = column * TILE * side, row * TILE * side
            pixels = slide_pictures.of_jpeg(_tile(folder, (level, column, row)).read_bytes())
            drawn = heat_maps.overlay(pixels, side, made.result.grid, heat, "overlay", corner)
            height, width = drawn.shape[:2]
            whole = np.pad(drawn, ((0, TILE - height), (0, TILE - width), (0, 0)), "edge")
            yield slide_pictures.jpeg(whole)
