"""Decode image files to pixels with Pillow, by fixed rules.

- Formats: PNG, JPEG, BMP, TIFF, PPM/PGM and WebP.
- Animations and files with several pages are rejected: only the user knows which frame or page to
  use, and whether the others show the same patient. If a JPEG file contains several images
  (previews, other exposures), the first is used.
- An EXIF orientation is applied, so that the network sees what a viewer shows. Without one, the
  pixels are those of `Image.open(path).convert("RGB")`.
- Grey and palette pixels become RGB. Alpha is dropped. CMYK and YCbCr are converted by Pillow's
  formulas. Embedded colour profiles are not applied.
- 16-bit colour keeps 8 bits per sample, as Pillow reads it. 16- and 32-bit grey and float pixels
  are rejected, because the user has to choose the black and white values.
- JPEG is always decoded at full size: libjpeg's reduced scales average blocks in the frequency
  domain, which is not the resize that the preprocessing contract specifies.

`collect_remarks` reports what is lost or chosen. Image sizes are checked before pixels are
unpacked, and pixels are converted in strips.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from tcc.compiler.data import image_files, pillow_resampling, png_file
from tcc.compiler.data.image_files import ALPHA, CMYK, DEPTH, PICTURES
from tcc.compiler.data.png_exif import PngError
from tcc.compiler.data.png_file import AnimatedPngError
from tcc.compiler.ir import image_limits, preprocess
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support import json_records
from tcc.compiler.support.confined_process import Reply
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.image_folders import FORMATS, detect_format

MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pillow's pixel modes with at most 8 bits per sample that are converted to RGB."""
STRIP_PIXELS, LARGE_PIXELS = 1 << 22, 1 << 24
"""Pixels per converted strip, and the size in pixels above which an image is large."""
TILE_WIDTH, TILE_HEIGHT = 322, 323
"""TIFF tags."""
ORIENTATION = 274
"""EXIF tag of the orientation; values from 5 swap height and width."""
MAX_SCANS = 100
"""Maximum number of scans in a JPEG file; each covers all pixels. Encoders write about ten."""
WEBP_CHUNK = 12
"""Offset of the first chunk of a WebP file: after `RIFF`, the file's length and `WEBP`."""
WEBP_BODY = WEBP_CHUNK + 8
"""Offset of its contents: after the chunk's name and length."""
_imaging.set_block_size(1 << 26)
"""Pillow's allocation size in bytes: more than glibc caches for a thread after a free."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the RGB pixels of an image file, uint8 (height, width, 3).

    Raises:
        UserError: The file cannot be read (E0701), is not an image of a known format (E0702), is
            damaged (E0703) or too large (E0704), does not have 8-bit samples (E0705), or has
            several frames or pages (E0707).
    """
    return decode(image_files.read_bytes(path), str(path))


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the RGB pixels of an encoded image, uint8 (height, width, 3).

    `name` is the image's name in error messages. The errors are those of `read_image`.
    """
    with _convert_errors(content, name):
        return _decode(content, name)


def decode_input_pixels(
    content: bytes, name: str, contract: Preprocess, size: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return the network's input pixels of an encoded image before normalization, uint8.

    The result is bit-exact with `preprocess.prepare_pixels`. RGB photographs are scaled by Pillow
    where that is bit-exact, which saves a copy of all pixels.

    Raises:
        UserError: As for `decode` and `preprocess.prepare_pixels`.
    """
    image = None
    if contract.color in ("rgb", "bgr"):
        with _convert_errors(content, name):
            image = _open_plain(content, name)
    if image is None:
        return preprocess.prepare_pixels(contract, decode(content, name), size, name)
    shape = (image.height, image.width)
    scaled = pillow_resampling.resize_image(image, *preprocess.plan(contract, shape, size, name))
    if scaled is None:
        return preprocess.prepare_pixels(contract, np.asarray(image), size, name)
    colored = scaled if contract.color == "rgb" else scaled[:, :, ::-1]
    return preprocess.crop_center(colored, size[1:])


def _open_plain(content: bytes, name: str) -> Image.Image | None:
    """Return an RGB JPEG or PNG image with its orientation applied; None for all other images."""
    _check_file(content, name)
    with _open_image(content) as image:
        # `_decode` handles the special cases of other formats.
        is_plain = image.mode == "RGB" and image.format in ("JPEG", "PNG") and not _has_pages(image)
        if not is_plain or image.width * image.height > LARGE_PIXELS:
            return None
        image_limits.check(image.height, image.width, name)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


def is_picture(image: object) -> TypeGuard[Image.Image]:
    """Whether this is a Pillow image."""
    return isinstance(image, Image.Image)


def convert_picture(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return the RGB pixels of a Pillow image, uint8 (height, width, 3).

    They equal the pixels that `read_image` returns for the image's file. The image is not modified.

    Raises:
        UserError: Its file is damaged (E0703), it is too large (E0704), does not have 8-bit
            samples (E0705), or has several frames or pages (E0707).
    """
    with _convert_errors(b"", name):
        _check_picture(image, name)
        return _convert(ImageOps.exif_transpose(image))


@contextmanager
def _convert_errors(content: bytes, name: str) -> Iterator[None]:
    """Convert all exceptions of an image's decoder to the errors of `read_image`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (UserError, MemoryError):
            raise
        except PngError as error:
            help = "the file may be truncated or modified: copy or export it again"
            span = make_file_span(name)
            raise fail("E0703", "the image is damaged", span, label=str(error), help=help) from None
        except UnidentifiedImageError:
            raise image_files.make_format_error(content, name) from None
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+ pixels", str(error))
            raise image_limits.make_size_error(
                name, f"it has {pixels[0]}" if pixels else ""
            ) from None
        except Exception as error:  # decoders raise any exception for damaged data
            raise fail(
                "E0703",
                "the image is damaged",
                make_file_span(name),
                label=image_files.describe_error(error),
                help="copy or export it again",
            ) from None


def _decode(content: bytes, name: str) -> NDArray[np.uint8]:
    colors = _check_file(content, name)
    with _open_image(content, name) as image:
        _check_picture(image, name)
        if (scaled := _decode_scaled_ppm(image, content)) is not None:
            return scaled
        ImageOps.exif_transpose(image, in_place=True)
        if colors and int(image.getextrema()[1]) >= colors:  # type: ignore[arg-type]
            raise PngError("a pixel uses a colour that is not in its palette")
        return _convert(image)


def _check_picture(image: Image.Image, name: str) -> None:
    image_limits.check(image.height, image.width, name)
    image_limits.check(*_get_tile_size(image), name)
    if _has_pages(image):
        raise image_files.make_animation_error(name)
    if image.mode not in MODES:
        raise image_files.make_mode_error(image.mode, name)


def _convert(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows, strip in _split_strips(image):
        pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels


def _open_image(content: bytes, name: str = "") -> Image.Image:
    if detect_format(content[:256]) == "WEBP":
        image_limits.check(*_read_webp_size(content), name)
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _has_pages(image: Image.Image) -> bool:
    """Whether a file is an animation or has pages."""
    # Pillow also reports a JPEG file with several images (MPO) as animated.
    return getattr(image, "is_animated", False) and image.format not in ("JPEG", "MPO")


def _get_tile_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width of a TIFF file's tiles; zeros for other files."""
    tags = getattr(image, "tag_v2", {})
    tile_sides = (tags.get(number, 0) for number in (TILE_HEIGHT, TILE_WIDTH))
    height, width = (int(side) if isinstance(side, int) else 0 for side in tile_sides)
    return height, width


def _decode_scaled_ppm(image: Image.Image, content: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of a PPM file with a maximum value other than 255; None for other images.

    They equal Pillow's, which converts in Python: about 20 s for 20 million values.
    """
    (tile, *_) = getattr(image, "tile", None) or [None]
    if tile is None or tile.codec_name != "ppm":
        return None
    largest, bands = tile.args[1], len(image.getbands())
    kind = np.dtype("u1" if largest < 256 else ">u2")
    samples = np.frombuffer(content, kind, image.width * image.height * bands, tile.offset)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = samples.reshape(image.height, image.width, bands)
    step = max(1, STRIP_PIXELS // 4 // image.width)
    for top in range(0, image.height, step):
        scaled_samples = rows[top : top + step] / np.float64(largest) * 255
        # Pillow uses Python's round(), half to even (PpmImagePlugin.py).
        pixels[top : top + step] = np.minimum(np.rint(scaled_samples), 255)
    return pixels


def _split_strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield strips of an image from the top, each with its rows."""
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def is_large(content: bytes) -> bool:
    """Whether an encoded image is so large that only one such image is decoded at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open_image(content) as image:
                return image.width * image.height > LARGE_PIXELS
        except Exception:  # decoders raise any exception for damaged data
            return False


def find_size(content: bytes) -> tuple[int, int] | None:
    """Return the height and width of an encoded image, oriented; None if it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open_image(content) as image:
                is_rotated = image.getexif().get(ORIENTATION, 1) > 4
                return (image.width, image.height) if is_rotated else (image.height, image.width)
        except Exception:  # decoders raise any exception for damaged data
            return None


def collect_remarks(content: bytes) -> tuple[str, ...]:
    """Return what reading an encoded image loses or chooses; empty for most images.

    Also empty for images that cannot be read: `decode` reports their errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open_image(content) as image:
                image_limits.check(image.height, image.width, "")
                image_limits.check(*_get_tile_size(image), "")
                is_readable = image.mode in MODES and not _has_pages(image)
                return tuple(_find_remarks(image)) if is_readable else ()
        except Exception:  # decoders raise any exception for damaged data
            return ()


def _find_remarks(image: Image.Image) -> Iterator[str]:
    if getattr(image, "is_animated", False):
        yield PICTURES
    if any(_is_deep(tile) for tile in getattr(image, "tile", ())):
        yield DEPTH
    if image.mode == "CMYK":
        yield CMYK
    if image.has_transparency_data and any(
        int(np.asarray(strip.convert("RGBA"))[:, :, 3].min()) < 255
        for _, strip in _split_strips(image)
    ):
        yield ALPHA


def _is_deep(tile: Any) -> bool:
    """Whether one of Pillow's tile descriptions has more than 8 bits per sample."""
    mode, *mode_params = (tile.args,) if isinstance(tile.args, str) else tile.args
    return ";16" in str(mode) or (tile.codec_name == "ppm" and mode_params[0] > 255)


def _check_file(content: bytes, name: str) -> int:
    """Check an encoded PNG or JPEG image; other formats are not checked.

    Returns:
        The number of colors in a PNG file's palette; 0 without a palette.

    Raises:
        UserError: A JPEG file has too many scans (E0704), or a PNG file is too large (E0704) or
            has animation chunks (E0707).
        PngError: A PNG file is damaged.
    """
    match detect_format(content[:256]):
        case "PNG":
            try:
                return png_file.check(content, name)
            except AnimatedPngError:
                raise image_files.make_animation_error(name) from None
        # In entropy-coded data, 0xda never follows 0xff.
        case "JPEG" if content.count(b"\xff\xda") > MAX_SCANS:
            message = f"this JPEG file has more than {MAX_SCANS} scans, each over all its pixels"
            help = "save it again with an image editor"
            raise fail("E0704", message, make_file_span(name), help=help)
        case _:
            return 0


def _read_webp_size(content: bytes) -> tuple[int, int]:
    """Return the height and width in a WebP file's header; zeros where the header is truncated.

    Pillow's decoder allocates the memory of all pixels, twice, when it opens a file. See the WebP
    Container Specification and RFC 6386, section 9.1, and RFC 9649, section 3.4.
    """

    def read_number(at: int, count: int) -> int:
        return int.from_bytes(content[WEBP_BODY + at : WEBP_BODY + at + count], "little")

    match content[WEBP_CHUNK : WEBP_CHUNK + 4]:
        case b"VP8X":  # flags, then width - 1 and height - 1 of 24 bits each
            return read_number(7, 3) + 1, read_number(4, 3) + 1
        case b"VP8L":  # a signature byte, then width - 1 and height - 1 of 14 bits each
            both = read_number(1, 4)
            return (both >> 14 & 0x3FFF) + 1, (both & 0x3FFF) + 1
        case b"VP8 ":  # six bytes of tag and start code; each number has two bits of scale
            return read_number(8, 2) & 0x3FFF, read_number(6, 2) & 0x3FFF
    return 0, 0


def answer(request: dict[str, Any], payload: bytes) -> Reply:
    """Return the reply to a request about an encoded image.

    If the image is large and the request does not allow that yet, the reply is only `large`.

    Raises:
        UserError: As `decode` and `decode_input_pixels`.
    """
    name = str(request["name"])
    match request["do"]:
        case "decode":
            pixels = decode(payload, name)
        case "levels":
            if not request["large"] and is_large(payload):
                return {"large": True}, b""
            contract: Preprocess = json_records.decode(Preprocess, request["contract"])
            channels, height, width = request["size"]
            pixels = decode_input_pixels(payload, name, contract, (channels, height, width))
        case "size":
            return {"size": find_size(payload)}, b""
        case _:
            return {"remarks": collect_remarks(payload)}, b""
    return {"shape": pixels.shape}, pixels.tobytes()
