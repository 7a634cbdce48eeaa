"""Scale pixels along one axis: bilinear with antialiasing, bit-exact to Pillow.

Sums are in fixed point, so that the order of their terms and the strips do not change the result.
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

from tcc.compiler.ir.types import Pair
from tcc.compiler.support.lazy_numpy import np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

PRECISION = 22
"""Fraction bits of a coefficient, as in Pillow's 8-bit resampling (Resample.c): of 32 bits, 8 are
the pixel's, and 2 are reserved for sums that overshoot."""
STRIP_ELEMENTS = 1 << 22
"""Numbers that are computed at a time, to bound the memory."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an image: `source` pixels are scaled to `scaled`.

    Only `count` of these, from `start` on, are computed.
    """

    source: int
    scaled: int
    start: int
    count: int

    @property
    def source_range(self) -> tuple[int, int]:
        """The first source pixel that is read, and the end of the range."""
        if self.scaled == self.source:
            return self.start, self.start + self.count
        scale = self.source / self.scaled
        # The triangle filter extends one pixel of the smaller image to each side: enlarging
        # interpolates, reducing averages all pixels that are covered.
        support = max(scale, 1.0)
        low, high = ((self.start + i + 0.5) * scale for i in (0, self.count - 1))
        return max(int(low - support + 0.5), 0), min(int(high + support + 0.5), self.source)


def plan_axis(source: int, scaled: int, resize_count: int, crop_count: int) -> Axis:
    """Return the axis that keeps the middle `crop_count` of the middle `resize_count` pixels.

    Args:
        source: Pixels of the image.
        scaled: Pixels after scaling.
        resize_count: How many of those the resize keeps.
        crop_count: How many of those the crop keeps.
    """
    visible_count = min(resize_count, crop_count)
    return Axis(
        source,
        scaled,
        (scaled - resize_count) // 2 + (resize_count - visible_count) // 2,
        visible_count,
    )


def compute_cover_size(source: tuple[int, ...], target: Pair) -> Pair:
    """Return the size to which `source` (height, width) is scaled to cover `target`."""
    h, w = source
    # One scale for both sides keeps the aspect ratio; the other side is at least the target's.
    scale = max(target[0] / h, target[1] / w)
    return (
        max(target[0], floor(h * scale + 0.5)),
        max(target[1], floor(w * scale + 0.5)),
    )


def resample(pixels: "Pixels", number: int, along: Axis) -> "Pixels":
    """Scale axis `number` of pixels (H, W, C).

    Args:
        pixels: uint8 (height, width, channels); along the axis, only `along.source_range`.
        number: The axis, 0 or 1.
        along: The scaling of the axis.

    Returns:
        uint8, `along.count` pixels along the axis.
    """
    # The axis comes first: a tap is then one row of the sum, which numpy adds at once. All pixels
    # of a strip take their t-th tap together, so that Python's loop has one iteration per tap.
    lines = np.moveaxis(pixels, number, 0)
    if along.scaled == along.source:
        return pixels
    starts, taps = compute_coefficients(along)
    starts -= along.source_range[0]
    output = np.empty((along.count, *lines.shape[1:]), np.uint8)
    for part in split_strips(lines.shape[1], along.count * lines.shape[2]):
        # Start with half of the last place: the shift below then rounds to nearest.
        total = np.full(output[:, part].shape, 1 << (PRECISION - 1), np.int32)
        for offset, tap in enumerate(taps.T):
            # Taps past the end have weight 0: they may read any pixel that exists.
            at = np.minimum(starts + offset, len(lines) - 1)
            total += lines[at, part] * tap[:, None, None]
        output[:, part] = np.clip(total >> PRECISION, 0, 255)
    return np.moveaxis(output, 0, number)


def split_strips(count: int, size: int) -> "Iterator[slice]":
    """Yield slices of `count` lines of `size` numbers, each as large as the memory allows."""
    step = max(1, STRIP_ELEMENTS // size)
    return (slice(start, start + step) for start in range(0, count, step))


def compute_coefficients(along: Axis) -> "tuple[NDArray[np.int64], NDArray[np.int32]]":
    """Return how the kept pixels of an axis sum source pixels.

    Kept pixel i is the sum over t of taps[i, t] * source[starts[i] + t], in fixed point with
    `PRECISION` fraction bits; a tap of 0 may reach past the source's end. Computed in float64
    in Pillow's order of operations, with no multiply-add contracted.
    """
    scale = along.source / along.scaled
    support = max(scale, 1.0)
    middle = (np.arange(along.start, along.start + along.count) + 0.5) * scale
    # Truncated, as C converts in Pillow; negative values differ from a floor, but both become 0.
    starts = np.maximum((middle - support + 0.5).astype(np.int64), 0)
    stops = np.minimum((middle + support + 0.5).astype(np.int64), along.source)
    offsets = np.arange(ceil(support) * 2 + 1)
    distances = ((offsets + starts[:, None]) - middle[:, None] + 0.5) * (1.0 / support)
    # Never negative, so Pillow's rounding of negative weights is not needed.
    weights = np.maximum(1.0 - np.abs(distances), 0.0)
    # Windows are cut at the border and normalized to sum to 1 again, as in Pillow: no border
    # pixels are added.
    weights[offsets >= (stops - starts)[:, None]] = 0.0
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]  # summed in order, as in Pillow
    return starts, (weights * (1 << PRECISION) + 0.5).astype(np.int32)
