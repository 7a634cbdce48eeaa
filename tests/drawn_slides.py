"""Slides that a program draws, so that what is on them is known to the pixel."""

import numpy as np

PAPER, PINK, PURPLE = (243, 243, 244), (205, 120, 170), (110, 60, 140)
"""What no tissue is on, and two colours of tissue."""


def drawn(width, height, *areas):
    """Pixels of paper with rectangles of colour: (left, top, right, bottom, colour)."""
    pixels = np.full((height, width, 3), PAPER, np.uint8)
    for left, top, right, bottom, colour in areas:
        pixels[top:bottom, left:right] = colour
    return pixels


def write(path, pixels, mpp=0.5, levels=1, tile=64):
    """Write pixels as a tiled TIFF file, with levels of half the size each."""
    import tifffile

    unit = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            small = pixels[:: 2**level, :: 2**level]
            more = unit if level == 0 else {"subfiletype": 1}
            file.write(
                small, photometric="rgb" if pixels.ndim == 3 else "minisblack",
                tile=(tile, tile), compression="zlib", metadata=None, **more,
            )  # fmt: skip
    return path
