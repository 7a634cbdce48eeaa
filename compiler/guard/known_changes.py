"""Changes of images that a guard knows by name: of light, camera, stain and software.

The calibration images are changed a little in each way. How the features then move is the direction
in which a guard looks for this change. Only the directions are stored, not the amounts.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard.pixel_sums import Pixels

Float64 = NDArray[np.float64]
ImageChange = Callable[[Float64], Float64]
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok, Johnston,
Quantification of histochemical staining by color deconvolution, 2001)."""


def _multiply(*factors: float) -> ImageChange:
    return lambda image: image * np.array(factors)


def _apply_gamma(gamma: float) -> ImageChange:
    return lambda image: 255 * (image / 255) ** gamma


def _change_stains(first: float, second: float) -> ImageChange:
    matrix = np.linalg.inv(STAINS) @ np.diag([first, second, 1]) @ STAINS

    def change(image: Float64) -> Float64:
        densities = -np.log(np.maximum(image, 1) / 255)
        changed: Float64 = 255 * np.exp(-densities @ matrix)
        return changed

    return change


def _saturate(factor: float) -> ImageChange:
    def change(image: Float64) -> Float64:
        grey: Float64 = image.mean(axis=2, keepdims=True)
        return grey + (image - grey) * factor

    return change


def _stretch_contrast(factor: float) -> ImageChange:
    return lambda image: image.mean() + (image - image.mean()) * factor


def _fade(image: Float64) -> Float64:
    return 255 - (255 - image) * 0.7


def _smooth(image: Float64) -> Float64:
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    smoothed: Float64 = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return smoothed


def _enlarge(image: Float64) -> Float64:
    """Return the centre, 85 % of each side, at the size of the image, by linear interpolation."""
    enlarged = image
    for axis in (0, 1):
        size = image.shape[axis]
        positions = (np.arange(size) - (size - 1) / 2) * 0.85 + (size - 1) / 2
        before = positions.astype(np.int64)
        after = np.minimum(before + 1, size - 1)
        weight = np.expand_dims(positions - before, tuple(i for i in range(3) if i != axis))
        enlarged = enlarged.take(before, axis) * (1 - weight) + enlarged.take(after, axis) * weight
    return enlarged


CHANGES: Mapping[str, ImageChange] = {
    "warmer light": _multiply(1.1, 1, 0.91),
    "cooler light": _multiply(0.91, 1, 1.1),
    "greener light": _multiply(0.95, 1.05, 0.95),
    "more magenta light": _multiply(1.05, 0.95, 1.05),
    "brighter": _multiply(1.2, 1.2, 1.2),
    "darker": _multiply(0.8, 0.8, 0.8),
    "darker middle tones": _apply_gamma(1.4),
    "brighter middle tones": _apply_gamma(0.7),
    "more of the first stain": _change_stains(1.2, 1),
    "less of the first stain": _change_stains(0.83, 1),
    "more of the second stain": _change_stains(1, 1.2),
    "less of the second stain": _change_stains(1, 0.83),
    "stains towards the first": _change_stains(1.2, 0.83),
    "stains towards the second": _change_stains(0.83, 1.2),
    "stronger colours": _saturate(1.3),
    "weaker colours": _saturate(0.7),
    "more contrast": _stretch_contrast(1.3),
    "less contrast": _stretch_contrast(0.7),
    "faded": _fade,
    "larger": _enlarge,
    "less sharp": _smooth,
    "first and third channel swapped": lambda image: image[..., ::-1],
    "inverted": lambda image: 255 - image,
}
"""Changes of an image of floats from 0 to 255, (height, width, 3); the result is clipped."""


def apply_change(name: str, pixels: Pixels) -> Pixels:
    """Return an image with a known change.

    Args:
        name: One of `CHANGES`.
        pixels: uint8 (height, width, 3), or (height, width, 1), which counts as three equal
            channels.

    Returns:
        uint8 (height, width, 3), or (height, width, 1) for one channel: then only changes of all
        channels alike are visible.
    """
    image = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.float64)
    changed = np.rint(np.clip(CHANGES[name](image), 0, 255)).astype(np.uint8)
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(changed)
    # A camera for grey images cannot see a change of colour: it records the mean.
    grey: Pixels = np.rint(changed.mean(axis=2, keepdims=True)).astype(np.uint8)
    return grey
