"""Scale images with Pillow where it is bit-exact with `ir/pixel_resampling`.

Pillow scales one axis per call, because its order of the two axes depends on its version. A
self-test checks once that the installed version is bit-exact.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tcc.compiler.ir.pixel_resampling import Axis, resample

MAX_WASTE = 4
"""Maximum ratio of computed pixels to kept pixels."""
TEST_LENGTHS = ((61, 224), (224, 61), (97, 32), (1024, 30), (5, 5), (1, 9), (64, 1), (300, 299))
"""Source and target lengths of the self-test."""


def resize_image(image: Image.Image, down: Axis, across: Axis) -> NDArray[np.uint8] | None:
    """Return the kept pixels of a scaled RGB image, (height, width, 3); None if Pillow is not used.

    Args:
        image: A Pillow image in RGB.
        down: The height before and after scaling, and the kept rows.
        across: The width before and after scaling, and the kept columns.
    """
    computed_pixels = max(image.height, down.scaled) * across.scaled
    if computed_pixels > MAX_WASTE * max(image.height, down.count) * across.count or not is_equal():
        return None
    wide = _resize_axis(image, (across.scaled, image.height))
    pixels = np.asarray(_resize_axis(wide, (across.scaled, down.scaled)))
    rows = slice(down.start, down.start + down.count)
    return pixels[rows, across.start : across.start + across.count]


def _resize_axis(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR) if image.size != size else image


@cache
def is_equal() -> bool:
    """Whether the installed Pillow is bit-exact on noise and on extreme values, along each axis."""
    random = np.random.default_rng(0)
    for source, target in TEST_LENGTHS:
        for noise in (
            random.integers(0, 256, (7, source, 3)),
            random.integers(0, 2, (7, source, 3)) * 255,
        ):
            pixels = noise.astype(np.uint8)
            expected = resample(pixels, 1, Axis(source, target, 0, target))
            row_resized = np.asarray(_resize_axis(Image.fromarray(pixels), (target, 7)))
            column_resized = np.asarray(
                _resize_axis(Image.fromarray(pixels.swapaxes(0, 1).copy()), (7, target))
            )
            if not (
                np.array_equal(expected, row_resized)
                and np.array_equal(expected, column_resized.swapaxes(0, 1))
            ):
                return False
    return True
