"""Draw synthetic images of stained blood cells: platelets, red cells and white cells.

No image comes from a patient or a dataset. Cells are discs in the colours of a Giemsa stain, and
noise deforms their edges. As in `make_samples.py`, only operations that IEEE 754 rounds exactly are
used, so every machine draws the same pixels.
"""

from collections.abc import Callable, Iterator

import numpy as np
from make_samples import interpolate_lattice
from numpy.typing import NDArray

Field = NDArray[np.float64]
Colour = tuple[float, float, float]
SIDE = 128
CELLS = 6
MIDDLE = (SIDE - 1) / 2
ROW_GRID, COLUMN_GRID = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


class Smear:
    """One image: the transmitted light and the random generator."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        background = np.array(self.sample_colour((206, 214, 206), 5))
        self.light = background + 10 * (self.make_noise(60)[:, :, None] - 0.5)

    def sample_uniform(self, low: float, high: float) -> float:
        """Return a random number from `low` to `high`."""
        return low + (high - low) * float(self.rng.random())

    def make_noise(self, size: float) -> Field:
        """Return smooth noise in [0, 1] with features of `size` pixels."""
        return interpolate_lattice(self.rng.random((64, 64)), COLUMN_GRID / size, ROW_GRID / size)

    def sample_colour(self, colour: Colour, spread: float) -> Colour:
        """Return a random colour near another one; mostly the brightness varies."""
        brightness_shift = self.sample_uniform(-spread, spread)
        red, green, blue = (
            part + brightness_shift + 0.5 * self.sample_uniform(-spread, spread) for part in colour
        )
        return red, green, blue

    def sample_point(self, low: float, high: float) -> tuple[float, float]:
        """Return a point (x, y) at a random distance from the centre, in a random direction."""
        t, distance = self.sample_uniform(-1, 1), self.sample_uniform(low, high)
        side = 1 if self.rng.random() < 0.5 else -1
        c, s = side * (1 - t * t) / (1 + t * t), 2 * side * t / (1 + t * t)
        return MIDDLE + distance * c, MIDDLE + distance * s

    def make_disc(
        self, centre: tuple[float, float], radius: float, bend: float, soft: float
    ) -> Field:
        """Return a mask, 1 inside a disc and 0 outside; noise moves its edge by `bend` pixels."""
        centre_x, centre_y = centre
        stretch = self.sample_uniform(0.88, 1.12)
        distance = np.sqrt(
            np.square((COLUMN_GRID - centre_x) * stretch)
            + np.square((ROW_GRID - centre_y) / stretch)
        )
        edge = radius + bend * 2 * (self.make_noise(max(radius * 0.8, 4)) - 0.5)
        inside: Field = np.clip((edge - distance) / soft + 0.5, 0, 1)
        return inside

    def add_colour(self, mask: Field, colour: Colour, grain: float = 0, size: float = 4) -> None:
        """Blend a colour into the image where the mask is set; `grain` is its variation."""
        flat = np.array(colour) + grain * 2 * (self.make_noise(size)[:, :, None] - 0.5)
        self.light += mask[:, :, None] * (flat - self.light)

    def draw_red_cell(self, centre: tuple[float, float]) -> None:
        """Draw a red cell: a disc with a darker rim, usually paler in the middle."""
        radius, colour = self.sample_uniform(33, 45), self.sample_colour((194, 152, 146), 10)
        self.add_colour(self.make_disc(centre, radius, 3, 4), colour, 4, 12)
        red, green, blue = colour
        if self.rng.random() < 0.7:
            share, pale = self.sample_uniform(0.25, 0.5), self.sample_uniform(12, 30)
            lighter = (red + 0.6 * pale, green + 1.2 * pale, blue + 1.1 * pale)
            self.add_colour(
                self.make_disc(centre, radius * share, 3, self.sample_uniform(6, 14)),
                lighter,
                3,
                12,
            )

    def render(self) -> NDArray[np.uint8]:
        """Return the image, slightly blurred like a camera's, uint8 (SIDE, SIDE, 3)."""
        wide = np.pad(self.light, ((1, 1), (1, 1), (0, 0)), "edge")
        soft = wide[:-2] + 2 * wide[1:-1] + wide[2:]
        soft = (soft[:, :-2] + 2 * soft[:, 1:-1] + soft[:, 2:]) / 16
        grain = 4 * (self.rng.random((SIDE, SIDE, 1)) - 0.5) + 2 * (
            self.rng.random((SIDE, SIDE, 3)) - 0.5
        )
        return np.clip(np.floor(soft + grain + 0.5), 0, 255).astype(np.uint8)


def draw_platelet(smear: Smear) -> None:
    """Draw a platelet, a small violet cell without a nucleus, between red cells."""
    for _ in range(int(smear.sample_uniform(1, 4))):
        smear.draw_red_cell(smear.sample_point(70, 92))
    for centre in [
        smear.sample_point(0, 4),
        *([smear.sample_point(14, 24)] if smear.rng.random() < 0.3 else []),
    ]:
        colour = smear.sample_colour((126, 122, 190), 14)
        radius = smear.sample_uniform(5.5, 10)
        smear.add_colour(smear.make_disc(centre, radius, 4, 4), colour, 18, 4)
        dark = (colour[0] - 25, colour[1] - 30, colour[2] - 10)
        smear.add_colour(0.6 * smear.make_disc(centre, radius * 0.5, 2, 4), dark)


def draw_red_cell(smear: Smear) -> None:
    """Draw a red cell among others."""
    for _ in range(int(smear.sample_uniform(1, 4))):
        smear.draw_red_cell(smear.sample_point(66, 90))
    smear.draw_red_cell(smear.sample_point(0, 6))


def draw_white_cell(smear: Smear) -> None:
    """Draw a white cell: pale violet, with a dark nucleus of one to four lobes."""
    for _ in range(int(smear.sample_uniform(0, 4))):
        smear.draw_red_cell(smear.sample_point(84, 98))
    cell_centre = smear.sample_point(0, 5)
    smear.add_colour(
        smear.make_disc(cell_centre, smear.sample_uniform(48, 64), 6, 4),
        smear.sample_colour((204, 172, 206), 10),
        10,
    )
    colour, lobes = smear.sample_colour((106, 82, 196), 12), int(smear.sample_uniform(1, 5))
    lobe_centres = (
        [smear.sample_point(16, 30) for _ in range(lobes)]
        if lobes > 1
        else [smear.sample_point(0, 8)]
    )
    size = (18, 27) if lobes > 1 else (32, 44)
    nucleus = np.zeros((SIDE, SIDE))
    for lobe_centre in lobe_centres:
        nucleus = np.maximum(
            nucleus, smear.make_disc(lobe_centre, smear.sample_uniform(*size), 7, 3)
        )
    smear.add_colour(nucleus, colour, 22, 6)


CLASSES: dict[str, Callable[[Smear], None]] = {
    "Platelets": draw_platelet,
    "RBC": draw_red_cell,
    "WBC": draw_white_cell,
}


def draw(label: str, number: int) -> NDArray[np.uint8]:
    """Return one image, uint8 (SIDE, SIDE, 3)."""
    smear = Smear((*label.encode(), number))
    CLASSES[label](smear)
    return smear.render()


def generate_cells() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield every image with its path in the folder, `<class>/<number>.png`."""
    for label in CLASSES:
        for number in range(1, CELLS + 1):
            yield f"{label}/{number}.png", draw(label, number)
