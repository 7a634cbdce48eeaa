"""Drawings of stained blood cells as a smear shows them: platelets, red and white cells.

Nothing here comes from a patient or a data set. Cells are discs with edges bent by noise, in the
colours of a Giemsa stain. As in `make_samples.py`, only operations that IEEE 754 rounds exactly
are used, so that every machine draws the same pixels.
"""

from collections.abc import Callable, Iterator

import numpy as np
from make_samples import interpolated
from numpy.typing import NDArray

Field = NDArray[np.float64]
Colour = tuple[float, float, float]
SIDE = 128
CELLS = 6
MIDDLE = (SIDE - 1) / 2
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


class Smear:
    """One picture: what light comes through, and the noise that it is drawn with."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        plain = np.array(self.tone((206, 214, 206), 5))
        self.light = plain + 10 * (self.noise(60)[:, :, None] - 0.5)

    def uniform(self, low: float, high: float) -> float:
        """Return a random number."""
        return low + (high - low) * float(self.rng.random())

    def noise(self, size: float) -> Field:
        """Return smooth noise in [0, 1] whose features are `size` pixels large."""
        return interpolated(self.rng.random((64, 64)), X / size, Y / size)

    def tone(self, colour: Colour, spread: float) -> Colour:
        """Return a colour near another, brighter or darker as a whole above all."""
        whole = self.uniform(-spread, spread)
        red, green, blue = (part + whole + 0.5 * self.uniform(-spread, spread) for part in colour)
        return red, green, blue

    def around(self, low: float, high: float) -> tuple[float, float]:
        """Return a place (x, y) between two distances from the middle, in any direction."""
        t, far = self.uniform(-1, 1), self.uniform(low, high)
        side = 1 if self.rng.random() < 0.5 else -1
        c, s = side * (1 - t * t) / (1 + t * t), 2 * side * t / (1 + t * t)
        return MIDDLE + far * c, MIDDLE + far * s

    def disc(self, place: tuple[float, float], radius: float, bend: float, soft: float) -> Field:
        """Return 1 inside a disc, 0 outside; `bend` pixels of noise move its edge."""
        x, y = place
        wide = self.uniform(0.88, 1.12)
        far = np.sqrt(np.square((X - x) * wide) + np.square((Y - y) / wide))
        edge = radius + bend * 2 * (self.noise(max(radius * 0.8, 4)) - 0.5)
        inside: Field = np.clip((edge - far) / soft + 0.5, 0, 1)
        return inside

    def paint(self, mask: Field, colour: Colour, grain: float = 0, size: float = 4) -> None:
        """Lay a colour over what is there; `grain` is how much it differs within."""
        flat = np.array(colour) + grain * 2 * (self.noise(size)[:, :, None] - 0.5)
        self.light += mask[:, :, None] * (flat - self.light)

    def red_cell(self, place: tuple[float, float]) -> None:
        """Draw a red cell: a disc with a darker rim, most often paler in the middle."""
        radius, colour = self.uniform(33, 45), self.tone((194, 152, 146), 10)
        self.paint(self.disc(place, radius, 3, 4), colour, 4, 12)
        red, green, blue = colour
        if self.rng.random() < 0.7:
            share, pale = self.uniform(0.25, 0.5), self.uniform(12, 30)
            lighter = (red + 0.6 * pale, green + 1.2 * pale, blue + 1.1 * pale)
            self.paint(self.disc(place, radius * share, 3, self.uniform(6, 14)), lighter, 3, 12)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the picture as a camera takes it, a little blurred, uint8 (SIDE, SIDE, 3)."""
        wide = np.pad(self.light, ((1, 1), (1, 1), (0, 0)), "edge")
        soft = wide[:-2] + 2 * wide[1:-1] + wide[2:]
        soft = (soft[:, :-2] + 2 * soft[:, 1:-1] + soft[:, 2:]) / 16
        grain = 4 * (self.rng.random((SIDE, SIDE, 1)) - 0.5) + 2 * (
            self.rng.random((SIDE, SIDE, 3)) - 0.5
        )
        return np.clip(np.floor(soft + grain + 0.5), 0, 255).astype(np.uint8)


def platelet(smear: Smear) -> None:
    """A small violet cell without a nucleus between red cells."""
    for _ in range(int(smear.uniform(1, 4))):
        smear.red_cell(smear.around(70, 92))
    for place in [
        smear.around(0, 4),
        *([smear.around(14, 24)] if smear.rng.random() < 0.3 else []),
    ]:
        colour = smear.tone((126, 122, 190), 14)
        radius = smear.uniform(5.5, 10)
        smear.paint(smear.disc(place, radius, 4, 4), colour, 18, 4)
        dark = (colour[0] - 25, colour[1] - 30, colour[2] - 10)
        smear.paint(0.6 * smear.disc(place, radius * 0.5, 2, 4), dark)


def red_cell(smear: Smear) -> None:
    """A red cell among others."""
    for _ in range(int(smear.uniform(1, 4))):
        smear.red_cell(smear.around(66, 90))
    smear.red_cell(smear.around(0, 6))


def white_cell(smear: Smear) -> None:
    """A white cell: pale violet, its dark nucleus of one to four lobes."""
    for _ in range(int(smear.uniform(0, 4))):
        smear.red_cell(smear.around(84, 98))
    middle = smear.around(0, 5)
    smear.paint(
        smear.disc(middle, smear.uniform(48, 64), 6, 4), smear.tone((204, 172, 206), 10), 10
    )
    colour, lobes = smear.tone((106, 82, 196), 12), int(smear.uniform(1, 5))
    places = [smear.around(16, 30) for _ in range(lobes)] if lobes > 1 else [smear.around(0, 8)]
    size = (18, 27) if lobes > 1 else (32, 44)
    whole = np.zeros((SIDE, SIDE))
    for place in places:
        whole = np.maximum(whole, smear.disc(place, smear.uniform(*size), 7, 3))
    smear.paint(whole, colour, 22, 6)


CLASSES: dict[str, Callable[[Smear], None]] = {
    "Platelets": platelet,
    "RBC": red_cell,
    "WBC": white_cell,
}


def draw(label: str, number: int) -> NDArray[np.uint8]:
    """Return one picture, uint8 (SIDE, SIDE, 3)."""
    smear = Smear((*label.encode(), number))
    CLASSES[label](smear)
    return smear.pixels()


def cells() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield every picture by its place in the folder, `<class>/<number>.png`."""
    for label in CLASSES:
        for number in range(1, CELLS + 1):
            yield f"{label}/{number}.png", draw(label, number)
