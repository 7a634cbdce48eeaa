"""Sums over the pixels of an 8-bit image: step 1 of the definition."""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Pixels = NDArray[np.uint8]
SUMS = 17
ROW_STEPS = (1, 2, 4, 8, 16)
MAX_SAMPLED_PIXELS = 1 << 20
"""Most pixels of the sampled rows: 65,536 times the sum of their squares stays below 2^53."""


def compute_sums(pixels: Pixels, row_step: int) -> Int64:
    """Return the 17 sums of an image.

    Args:
        pixels: uint8 (height, width, 3), or (height, width, 1), which counts as three equal
            channels.
        row_step: Every `row_step`-th row is sampled, every second of these for colours.

    Returns:
        int64 (17,).
    """
    image = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.int32)
    return np.concatenate(
        [
            _compute_colour_sums(image[:: 2 * row_step]),
            _compute_texture_sums(image[..., 0] + 2 * image[..., 1] + image[..., 2], row_step),
            _compute_colour_differences(image[:: 2 * row_step]),
        ]
    )


def count_sampled_pixels(height: int, width: int, row_step: int) -> tuple[int, int]:
    """Return how many pixels the texture sums and the colour sums read."""
    return width * -(-height // row_step), width * -(-height // (2 * row_step))


def _compute_colour_sums(rows: NDArray[np.int32]) -> Int64:
    red, green, blue = (rows[..., channel] for channel in range(3))
    terms = (
        *(red, green, blue),
        *(red * red, green * green, blue * blue),
        *(red * green, green * blue, red * blue),
    )
    return np.array([term.sum(dtype=np.int64) for term in terms])


def _compute_colour_differences(rows: NDArray[np.int32]) -> Int64:
    red, green, blue = (rows[..., channel] for channel in range(3))
    return np.array([np.abs(red - green).sum(dtype=np.int64), np.abs(green - blue).sum()], np.int64)


def _compute_texture_sums(luminance: NDArray[np.int32], step: int) -> Int64:
    """Return the sums 9 to 14 of a luminance image (height, width)."""
    across = {gap: _compare_across(luminance[::step], gap) for gap in (1, 4, 16)}
    down = {gap: _compare_down(luminance, gap, step) for gap in (1, 4, 16)}
    # The rows of `down[1]` are those of `sampled`: vertical block borders are at multiples of 8.
    sampled = np.arange(0, luminance.shape[0], step)
    borders = down[1][sampled[sampled >= 1] % 8 == 0]
    totals = (
        across[1].sum(dtype=np.int64) + down[1].sum(dtype=np.int64),
        _sum_laplacian(luminance, step),
        across[4].sum(dtype=np.int64) + down[4].sum(dtype=np.int64),
        across[16].sum(dtype=np.int64) + down[16].sum(dtype=np.int64),
        across[1][:, 7::8].sum(dtype=np.int64) + borders.sum(dtype=np.int64),
        np.count_nonzero(across[1] == 0) + np.count_nonzero(down[1] == 0),
    )
    return np.array(totals, np.int64)


def _compare_across(rows: NDArray[np.int32], gap: int) -> NDArray[np.int32]:
    differences: NDArray[np.int32] = np.abs(rows[:, gap:] - rows[:, :-gap])
    return differences


def _compare_down(luminance: NDArray[np.int32], gap: int, step: int) -> NDArray[np.int32]:
    """Return the differences between each sampled row and the row `gap` above it."""
    rows = np.arange(0, luminance.shape[0], step)
    rows = rows[rows >= gap]
    differences: NDArray[np.int32] = np.abs(luminance[rows] - luminance[rows - gap])
    return differences


def _sum_laplacian(luminance: NDArray[np.int32], step: int) -> int:
    """Return the sum of the absolute Laplacian one row above each sampled row."""
    rows = np.arange(0, luminance.shape[0], step)
    rows = rows[rows >= 2]
    middle = luminance[rows - 1]
    neighbours = (
        luminance[rows - 2][:, 1:-1] + luminance[rows][:, 1:-1] + middle[:, :-2] + middle[:, 2:]
    )
    return int(np.abs(4 * middle[:, 1:-1] - neighbours).sum(dtype=np.int64))
