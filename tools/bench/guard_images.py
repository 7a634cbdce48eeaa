"""Shifts of images for the benchmark of the guard: changed pictures, and other pictures."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
Random = np.random.Generator
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".bmp"})
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok, Johnston,
Quantification of histochemical staining by color deconvolution, 2001)."""
FOREIGN: Mapping[str, str] = {
    "lung": "lung_histology_lc25000_224/test",
    "blood": "blood_cells_bccd_128/test",
    "ultrasound": "breast_ultrasound_busi_256/test",
    "cervical": "cervical_cells_cric_100/test",
    "colorectal": "colorectal_kather2016_24tiles_150/samples",
}
"""Folders of images by name, in the shared data."""


def _round(pixels: NDArray[np.floating]) -> Pixels:
    rounded: Pixels = np.clip(pixels, 0, 255).round().astype(np.uint8)
    return rounded


def _blur(radius: float) -> Callable[[Pixels, Random], Pixels]:
    blur = ImageFilter.GaussianBlur(radius)
    return lambda pixels, _: np.asarray(Image.fromarray(pixels).filter(blur))


def _multiply(*factors: float) -> Callable[[Pixels, Random], Pixels]:
    return lambda pixels, _: _round(pixels * np.array(factors))


def _apply_gamma(gamma: float) -> Callable[[Pixels, Random], Pixels]:
    return lambda pixels, _: _round(255 * (pixels / 255) ** gamma)


def _add_noise(sigma: float) -> Callable[[Pixels, Random], Pixels]:
    return lambda pixels, random: _round(pixels + random.normal(0, sigma, pixels.shape))


def _crop(share: float) -> Callable[[Pixels, Random], Pixels]:
    def crop(pixels: Pixels, _: Random) -> Pixels:
        height, width = pixels.shape[:2]
        rows, columns = int(height * share), int(width * share)
        top, left = (height - rows) // 2, (width - columns) // 2
        part = Image.fromarray(pixels[top : top + rows, left : left + columns])
        return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))

    return crop


def _compress(quality: int) -> Callable[[Pixels, Random], Pixels]:
    def compress(pixels: Pixels, _: Random) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return compress


def change_stains(pixels: Pixels, haematoxylin: float, eosin: float) -> Pixels:
    """Return an image with its two stains multiplied."""
    densities = -np.log(np.maximum(pixels.astype(np.float64), 1) / 255)
    amounts = densities @ np.linalg.inv(STAINS) * np.array([haematoxylin, eosin, 1])
    return _round(255 * np.exp(-amounts @ STAINS))


def _to_grey(pixels: Pixels, _: Random) -> Pixels:
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    return np.repeat(grey[..., None], 3, axis=2)


def _normalize_by_imagenet(pixels: Pixels, _: Random) -> Pixels:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return _round(((pixels / 255 - mean) / std * 0.25 + 0.5) * 255)


CHANGES: Mapping[str, Callable[[Pixels, Random], Pixels]] = {
    "blur 1.5": _blur(1.5),
    "blur 3": _blur(3),
    "dark 0.6": _multiply(0.6),
    "bright 1.35": _multiply(1.35),
    "gamma 0.45": _apply_gamma(0.45),
    "gamma 2.2": _apply_gamma(2.2),
    "grey": _to_grey,
    "bgr": lambda pixels, _: pixels[..., ::-1].copy(),
    "inverted": lambda pixels, _: 255 - pixels,
    "wrong mean and std": _normalize_by_imagenet,
    "-1 to 1 read as 0 to 1": lambda pixels, _: _round(pixels / 2 + 127.5),
    "zoom 2": _crop(0.5),
    "crop 0.8": _crop(0.8),
    "jpeg 8": _compress(8),
    "noise 8": _add_noise(8),
    "noise 25": _add_noise(25),
    "stains 1.35, 0.75": lambda pixels, _: change_stains(pixels, 1.35, 0.75),
    "stains 0.7, 1.2": lambda pixels, _: change_stains(pixels, 0.7, 1.2),
    "stain jitter": lambda pixels, random: change_stains(pixels, *random.uniform(0.8, 1.2, 2)),
    "warm light": _multiply(1.15, 1, 0.87),
}
"""Changes of an image, uint8 (height, width, 3)."""


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix in IMAGE_SUFFIXES)


def read_pixels(path: Path, size: tuple[int, int]) -> Pixels:
    """Return an image as uint8 (height, width, 3), stretched to a size (height, width)."""
    image = Image.open(path).convert("RGB")
    if image.size == size[::-1]:
        return np.asarray(image)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def draw_noise(size: tuple[int, int], random: Random) -> Pixels:
    """Return an image of uniform noise."""
    return random.integers(0, 256, (*size, 3)).astype(np.uint8)


def draw_flat(size: tuple[int, int], random: Random) -> Pixels:
    """Return an image of one colour."""
    return np.broadcast_to(random.integers(0, 256, 3).astype(np.uint8), (*size, 3)).copy()
