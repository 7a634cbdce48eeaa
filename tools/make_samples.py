#!/usr/bin/env python3
"""Draw the sample images of the zoo: H&E-like tiles in `samples`, blood cells in `cells`.

    python tools/make_samples.py [ZOO] [--check]

They lie in a folder a class. `--check` writes nothing and fails when an image has other pixels, or
is not one of these. The cells are in `draw_cells.py`, the tiles here.
Nothing here comes from a patient or a data set: tissue is noise, nuclei are ellipses, and two
stain concentrations become colours. Only operations that IEEE 754 rounds exactly are used (no
sine, no exponential, no sums in an order left to a library), so that every machine draws the
same pixels.
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
"""How much of red, green and blue a unit of each stain takes away."""

Field = NDArray[np.float64]
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


@dataclass(frozen=True)
class Nuclei:
    """A population of cells: radius in pixels, length over width, and how dark they are."""

    count: int
    radius: tuple[float, float]
    aspect: tuple[float, float] = (1.0, 1.5)
    stain: tuple[float, float] = (0.9, 1.3)
    apart: float = 1.6
    halo: float = 0.0


class Tile:
    """Stain concentrations of one tile, and the noise it is drawn with."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.eosin = np.zeros((SIDE, SIDE))
        self.hematoxylin = np.zeros((SIDE, SIDE))

    def uniform(self, low: float, high: float) -> float:
        """Return a random number."""
        return low + (high - low) * float(self.rng.random())

    def direction(self) -> tuple[float, float]:
        """Return a random unit vector (x, y) in the right half plane."""
        t = self.uniform(-1, 1)
        return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)

    def noise(self, size: float, octaves: int = 3, u: Field = X, v: Field = Y) -> Field:
        """Return smooth noise in [0, 1] whose largest features are `size` pixels of u and v."""
        total, weight, weights = np.zeros((SIDE, SIDE)), 1.0, 0.0
        for _ in range(octaves):
            lattice = self.rng.random((64, 64))
            total += weight * interpolated(lattice, u / size, v / size)
            weights += weight
            size, weight = size / 2, weight / 2
        return np.clip(total / weights, 0, 1)

    def along(self, axis: tuple[float, float], stretch: float, wave: float) -> tuple[Field, Field]:
        """Return coordinates along and across an axis, bent by up to `wave` pixels."""
        c, s = axis
        bent = wave * (self.noise(70, 2) - 0.5)
        return (c * X + s * Y) / stretch, c * Y - s * X + bent

    def scatter(self, cells: Nuclei, where: Field | None = None) -> list[tuple[float, float]]:
        """Return places (x, y) that keep apart, denser where `where` is near 1."""
        kept: list[tuple[float, float]] = []
        gap = (cells.apart * cells.radius[1]) ** 2
        for _ in range(cells.count * 30):
            x, y = (self.uniform(0, SIDE - 1) for _ in range(2))
            if where is not None and self.rng.random() > where[int(y), int(x)]:
                continue
            if all((x - a) * (x - a) + (y - b) * (y - b) > gap for a, b in kept):
                kept.append((x, y))
            if len(kept) == cells.count:
                break
        return kept

    def add(
        self, cells: Nuclei, where: Field | None = None, axis: tuple[float, float] | None = None
    ) -> None:
        """Draw nuclei, along an axis if one is given; each has chromatin and a darker rim."""
        chromatin = self.noise(5, 2)
        for x, y in self.scatter(cells, where):
            c, s = self._near(axis) if axis else self.direction()
            width = self.uniform(*cells.radius)
            length = width * self.uniform(*cells.aspect)
            u, v = c * (X - x) + s * (Y - y), c * (Y - y) - s * (X - x)
            q = np.sqrt((u / length) * (u / length) + (v / width) * (v / width))
            inside = np.clip((1 - q) * width * 0.8 + 0.5, 0, 1)
            rim = np.clip(q - 0.55, 0, 0.45)
            body = self.uniform(*cells.stain) * (0.62 + 0.55 * chromatin + 0.7 * rim)
            around = np.clip((1 + cells.halo - q) * width * 0.5, 0, 1) if cells.halo else inside
            self.eosin *= 1 - around * (0.85 if cells.halo else 0.4)
            self.hematoxylin += inside * (body - self.hematoxylin)

    def _near(self, axis: tuple[float, float]) -> tuple[float, float]:
        """Return a unit vector close to an axis."""
        c, s = (part + self.uniform(-0.18, 0.18) for part in axis)
        norm = float(np.sqrt(c * c + s * s))
        return c / norm, s / norm

    def pixels(self) -> NDArray[np.uint8]:
        """Return the tile as light passes through it, uint8 (SIDE, SIDE, 3)."""
        stains = zip(EOSIN, HEMATOXYLIN, strict=True)
        light = [
            WHITE / np.square(1 + 0.5 * (e * self.eosin + h * self.hematoxylin)) for e, h in stains
        ]
        grain = 3 * (self.rng.random((SIDE, SIDE)) - 0.5)
        steps: Field = np.floor((np.stack(light, axis=-1) + grain[:, :, None]) / 2 + 0.5) * 2
        return np.clip(steps, 0, 255).astype(np.uint8)


def interpolated(lattice: Field, u: Field, v: Field) -> Field:
    """Return a periodic lattice of random values at real coordinates, without edges."""
    i, j = np.floor(u), np.floor(v)
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    i, j = i.astype(np.int64) % 64, j.astype(np.int64) % 64
    k, m = (i + 1) % 64, (j + 1) % 64
    top = lattice[j, i] * (1 - a) + lattice[j, k] * a
    bottom = lattice[m, i] * (1 - a) + lattice[m, k] * a
    return top * (1 - b) + bottom * b


def _above(field: Field, threshold: float, softness: float) -> Field:
    """Return 0 below a threshold, 1 above it, and a ramp of the given width between."""
    return np.clip((field - threshold) / softness + 0.5, 0, 1)


def _walls(tile: Tile, cells: int) -> Field:
    """Return the distance of each pixel to the border between its cell and the next."""
    places = np.array(tile.scatter(Nuclei(cells, (18.0, 18.0), apart=1.5)))
    bend = [7 * (tile.noise(40, 2) - 0.5) for _ in range(2)]
    far = [np.square(X + bend[0] - x) + np.square(Y + bend[1] - y) for x, y in places]
    nearest, second = np.sort(np.sqrt(np.stack(far)), axis=0)[:2]
    border: Field = second - nearest
    return border


def adipose(tile: Tile) -> None:
    """Fat: empty round cells between thin walls, a few flat nuclei in these."""
    border = _walls(tile, 26)
    wall = 1 - _above(border, tile.uniform(3, 5), 3)
    tile.eosin += wall * (0.5 + 0.5 * tile.noise(12)) + 0.03 * tile.noise(30)
    tile.add(Nuclei(7, (2.5, 3.5), (1.6, 2.6), (0.8, 1.1)), wall)


def mucus(tile: Tile) -> None:
    """Mucus: pale lilac with streaks, and a few loose cells."""
    u, v = tile.along(tile.direction(), 4, 60)
    streaks = tile.noise(16, 4, u, v)
    cloud = tile.noise(60)
    tile.hematoxylin += 0.10 + 0.16 * cloud + 0.28 * _above(streaks, 0.56, 0.2) * cloud
    tile.eosin += 0.06 + 0.12 * streaks
    tile.add(Nuclei(9, (3.5, 5.5), (1.0, 1.4), (0.7, 1.1), halo=0.5), _above(cloud, 0.55, 0.2))


def muscle(tile: Tile) -> None:
    """Smooth muscle: straight dense fibres, long nuclei between them."""
    axis = tile.direction()
    u, v = tile.along(axis, 9, 14)
    fibres = tile.noise(14, 4, u, v)
    gaps = _above(tile.noise(22, 2, u, v), 0.68, 0.06)
    tile.eosin += (0.75 + 0.6 * fibres) * (1 - 0.85 * gaps)
    tile.hematoxylin += 0.10 * fibres * (1 - gaps)
    tile.add(Nuclei(34, (2.4, 3.4), (2.6, 4.2), (0.7, 1.05), 2.4), 1 - gaps, axis)


def stroma(tile: Tile) -> None:
    """Connective tissue: wavy loose collagen, spindle nuclei, gaps."""
    axis = tile.direction()
    u, v = tile.along(axis, 5, 70)
    bundles = tile.noise(18, 4, u, v)
    loose = _above(bundles, 0.44, 0.16)
    tile.eosin += loose * (0.35 + 0.75 * bundles) + 0.05
    tile.hematoxylin += 0.05 * loose
    tile.add(Nuclei(38, (2.4, 4.0), (1.4, 3.4), (0.7, 1.1), 2.0), loose, axis)
    tile.add(Nuclei(14, (3.2, 3.8), (1.0, 1.1), (1.2, 1.5), 1.5), _above(tile.noise(50), 0.6, 0.1))


def nests(tile: Tile) -> None:
    """Islands of tumour-like cells in connective tissue."""
    stroma(tile)
    island = _above(tile.noise(75, 2), 0.54, 0.04)
    tile.eosin += island * (0.55 + 0.25 * tile.noise(9) - tile.eosin)
    tile.hematoxylin += island * (0.22 - tile.hematoxylin)
    tile.add(Nuclei(80, (4.2, 6.6), (1.0, 1.5), (0.8, 1.3), 1.35), island)


def tumor(tile: Tile) -> None:
    """Sheets of large crowded nuclei of uneven size and stain."""
    sheet = _above(tile.noise(60, 2), 0.34, 0.05)
    tile.eosin += 0.12 + sheet * (0.42 + 0.3 * tile.noise(10))
    tile.hematoxylin += 0.03 + sheet * (0.16 + 0.12 * tile.noise(20))
    tile.add(Nuclei(170, (4.5, 8.0), (1.0, 1.7), (0.75, 1.45), 1.2), sheet)


CLASSES: dict[str, Callable[[Tile], None]] = {
    "ADI": adipose,
    "MUC": mucus,
    "MUS": muscle,
    "STR": stroma,
    "STU": nests,
    "TUM": tumor,
}


def draw(label: str, number: int) -> NDArray[np.uint8]:
    """Return one tile, uint8 (SIDE, SIDE, 3)."""
    tile = Tile((*label.encode(), number))
    CLASSES[label](tile)
    return tile.pixels()


def tiles() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield every tile by its place in the folder, `<class>/<number>.png`."""
    for label in CLASSES:
        for number in range(1, TILES + 1):
            yield f"{label}/{number}.png", draw(label, number)


def sets() -> dict[str, dict[str, NDArray[np.uint8]]]:
    """Return the pictures of each folder of `zoo`."""
    from draw_cells import cells

    return {"samples": dict(tiles()), "cells": dict(cells())}


def stale(folder: Path, drawn: dict[str, NDArray[np.uint8]]) -> list[str]:
    """Return the files of a folder that are not the pictures, and the pictures that are not there.

    Pixels are compared: the bytes of a PNG file depend on the version of zlib.
    """
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*.png")}
    other = [
        name
        for name, pixels in drawn.items()
        if name not in found or not np.array_equal(np.asarray(Image.open(found[name])), pixels)
    ]
    return [*other, *sorted(set(found) - set(drawn))]


def main() -> int:
    """Write or check the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path, nargs="?", default=ZOO)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    zoo, wrong = asked.zoo, False
    for name, drawn in sets().items():
        folder = zoo / name
        for each in stale(folder, drawn):
            wrong = True
            path = folder / each
            if asked.check:
                print(f"{name}/{each} is out of date: run tools/make_samples.py")
            elif each in drawn:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(drawn[each]).save(path, compress_level=9)
    return int(wrong and asked.check)


if __name__ == "__main__":
    sys.exit(main())
