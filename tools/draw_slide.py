"""Draw a large synthetic slide, SLIDE.tif, with its tumour outlines, SLIDE.geojson.

`python tools/draw_slide.py SLIDE.tif --side 100000` draws 100,000 x 100,000 pixels of half a
micrometre. The slide repeats a few distinct tiles, so the file is small. Each tile is paper, tissue
or tumour, at all levels.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import contours, geojson, slide_images
from tcc.compiler.slides.slide_viewer import TiledTiff

TILE = 512
PAPER, TISSUE, TUMOUR = range(3)
COLOURS = ((243, 243, 244), (205, 120, 170), (110, 60, 140))
MPP = 0.5


def make_tile_kinds(side: int) -> NDArray[np.uint8]:
    """Return the kind of each tile: two pieces of tissue with three tumours."""
    count = -(-side // TILE)
    down, across = (np.mgrid[:count, :count] + 0.5) / count
    tile_kinds = np.zeros((count, count), np.uint8)
    for centre_x, centre_y, radius_x, radius_y, kind in (
        (0.3, 0.4, 0.2, 0.3, TISSUE), (0.75, 0.6, 0.15, 0.25, TISSUE),
        (0.25, 0.3, 0.04, 0.06, TUMOUR), (0.35, 0.55, 0.02, 0.02, TUMOUR),
        (0.75, 0.6, 0.06, 0.04, TUMOUR),
    ):  # fmt: skip
        tile_kinds[
            ((across - centre_x) / radius_x) ** 2 + ((down - centre_y) / radius_y) ** 2 <= 1
        ] = kind
    return tile_kinds


def write(path: Path, side: int) -> None:
    """Write a slide and, next to it, the outlines of its tumours."""
    tile_kinds = make_tile_kinds(side)
    noise = np.random.default_rng(0).normal(0, 8, (len(COLOURS), TILE, TILE, 3))
    textures = np.clip(noise + np.array(COLOURS)[:, None, None], 0, 255)
    levels = max(0, (len(tile_kinds) - 1).bit_length())
    with path.open("w+b") as file:
        slide_file = TiledTiff(file)
        for level in range(levels + 1):
            size = -(-side // (1 << level))
            slide_file.write_level(
                size, size, TILE, MPP * (1 << level), _generate_tiles(tile_kinds, textures, level)
            )
    rings = [
        [np.minimum(ring * TILE, side) for ring in polygon]
        for polygon in contours.find_polygons(tile_kinds == TUMOUR)
    ]
    features = [
        geojson.build_feature([outline], "annotation", "Tumor", (200, 0, 0)) for outline in rings
    ]
    path.with_suffix(".geojson").write_bytes(geojson.encode_features(features))


def _generate_tiles(
    tile_kinds: NDArray[np.uint8], textures: NDArray[np.float64], level: int
) -> Iterator[bytes]:
    """Yield the tiles of a level; each tile of the largest level shrinks to a small square."""
    step, small = 1 << level, TILE >> level
    blocks = textures.reshape(len(COLOURS), small, step, small, step, 3).mean(axis=(2, 4))
    encoded_tiles: dict[bytes, bytes] = {}
    for first_row in range(0, len(tile_kinds), step):
        for first_column in range(0, len(tile_kinds), step):
            part = np.zeros((step, step), np.uint8)
            region = tile_kinds[first_row : first_row + step, first_column : first_column + step]
            part[: region.shape[0], : region.shape[1]] = region
            key = part.tobytes()
            if key not in encoded_tiles:
                pixels = np.moveaxis(blocks[part], 1, 2).reshape(TILE, TILE, 3)
                encoded_tiles[key] = slide_images.encode_jpeg(np.rint(pixels).astype(np.uint8))
            yield encoded_tiles[key]


def main() -> None:
    """Draw the slide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("slide", type=Path, help="the .tif file to write")
    parser.add_argument("--side", type=int, default=100_000, help="pixels per side")
    options = parser.parse_args()
    write(options.slide, options.side)


if __name__ == "__main__":
    main()
