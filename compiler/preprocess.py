"""From the pixels of an image to the network's input: one definition for every target.

The steps, in order: colour (`rgb`, `bgr`, or `gray`, Pillow's `L`), resize, centre crop,
division by 255, and (x - mean) / std per channel, each rounded to float32. Every other
implementation is held against this one to the bit, and this one against Pillow.

The horizontal pass of a resize always comes first, whatever Pillow's version: from 13 on, Pillow
itself takes the vertical one first where that is faster, which moves some pixels by one level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.source import fail, whole_file
from tcc.compiler.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

COLORS = ("rgb", "bgr", "gray")
MODES = ("stretch", "cover")
MAX_SIDE = 8192
"""Largest height or width that a resize or crop may ask for, in pixels."""
PRECISION = 22
"""Fraction bits of a resize coefficient, as in Pillow's 8-bit resampling."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Bilinear with antialiasing on 8-bit pixels, equal to Pillow's `BILINEAR` to the bit.

    `mode`: `stretch` gives exactly `size` (height, width); `cover` keeps the aspect ratio, scales
    until the image covers `size`, and takes its centre.
    """

    size: Pair
    mode: str = "stretch"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """An input contract.

    `crop` (height, width) takes the centre, with zeros around where it is larger than the image.
    `mean` and `std` hold one value for all channels, or one a channel in the order of `color`.
    A `raw` result is the grey levels themselves, 0 to 255, neither divided nor normalised.
    """

    color: str = "rgb"
    resize: Resize | None = None
    crop: Pair | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    raw: bool = False

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return 1 if self.color == "gray" else 3


def result_shape(pre: Preprocess) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of the result; None where the image's size decides."""
    size = pre.crop or (pre.resize.size if pre.resize else None)
    return (pre.channels, *size) if size else None


def apply(
    pre: Preprocess, image: "Pixels", size: tuple[int, int, int], name: str = "<image>"
) -> "NDArray[np.float32]":
    """Return the input tensor, float32 (channels, height, width) = `size`, of an image.

    Args:
        pre: The input contract.
        image: RGB pixels, uint8 (height, width, 3).
        size: The shape that the network declares.
        name: What to call the image in an error.

    Raises:
        UserError: The contract neither resizes nor crops, and the image has another size.
    """
    pixels = _colored(pre.color, image)
    if pre.resize:
        pixels = _resized(pre.resize, pixels)
    if pre.crop:
        pixels = center(pixels, pre.crop)
    found = (pixels.shape[2], *pixels.shape[:2])
    if found != size:
        (channels, height, width), (_, h, w) = size, found
        raise fail(
            "E0706",
            f"the image is {w}x{h} pixels in {found[0]} channels, "
            f"but the network takes {width}x{height} in {channels}",
            whole_file(name),
            help="give the image that size, or add `resize` to the spec's `preprocess`",
        )
    return normalized(pre, pixels)


def normalized(pre: Preprocess, pixels: "Pixels") -> "NDArray[np.float32]":
    """Return (pixels / 255 - mean) / std as float32 (C, H, W), of uint8 (H, W, C).

    A raw contract gives the pixels as they are.
    """
    if pre.raw:
        return np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1))
    mean, std = (np.array(v, np.float32) for v in (pre.mean, pre.std))
    values = pixels.astype(np.float32) / np.float32(255)
    values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def center(pixels: "Pixels", size: Pair) -> "Pixels":
    """Return the centre of an image (H, W, C), with zeros around where `size` is larger.

    An odd difference leaves the larger part at the bottom and right.
    """
    result = np.zeros((*size, pixels.shape[2]), np.uint8)
    there, here = zip(*map(_overlap, pixels.shape, size), strict=True)
    result[here] = pixels[there]
    return result


def _overlap(source: int, target: int) -> tuple[slice, slice]:
    """Return where the centred stretches of two lengths overlap, in each of them."""
    both = min(source, target)
    first, second = (source - both) // 2, (target - both) // 2
    return slice(first, first + both), slice(second, second + both)


def _colored(color: str, image: "Pixels") -> "Pixels":
    if color == "gray":
        luma = image.astype(np.int32) @ np.array([19595, 38470, 7471], np.int32)
        return ((luma + 0x8000) >> 16).astype(np.uint8)[:, :, None]
    return image[:, :, ::-1] if color == "bgr" else image


def _resized(resize: Resize, pixels: "Pixels") -> "Pixels":
    """Resize (H, W, C): the horizontal pass first, each rounded to 8 bits."""
    target = resize.size
    scaled = target if resize.mode == "stretch" else covering(pixels.shape[:2], target)
    for axis in (1, 0):
        pixels = _resample(pixels, axis, scaled[axis], target[axis])
    return pixels


def covering(source: tuple[int, ...], target: Pair) -> Pair:
    """Return the size that `source` (height, width) is scaled to so as to cover `target`."""
    h, w = source
    scale = max(target[0] / h, target[1] / w)
    return (
        max(target[0], floor(h * scale + 0.5)),
        max(target[1], floor(w * scale + 0.5)),
    )


def _resample(pixels: "Pixels", axis: int, scaled: int, kept: int) -> "Pixels":
    """Scale one axis to length `scaled` and keep the middle `kept`; only these are computed."""
    first = (scaled - kept) // 2
    lines = np.moveaxis(pixels, axis, 0)
    if scaled == len(lines):
        return np.moveaxis(lines[first : first + kept], 0, axis)
    starts, taps = coefficients(len(lines), scaled, first, kept)
    total = np.full((kept, *lines.shape[1:]), 1 << (PRECISION - 1), np.int32)
    for offset, tap in enumerate(taps.T):
        at = np.minimum(starts + offset, len(lines) - 1)
        total += lines[at] * tap[:, None, None]
    result = np.clip(total >> PRECISION, 0, 255).astype(np.uint8)
    return np.moveaxis(result, 0, axis)


def coefficients(
    source: int, target: int, first: int, count: int
) -> "tuple[NDArray[np.int64], NDArray[np.int32]]":
    """Return how `count` of `target` output pixels, from `first` on, sum `source` input pixels.

    Output i is the sum over t of taps[i, t] * input[starts[i] + t], in fixed point with
    `PRECISION` fraction bits; a tap of 0 may reach past the input's end. Computed in float64
    in Pillow's order of operations, with no multiply-add contracted.
    """
    scale = source / target
    support = max(scale, 1.0)
    middle = (np.arange(first, first + count) + 0.5) * scale
    starts = np.maximum((middle - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((middle + support + 0.5).astype(np.int64), source)
    offsets = np.arange(ceil(support) * 2 + 1)
    reach = ((offsets + starts[:, None]) - middle[:, None] + 0.5) * (1.0 / support)
    weights = np.maximum(1.0 - np.abs(reach), 0.0)
    weights[offsets >= (ends - starts)[:, None]] = 0.0
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]  # summed in order, as Pillow does
    return starts, (weights * (1 << PRECISION) + 0.5).astype(np.int32)


def as_json(pre: Preprocess) -> dict[str, Any]:
    """Return the contract as plain data, for a bundle's manifest."""
    resize = pre.resize and {"size": list(pre.resize.size), "mode": pre.resize.mode}
    return {
        "color": pre.color,
        "resize": resize,
        "crop": pre.crop and list(pre.crop),
        "mean": list(pre.mean),
        "std": list(pre.std),
        "raw": pre.raw,
    }


def from_json(data: object) -> Preprocess:
    """Return the contract that `as_json` wrote; without the field `raw` it is not raw.

    Raises:
        ValueError: It is not one; the message names the field.
    """
    full = {"raw": False, **data} if isinstance(data, dict) else data
    fields = _mapping(full, "preprocess", {"color", "resize", "crop", "mean", "std", "raw"})
    resize = fields["resize"]
    pre = Preprocess(
        color=_choice(fields["color"], "color", COLORS),
        resize=None if resize is None else _resize(resize),
        crop=None if fields["crop"] is None else _pair(fields["crop"], "crop"),
        mean=_numbers(fields["mean"], "mean"),
        std=_numbers(fields["std"], "std"),
        raw=_flag(fields["raw"], "raw"),
    )
    if any(len(v) not in {1, pre.channels} for v in (pre.mean, pre.std)):
        raise ValueError(f"mean and std take 1 or {pre.channels} numbers")
    if min(pre.std) <= 0:
        raise ValueError("std must be above 0")
    return pre


def _resize(data: object) -> Resize:
    fields = _mapping(data, "resize", {"size", "mode"})
    return Resize(_pair(fields["size"], "size"), _choice(fields["mode"], "mode", MODES))


def _mapping(data: object, what: str, keys: set[str]) -> Mapping[str, object]:
    if not isinstance(data, dict) or set(data) != keys:
        raise ValueError(f"{what} must have exactly the fields {', '.join(sorted(keys))}")
    return data


def _choice(value: object, what: str, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}")
    return value


def _flag(value: object, what: str) -> bool:
    match value:
        case bool():
            return value
    raise ValueError(f"{what} must be true or false")


def _pair(value: object, what: str) -> Pair:
    match value:
        case [int(h), int(w)] if all(type(v) is int and 1 <= v <= MAX_SIDE for v in (h, w)):
            return h, w
    raise ValueError(f"{what} must be two whole numbers from 1 to {MAX_SIDE}")


def _numbers(value: object, what: str) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else []
    if not numbers or not all(type(v) in {int, float} and isfinite(v) for v in numbers):
        raise ValueError(f"{what} must be a list of numbers")
    return tuple(float(v) for v in numbers)
