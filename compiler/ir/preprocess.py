"""From the pixels of an image to the network's input: the reference for every target.

The steps, in order: colour (`rgb`, `bgr`, or `gray`, Pillow's `L`), resize, centre crop, division
by 255 or by the image's maximum, and (x - mean) / std per channel, each rounded to float32. All
other implementations must match this one bit for bit, and this one is compared with Pillow.

The horizontal pass of a resize always comes first. From version 13 on, Pillow runs the vertical
pass first if that is faster, which changes some pixels by one.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from msgspec import Meta

from tcc.compiler.ir import image_limits
from tcc.compiler.ir.pixel_resampling import (
    Axis,
    compute_cover_size,
    plan_axis,
    resample,
    split_strips,
)
from tcc.compiler.ir.types import Pair
from tcc.compiler.support.diagnostics import UnhandledError, fail, make_file_span
from tcc.compiler.support.json_records import OmitDefault, Record
from tcc.compiler.support.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

ColorOrder = Literal["rgb", "bgr", "gray"]
ResizeMode = Literal["stretch", "cover"]
PixelDivisor = Literal["255", "max"]
COLORS: tuple[ColorOrder, ...] = get_args(ColorOrder)
MODES: tuple[ResizeMode, ...] = get_args(ResizeMode)
SCALES: tuple[PixelDivisor, ...] = get_args(PixelDivisor)
MAX_SIDE = 1 << 14
"""Largest height or width of a resize or crop, in pixels."""
_Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
_Sides = tuple[_Side, _Side]
_Channels = Annotated[tuple[float, ...], Meta(min_length=1)]


class PixelResize(Record, frozen=True):
    """Bilinear resize with antialiasing on 8-bit pixels, bit-exact to Pillow's `BILINEAR`.

    `mode`: `stretch` gives exactly `size` (height, width); `cover` keeps the aspect ratio, scales
    until the image covers `size`, and crops the centre.
    """

    size: _Sides
    mode: ResizeMode = "stretch"


class Preprocess(Record, frozen=True):
    """An input contract.

    `crop` (height, width) keeps the centre, with zeros around it if it is larger than the image.
    `scale` is the divisor of the 8-bit pixels: `255`, or `max`, the largest value of all channels
    of the image after resize and crop; 1 for a black image, which stays 0. `mean` and `std` have
    one value for all channels, or one per channel in the order of `color`. A `raw` result is the
    8-bit pixels themselves, 0 to 255, neither divided nor normalized.
    """

    color: ColorOrder = "rgb"
    resize: PixelResize | None = None
    crop: _Sides | None = None
    mean: _Channels = (0.0,)
    std: _Channels = (1.0,)
    raw: bool = False
    scale: OmitDefault[PixelDivisor] = "255"

    @property
    def channels(self) -> int:
        """Channels of the result."""
        return count_channels(self.color)


def strip_normalization(pre: Preprocess) -> Preprocess | None:
    """Return the contract that stops at 8-bit pixels; None if each image has its own scale.

    The steps after them are then the same for every image: a mean and a standard deviation.
    """
    return replace(pre, raw=True) if pre.scale == "255" else None


def count_channels(color: str) -> int:
    """Return the number of channels of a colour order."""
    match color:
        case "gray":
            return 1
        case "rgb" | "bgr":
            return 3
        case _:
            raise UnhandledError("colour", color)


def compute_output_shape(pre: Preprocess) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of the result; None if it depends on the image's size."""
    size = pre.crop or (pre.resize.size if pre.resize else None)
    return (pre.channels, *size) if size else None


def apply(
    pre: Preprocess, image: "Pixels", size: tuple[int, int, int], name: str = "<image>"
) -> "NDArray[np.float32]":
    """Return the input tensor of an image, float32 (channels, height, width) = `size`.

    Args:
        pre: The contract.
        image: uint8 (height, width, 3).
        size: Channels, height and width of the input.
        name: The image's name in errors.

    Raises:
        UserError: As for `plan`.
    """
    return normalize(pre, prepare_pixels(pre, image, size, name))


def prepare_pixels(
    pre: Preprocess, image: "Pixels", size: tuple[int, int, int], name: str = "<image>"
) -> "Pixels":
    """Return the 8-bit pixels before division, uint8 (height, width, channels).

    Args:
        pre: The input contract.
        image: RGB pixels, uint8 (height, width, 3).
        size: The shape that the network declares, (channels, height, width).
        name: The image's name in errors.

    Raises:
        UserError: As for `plan`.
    """
    # Only pixels that are kept are computed: for a slide of 8192 pixels that is cropped to 224, a
    # few hundred rows.
    down, across = plan(pre, image.shape, size, name)
    source_pixels = image[slice(*down.source_range), slice(*across.source_range)]
    # Colour before size, as in the contract: the grey of averaged, rounded pixels is not the
    # average of greys.
    pixels = resample(_convert_color(pre.color, source_pixels), 1, across)
    return crop_center(resample(pixels, 0, down), size[1:])


def plan(
    pre: Preprocess, shape: tuple[int, ...], size: tuple[int, int, int], name: str
) -> tuple[Axis, Axis]:
    """Return how an image of (height, width, ...) is scaled: vertically and horizontally.

    It allocates nothing, so that a command can refuse an image before a target gets it.

    Args:
        pre: The input contract.
        shape: The image's height and width, and any further axes.
        size: The channels, height and width that the network declares.
        name: The image's name in errors.

    Raises:
        UserError: The image is too large (E0704), or the contract neither resizes nor crops and
            the image has another size (E0706).
    """
    source, input_size = (shape[0], shape[1]), size[1:]
    image_limits.check(*source, name)
    resized_size = scaled = source
    if pre.resize:
        resized_size = pre.resize.size
        scaled = _compute_scaled_size(pre.resize, source)
    # With a crop any size is accepted, because missing pixels are filled with zeros.
    if pre.channels != size[0] or (not pre.crop and resized_size != input_size):
        (height, width), (h, w) = input_size, resized_size
        raise fail(
            "E0706",
            f"the image is {w}x{h} pixels, but the network takes {width}x{height}",
            make_file_span(name),
            help="give the image that size, or add `resize` to the spec's `preprocess`",
        )
    down, across = map(plan_axis, source, scaled, resized_size, input_size)
    first_row, end_row = down.source_range
    image_limits.check_rows(end_row - first_row, across.count, pre.channels, name)
    return down, across


def _compute_scaled_size(resize: PixelResize, source: Pair) -> Pair:
    """Return the size to which the image is scaled before its centre is kept."""
    match resize.mode:
        case "stretch":
            return resize.size
        case "cover":
            return compute_cover_size(source, resize.size)
        case _:
            raise UnhandledError("resize mode", resize.mode)


def normalize(pre: Preprocess, pixels: "Pixels") -> "NDArray[np.float32]":
    """Return (pixels / scale - mean) / std as float32 (C, H, W), from uint8 (H, W, C).

    A raw contract returns the pixels unchanged.
    """
    if pre.raw:
        return np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1))
    # Division, subtraction and division, each rounded to float32: precomputed factors would round
    # differently, and the C code on the device has these three. A channel has at most 256 results:
    # a table takes a quarter of the time.
    mean, std = (np.array(v, np.float32)[:, None] for v in (pre.mean, pre.std))
    scaled_levels = np.arange(256, dtype=np.float32) / np.float32(compute_divisor(pre, pixels))
    table = np.broadcast_to((scaled_levels - mean) / std, (pixels.shape[2], 256))
    channels = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
    for channel, channel_table in enumerate(table):
        channels[channel] = channel_table[pixels[:, :, channel]]
    return channels


def compute_divisor(pre: Preprocess, pixels: "Pixels") -> int:
    """Return the divisor of an image's pixels; a black image's maximum counts as 1."""
    match pre.scale:
        case "255":
            return 255
        case "max":
            return max(1, int(pixels.max()))
        case _:
            raise UnhandledError("pixel scale", pre.scale)


def crop_center(pixels: "Pixels", size: Pair) -> "Pixels":
    """Return the centre of an image (H, W, C), with zeros around it if `size` is larger.

    If a difference is odd, the larger part is at the bottom and right.
    """
    output = np.zeros((*size, pixels.shape[2]), np.uint8)
    source_slices, output_slices = zip(*map(_compute_overlap, pixels.shape, size), strict=True)
    output[output_slices] = pixels[source_slices]
    return output


def _compute_overlap(source: int, target: int) -> tuple[slice, slice]:
    """Return where the centred ranges of two lengths overlap, in each of them."""
    # Half of each difference, rounded down. torchvision's CenterCrop does so for images that are
    # larger by an even number; here the odd pixel is at the end.
    length = min(source, target)
    source_start, target_start = (source - length) // 2, (target - length) // 2
    return slice(source_start, source_start + length), slice(target_start, target_start + length)


def _convert_color(color: str, image: "Pixels") -> "Pixels":
    match color:
        case "rgb":
            return image
        case "bgr":
            return image[:, :, ::-1]
        case "gray":
            # In strips: int32 channels of 64 Mi pixels would take four times the memory of the
            # image.
            gray = np.empty((*image.shape[:2], 1), np.uint8)
            for rows in split_strips(*image.shape[:2]):
                # ITU-R BT.601's 0.299, 0.587 and 0.114 with 16 fraction bits, as in Pillow
                luma = image[rows].astype(np.int32) @ np.array([19595, 38470, 7471], np.int32)
                gray[rows, :, 0] = (luma + 0x8000) >> 16
            return gray
        case _:
            raise UnhandledError("colour", color)


def check(pre: Preprocess) -> None:
    """Refuse a contract with inconsistent fields.

    Raises:
        ValueError: Fields are inconsistent; the message names the field.
    """
    if any(len(v) not in {1, pre.channels} for v in (pre.mean, pre.std)):
        raise ValueError(f"mean and std need 1 or {pre.channels} numbers")
    if min(pre.std) <= 0:
        raise ValueError("std must be above 0")
    if pre.raw and pre.scale != "255":
        raise ValueError("raw pixels are not divided, so `scale` must be 255")
