"""Probabilities over a slide, as pictures."""

from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.slides.patch_grid import PatchGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPACITY = 0.45
GREEN, YELLOW, RED = (0, 150, 60), (250, 220, 60), (210, 20, 30)
BLUE, PALE, VERMILION = (0, 90, 181), (240, 240, 235), (220, 80, 10)
MAPS = {"overlay": (GREEN, YELLOW, RED), "overlay-colour-blind": (BLUE, PALE, VERMILION)}
"""The colours of 0, 1/2 and 1 of each map: the paper's, and one that the colour-blind can read."""


def overlay(
    image: "NDArray[np.uint8]",
    side: int,
    grid: PatchGrid,
    tumour: "NDArray[np.float64]",
    name: str,
    corner: tuple[int, int] = (0, 0),
) -> "NDArray[np.uint8]":
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
    grid: PatchGrid, middles: "NDArray[np.int64]", count: int, end: int
) -> "tuple[NDArray[np.int64], NDArray[np.bool_]]":
    """Return the row or column of cells under the middle of each pixel, and whether one is."""
    middle = np.minimum(middles, end - 1) - grid.inset
    place = middle // grid.stride
    inside = (middle >= 0) & (place < count)
    return np.clip(place, 0, count - 1), inside


def _mixed(name: str) -> "NDArray[np.uint8]":
    """Return what 256 levels of a map make of 256 of a slide: (3, levels of it, of the slide)."""
    colours = _table(name).T[:, :, None]
    return np.rint(np.arange(256) * (1 - OPACITY) + colours * OPACITY).astype(np.uint8)


def _table(name: str) -> "NDArray[np.float64]":
    """Return 256 colours of a map."""
    low, middle, high = MAPS[name]
    at = np.arange(256)
    parts = [np.interp(at, (0, 127.5, 255), three) for three in zip(low, middle, high, strict=True)]
    return np.rint(np.stack(parts, axis=1))
