#!/usr/bin/env python3
"""Draw the sample images of the zoo: H&E-like tiles in `samples`, blood cells in `cells`.

    python tools/make_samples.py [ZOO] [--check]

Each class has a folder. With `--check`, write nothing and fail if an image has other pixels or is
not one of these. The cells are in `draw_cells.py`, the tiles in this file.

No image comes from a patient or a dataset. Tissue is noise, nuclei are ellipses, and two stain
concentrations become colours. Only operations that IEEE 754 rounds exactly are used, so every
machine draws the same pixels: no sine, no exponential, no sum in an order that a library chooses.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ZOO = Path(__file__).resolve().parents[1] / "zoo"
SIDE = 224
TILES = 4
WHITE = 246.0
EOSIN = (0.06, 0.62, 0.30)
HEMATOXYLIN = (1.05, 1.25, 0.42)
"""The absorbance of a unit of each stain in red, green and blue."""

Field = NDArray[np.float64]
ROW_GRID, COLUMN_GRID = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


@dataclass(frozen=True)
class Nuclei:
    """A population of nuclei: radius in pixels, ratio of length to width, and darkness."""

    count: int
    radius: tuple[float, float]
    aspect: tuple[float, float] = (1.0, 1.5)
    stain: tuple[float, float] = (0.9, 1.3)
    spacing: float = 1.6
    halo: float = 0.0


class Tile:
    """The stain concentrations of one tile, and its random generator."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.eosin = np.zeros((SIDE, SIDE))
        self.hematoxylin = np.zeros((SIDE, SIDE))

    def sample_uniform(self, low: float, high: float) -> float:
        """Return a random number from `low` to `high`."""
        return low + (high - low) * float(self.rng.random())

    def sample_direction(self) -> tuple[float, float]:
        """Return a random unit vector (x, y) in the right half plane."""
        t = self.sample_uniform(-1, 1)
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def make_noise(
        self, size: float, octaves: int = 3, u: Field = COLUMN_GRID, v: Field = ROW_GRID
    ) -> Field:
        """Return smooth noise in [0, 1]; its largest features have `size` pixels of u and v."""
        total, weight, weights = np.zeros((SIDE, SIDE)), 1.0, 0.0
        for _ in range(octaves):
            lattice = self.rng.random((64, 64))
            total += weight * interpolate_lattice(lattice, u / size, v / size)
            weights += weight
            size, weight = size / 2, weight / 2
        return np.clip(total / weights, 0, 1)

    def compute_axis_coordinates(
        self, axis: tuple[float, float], stretch: float, wave: float
    ) -> tuple[Field, Field]:
        """Return coordinates along and across an axis, displaced by up to `wave` pixels."""
        c, s = axis
        bent = wave * (self.make_noise(70, 2) - 0.5)
        return (c * COLUMN_GRID + s * ROW_GRID) / stretch, c * ROW_GRID - s * COLUMN_GRID + bent

    def scatter_points(
        self, cells: Nuclei, density: Field | None = None
    ) -> list[tuple[float, float]]:
        """Return points (x, y) with a minimum distance, denser where `density` is near 1."""
        points: list[tuple[float, float]] = []
        gap = (cells.spacing * cells.radius[1]) ** 2
        for _ in range(cells.count * 30):
            column, row = (self.sample_uniform(0, SIDE - 1) for _ in range(2))
            if density is not None and self.rng.random() > density[int(row), int(column)]:
                continue
            if all((column - a) * (column - a) + (row - b) * (row - b) > gap for a, b in points):
                points.append((column, row))
            if len(points) == cells.count:
                break
        return points

    def add_nuclei(
        self, cells: Nuclei, density: Field | None = None, axis: tuple[float, float] | None = None
    ) -> None:
        """Draw nuclei with chromatin and a darker rim, along an axis if one is given."""
        chromatin = self.make_noise(5, 2)
        for centre_x, centre_y in self.scatter_points(cells, density):
            c, s = self._sample_near_axis(axis) if axis else self.sample_direction()
            width = self.sample_uniform(*cells.radius)
            length = width * self.sample_uniform(*cells.aspect)
            u, v = (
                c * (COLUMN_GRID - centre_x) + s * (ROW_GRID - centre_y),
                c * (ROW_GRID - centre_y) - s * (COLUMN_GRID - centre_x),
            )
            q = np.sqrt((u / length) * (u / length) + (v / width) * (v / width))
            inside = np.clip((1 - q) * width * 0.8 + 0.5, 0, 1)
            rim = np.clip(q - 0.55, 0, 0.45)
            body = self.sample_uniform(*cells.stain) * (0.62 + 0.55 * chromatin + 0.7 * rim)
            around = np.clip((1 + cells.halo - q) * width * 0.5, 0, 1) if cells.halo else inside
            self.eosin *= 1 - around * (0.85 if cells.halo else 0.4)
            self.hematoxylin += inside * (body - self.hematoxylin)

    def _sample_near_axis(self, axis: tuple[float, float]) -> tuple[float, float]:
        """Return a unit vector close to an axis."""
        c, s = (part + self.sample_uniform(-0.18, 0.18) for part in axis)
        norm = float(np.sqrt(c * c + s * s))
        return c / norm, s / norm

    def render(self) -> NDArray[np.uint8]:
        """Return the image of the light that passes through the tile, uint8 (SIDE, SIDE, 3)."""
        stains = zip(EOSIN, HEMATOXYLIN, strict=True)
        light = [
            WHITE / np.square(1 + 0.5 * (e * self.eosin + h * self.hematoxylin)) for e, h in stains
        ]
        grain = 3 * (self.rng.random((SIDE, SIDE)) - 0.5)
        steps: Field = np.floor((np.stack(light, axis=-1) + grain[:, :, None]) / 2 + 0.5) * 2
        return np.clip(steps, 0, 255).astype(np.uint8)


def interpolate_lattice(lattice: Field, u: Field, v: Field) -> Field:
    """Return a periodic lattice of random values, interpolated at real coordinates."""
    i, j = np.floor(u), np.floor(v)
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    i, j = i.astype(np.int64) % 64, j.astype(np.int64) % 64
    k, m = (i + 1) % 64, (j + 1) % 64
    top = lattice[j, i] * (1 - a) + lattice[j, k] * a
    bottom = lattice[m, i] * (1 - a) + lattice[m, k] * a
    return top * (1 - b) + bottom * b


def _apply_threshold(field: Field, threshold: float, softness: float) -> Field:
    """Return 0 below a threshold, 1 above it, and a ramp of the given width between."""
    return np.clip((field - threshold) / softness + 0.5, 0, 1)


def _compute_border_distance(tile: Tile, cells: int) -> Field:
    """Return the distance of each pixel to the border between its cell and the next."""
    cell_centres = np.array(tile.scatter_points(Nuclei(cells, (18.0, 18.0), spacing=1.5)))
    bend = [7 * (tile.make_noise(40, 2) - 0.5) for _ in range(2)]
    square_distances = [
        np.square(COLUMN_GRID + bend[0] - centre_x) + np.square(ROW_GRID + bend[1] - centre_y)
        for centre_x, centre_y in cell_centres
    ]
    nearest, second = np.sort(np.sqrt(np.stack(square_distances)), axis=0)[:2]
    border: Field = second - nearest
    return border


def draw_adipose(tile: Tile) -> None:
    """Draw fat: empty round cells between thin walls, with a few flat nuclei in the walls."""
    border = _compute_border_distance(tile, 26)
    wall = 1 - _apply_threshold(border, tile.sample_uniform(3, 5), 3)
    tile.eosin += wall * (0.5 + 0.5 * tile.make_noise(12)) + 0.03 * tile.make_noise(30)
    tile.add_nuclei(Nuclei(7, (2.5, 3.5), (1.6, 2.6), (0.8, 1.1)), wall)


def draw_mucus(tile: Tile) -> None:
    """Draw mucus: pale lilac with streaks, and a few loose cells."""
    u, v = tile.compute_axis_coordinates(tile.sample_direction(), 4, 60)
    streaks = tile.make_noise(16, 4, u, v)
    cloud = tile.make_noise(60)
    tile.hematoxylin += 0.10 + 0.16 * cloud + 0.28 * _apply_threshold(streaks, 0.56, 0.2) * cloud
    tile.eosin += 0.06 + 0.12 * streaks
    tile.add_nuclei(
        Nuclei(9, (3.5, 5.5), (1.0, 1.4), (0.7, 1.1), halo=0.5), _apply_threshold(cloud, 0.55, 0.2)
    )


def draw_muscle(tile: Tile) -> None:
    """Draw smooth muscle: straight dense fibres with long nuclei between them."""
    axis = tile.sample_direction()
    u, v = tile.compute_axis_coordinates(axis, 9, 14)
    fibres = tile.make_noise(14, 4, u, v)
    gaps = _apply_threshold(tile.make_noise(22, 2, u, v), 0.68, 0.06)
    tile.eosin += (0.75 + 0.6 * fibres) * (1 - 0.85 * gaps)
    tile.hematoxylin += 0.10 * fibres * (1 - gaps)
    tile.add_nuclei(Nuclei(34, (2.4, 3.4), (2.6, 4.2), (0.7, 1.05), 2.4), 1 - gaps, axis)


def draw_stroma(tile: Tile) -> None:
    """Draw connective tissue: wavy loose collagen, spindle nuclei, gaps."""
    axis = tile.sample_direction()
    u, v = tile.compute_axis_coordinates(axis, 5, 70)
    bundles = tile.make_noise(18, 4, u, v)
    loose = _apply_threshold(bundles, 0.44, 0.16)
    tile.eosin += loose * (0.35 + 0.75 * bundles) + 0.05
    tile.hematoxylin += 0.05 * loose
    tile.add_nuclei(Nuclei(38, (2.4, 4.0), (1.4, 3.4), (0.7, 1.1), 2.0), loose, axis)
    tile.add_nuclei(
        Nuclei(14, (3.2, 3.8), (1.0, 1.1), (1.2, 1.5), 1.5),
        _apply_threshold(tile.make_noise(50), 0.6, 0.1),
    )


def draw_nests(tile: Tile) -> None:
    """Draw islands of tumour-like cells in connective tissue."""
    draw_stroma(tile)
    island = _apply_threshold(tile.make_noise(75, 2), 0.54, 0.04)
    tile.eosin += island * (0.55 + 0.25 * tile.make_noise(9) - tile.eosin)
    tile.hematoxylin += island * (0.22 - tile.hematoxylin)
    tile.add_nuclei(Nuclei(80, (4.2, 6.6), (1.0, 1.5), (0.8, 1.3), 1.35), island)


def draw_tumor(tile: Tile) -> None:
    """Draw sheets of large crowded nuclei of uneven size and stain."""
    sheet = _apply_threshold(tile.make_noise(60, 2), 0.34, 0.05)
    tile.eosin += 0.12 + sheet * (0.42 + 0.3 * tile.make_noise(10))
    tile.hematoxylin += 0.03 + sheet * (0.16 + 0.12 * tile.make_noise(20))
    tile.add_nuclei(Nuclei(170, (4.5, 8.0), (1.0, 1.7), (0.75, 1.45), 1.2), sheet)


CLASSES: dict[str, Callable[[Tile], None]] = {
    "ADI": draw_adipose,
    "MUC": draw_mucus,
    "MUS": draw_muscle,
    "STR": draw_stroma,
    "STU": draw_nests,
    "TUM": draw_tumor,
}


def draw(label: str, number: int) -> NDArray[np.uint8]:
    """Return one tile, uint8 (SIDE, SIDE, 3)."""
    tile = Tile((*label.encode(), number))
    CLASSES[label](tile)
    return tile.render()


def generate_tiles() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield every tile with its path in the folder, `<class>/<number>.png`."""
    for label in CLASSES:
        for number in range(1, TILES + 1):
            yield f"{label}/{number}.png", draw(label, number)


def generate_sets() -> dict[str, dict[str, NDArray[np.uint8]]]:
    """Return the images of each folder of `zoo`."""
    from draw_cells import generate_cells

    return {"samples": dict(generate_tiles()), "cells": dict(generate_cells())}


def find_stale_files(folder: Path, images: dict[str, NDArray[np.uint8]]) -> list[str]:
    """Return the files of a folder that are missing, unexpected or different from the images.

    The comparison is of pixels, because the bytes of a PNG file depend on the version of zlib.
    """
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*.png")}
    outdated = [
        name
        for name, pixels in images.items()
        if name not in files or not np.array_equal(np.asarray(Image.open(files[name])), pixels)
    ]
    return [*outdated, *sorted(set(files) - set(images))]


def main() -> int:
    """Write or check the images; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path, nargs="?", default=ZOO)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    zoo, is_stale = options.zoo, False
    for name, images in generate_sets().items():
        folder = zoo / name
        for file_name in find_stale_files(folder, images):
            is_stale = True
            path = folder / file_name
            if options.check:
                print(f"{name}/{file_name} is out of date: run tools/make_samples.py")
            elif file_name in images:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[file_name]).save(path, compress_level=9)
    return int(is_stale and options.check)


if __name__ == "__main__":
    sys.exit(main())
