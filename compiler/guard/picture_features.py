"""Nineteen features of a picture, from its pixel sums: step 2 of the definition."""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard.integer_log import compute_log2q8
from tcc.compiler.guard.pixel_sums import count_sampled_pixels

Int64 = NDArray[np.int64]
FEATURES = (
    "sharpness",
    "fine texture",
    "coarse texture",
    "blocks of 8 pixels",
    "flat areas",
    "detail",
    "contrast of the first channel",
    "contrast of the second channel",
    "contrast of the third channel",
    "brightness of the first channel",
    "brightness of the second channel",
    "brightness of the third channel",
    "variety of colours, first and second channel",
    "variety of colours, second and third channel",
    "variety of colours, first and third channel",
    "saturation, first and second channel",
    "saturation, second and third channel",
    "colour balance, first and second channel",
    "colour balance, second and third channel",
)
"""What each feature measures, in words for users."""
TONE = 6
"""The first feature of tone and colour; drift is measured in these, and not in texture."""
_VARIANCE_FLOOR = 4096
"""Added to variances in Q16, so that a single grey value more in a flat image changes little."""


def compute_features(sums: Int64, height: int, width: int, row_step: int) -> Int64:
    """Return the features of images.

    Args:
        sums: Pixel sums (images, 17).
        height: Height of all images, in pixels.
        width: Their width.
        row_step: The step of the rows that were summed.

    Returns:
        int64 (images, 19).
    """
    pixels, colours = count_sampled_pixels(height, width, row_step)
    s = [sums[:, index].astype(np.int64) for index in range(sums.shape[1])]
    red, green, blue = s[0], s[1], s[2]

    def mean(total: Int64) -> Int64:
        return (256 * total) // colours

    def log_variance(squares: Int64, total: Int64) -> Int64:
        variance = (65536 * squares) // colours - mean(total) ** 2
        return compute_log2q8(np.maximum(variance, 0) + _VARIANCE_FLOOR)

    detail = compute_log2q8(16 * s[9] + pixels)
    features = (
        *(compute_log2q8(16 * s[index] + pixels) - detail for index in (10, 11, 12, 13)),
        compute_log2q8(s[14] + pixels // 64 + 1),
        detail,
        *(log_variance(s[3 + index], s[index]) for index in range(3)),
        *(mean(total) // 8 for total in (red, green, blue)),
        log_variance(s[3] + s[4] - 2 * s[6], red - green),
        log_variance(s[4] + s[5] - 2 * s[7], green - blue),
        log_variance(s[3] + s[5] - 2 * s[8], red - blue),
        *(compute_log2q8(s[index] + colours) for index in (15, 16)),
        *(mean(difference) // 4 for difference in (red - green, green - blue)),
    )
    return np.stack(features, axis=1)
