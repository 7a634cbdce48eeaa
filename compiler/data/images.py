"""Image files to pixels, by Pillow, with what it leaves open decided here.

- Formats: PNG, JPEG, BMP, TIFF, PPM/PGM and WebP.
- Of an animation or a document of several pages none is taken: which of them is meant, and whether
  the others are of the same patient, nobody but the user knows. Of a JPEG file's several pictures
  (previews, other exposures) the first is the image.
- An EXIF orientation is applied, so that the network sees what a viewer shows. Where there is
  none, the pixels are those of `Image.open(path).convert("RGB")`.
- Grey and palette pixels become RGB; alpha is dropped, CMYK and YCbCr converted by Pillow's
  formulas; embedded colour profiles are not applied.
- 16-bit colour keeps 8 bits of each sample, as Pillow reads it. 16- and 32-bit grey and
  float pixels are refused: which values are black and white is for the user to say.
- JPEG is decoded at its own size, however large: libjpeg's reduced scales average blocks in the
  frequency domain, which is not the resize that a contract names.

What is lost or chosen on the way is said in `collect_remarks`. Sizes are looked at before pixels
are unpacked, and pixels are converted a strip at a time.
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
"""Pillow's pixel modes of 8 bits or fewer a sample that become RGB."""
STRIP_PIXELS, LARGE_PIXELS = 1 << 22, 1 << 24
"""Pixels that are converted at a time, and of which an image has more that is large."""
TILE_WIDTH, TILE_HEIGHT = 322, 323
"""Tags of TIFF files."""
ORIENTATION = 274
"""The tag of EXIF data that says how an image is turned: from 5 on, by a right angle."""
MAX_SCANS = 100
"""Most scans of a JPEG file, each of which goes over all its pixels; encoders make some ten."""
WEBP_CHUNK = 12
"""Where the first chunk of a WebP file begins: after `RIFF`, the file's length and `WEBP`."""
WEBP_BODY = WEBP_CHUNK + 8
"""Where its contents begin: after its name and length."""
_imaging.set_block_size(1 << 26)
"""Bytes that Pillow takes at a time: more than glibc keeps for a thread once they are freed."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the RGB pixels of an image file, uint8 (height, width, 3).

    Raises:
        UserError: The file cannot be read (E0701), is no image of a known format (E0702), is
            damaged (E0703), too large (E0704), has no 8-bit samples (E0705), or holds several
            frames or pages (E0707).
    """
    return decode(image_files.read_bytes(path), str(path))


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the RGB pixels of an encoded image, uint8 (height, width, 3).

    `name` stands for it in errors, which are those of `read_image`.
    """
    with _convert_errors(content, name):
        return _decode(content, name)


def decode_input_pixels(
    content: bytes, name: str, contract: Preprocess, size: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return what a contract makes of an encoded image before it divides, as `preprocess.levels`.

    It is the same to the bit; plain photographs are scaled by Pillow where that is so, which
    spares a copy of all their pixels.

    Raises:
        UserError: As for `decode` and `preprocess.levels`.
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
    """Return a JPEG or PNG image of plain colours, turned as it is shown; None of all else."""
    _check_file(content, name)
    with _open_image(content) as image:
        # Other formats have cases of their own, which `_decode` knows.
        is_plain = image.mode == "RGB" and image.format in ("JPEG", "PNG") and not _has_pages(image)
        if not is_plain or image.width * image.height > LARGE_PIXELS:
            return None
        image_limits.check(image.height, image.width, name)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image


def is_picture(image: object) -> TypeGuard[Image.Image]:
    """Whether this is an image of Pillow's."""
    return isinstance(image, Image.Image)


def convert_picture(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return the RGB pixels of an image of Pillow's, uint8 (height, width, 3).

    They are those of a file that it was read from. The image is left as it is.

    Raises:
        UserError: Its file is damaged (E0703), it is too large (E0704), has no 8-bit samples
            (E0705), or holds several frames or pages (E0707).
    """
    with _convert_errors(b"", name):
        _check_picture(image, name)
        return _convert(ImageOps.exif_transpose(image))


@contextmanager
def _convert_errors(content: bytes, name: str) -> Iterator[None]:
    """Turn whatever goes wrong with an encoded image into the errors of `read_image`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (UserError, MemoryError):
            raise
        except PngError as error:
            help = "it may have been cut short or changed: copy or export it again"
            span = make_file_span(name)
            raise fail("E0703", "the image is damaged", span, label=str(error), help=help) from None
        except UnidentifiedImageError:
            raise image_files.make_format_error(content, name) from None
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+ pixels", str(error))
            raise image_limits.make_size_error(
                name, f"it is of {pixels[0]}" if pixels else ""
            ) from None
        except Exception as error:  # a decoder meets damaged data with any exception at all
            raise fail(
                "E0703",
                "the image is damaged",
                make_file_span(name),
                label=image_files.describe_error(error),
            ) from None


def _decode(content: bytes, name: str) -> NDArray[np.uint8]:
    colors = _check_file(content, name)
    with _open_image(content, name) as image:
        _check_picture(image, name)
        if (scaled := _decode_scaled_ppm(image, content)) is not None:
            return scaled
        ImageOps.exif_transpose(image, in_place=True)
        if colors and int(image.getextrema()[1]) >= colors:  # type: ignore[arg-type]
            raise PngError("a color that its palette lacks")
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
    # Pillow calls a JPEG file with further pictures (MPO) animated too.
    return getattr(image, "is_animated", False) and image.format not in ("JPEG", "MPO")


def _get_tile_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width of what a file stores its pixels in: of a TIFF file's tiles."""
    tags = getattr(image, "tag_v2", {})
    tile_sides = (tags.get(number, 0) for number in (TILE_HEIGHT, TILE_WIDTH))
    height, width = (int(side) if isinstance(side, int) else 0 for side in tile_sides)
    return height, width


def _decode_scaled_ppm(image: Image.Image, content: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of a PPM file whose largest value is not 255; None of all else.

    They are what Pillow makes of them, value by value in Python: some 20 s for 20 million.
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
        # Pillow rounds with Python's round, halves to even (PpmImagePlugin.py).
        pixels[top : top + step] = np.minimum(np.rint(scaled_samples), 255)
    return pixels


def _split_strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield parts of an image from the top, with the rows that they are."""
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def is_large(content: bytes) -> bool:
    """Whether so many pixels are encoded that no two such images should be decoded at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open_image(content) as image:
                return image.width * image.height > LARGE_PIXELS
        except Exception:  # a decoder meets damaged data with any exception at all
            return False


def find_size(content: bytes) -> tuple[int, int] | None:
    """Return the height and width of an encoded image as it is shown; None if it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open_image(content) as image:
                is_rotated = image.getexif().get(ORIENTATION, 1) > 4
                return (image.width, image.height) if is_rotated else (image.height, image.width)
        except Exception:  # a decoder meets damaged data with any exception at all
            return None


def collect_remarks(content: bytes) -> tuple[str, ...]:
    """Return what is lost or chosen when an encoded image is read: nothing of most.

    Of what cannot be read, whose errors `decode` has, it says nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _open_image(content) as image:
                image_limits.check(image.height, image.width, "")
                image_limits.check(*_get_tile_size(image), "")
                is_readable = image.mode in MODES and not _has_pages(image)
                return tuple(_find_remarks(image)) if is_readable else ()
        except Exception:  # a decoder meets damaged data with any exception at all
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
    """Whether a part of a file, as Pillow describes it, has more than 8 bits a sample."""
    mode, *mode_params = (tile.args,) if isinstance(tile.args, str) else tile.args
    return ";16" in str(mode) or (tile.codec_name == "ppm" and mode_params[0] > 255)


def _check_file(content: bytes, name: str) -> int:
    """Check an encoded image; most formats have nothing to check.

    Returns:
        How many colors the palette of a PNG file has; 0 where there is none.

    Raises:
        UserError: A JPEG file goes over its pixels too often, or a PNG file is too large (E0704),
            or it has parts of an animation (E0707).
        PngError: A PNG file is damaged.
    """
    match detect_format(content[:256]):
        case "PNG":
            try:
                return png_file.check(content, name)
            except AnimatedPngError:
                raise image_files.make_animation_error(name) from None
        case "JPEG" if content.count(b"\xff\xda") > MAX_SCANS:  # as data, 0xff is never before this
            message = f"this JPEG file has more than {MAX_SCANS} scans, each over all its pixels"
            raise fail("E0704", message, make_file_span(name), help="save it anew")
        case _:
            return 0


def _read_webp_size(content: bytes) -> tuple[int, int]:
    """Return the height and width that a WebP file's header names; zeros where it is cut off.

    Pillow's decoder takes the memory of all pixels, twice, as soon as it opens a file. See the
    WebP Container Specification and RFC 6386, section 9.1, and RFC 9649, section 3.4.
    """

    def read_number(at: int, count: int) -> int:
        return int.from_bytes(content[WEBP_BODY + at : WEBP_BODY + at + count], "little")

    match content[WEBP_CHUNK : WEBP_CHUNK + 4]:
        case b"VP8X":  # flags, then both less one, 24 bits each
            return read_number(7, 3) + 1, read_number(4, 3) + 1
        case b"VP8L":  # a byte of signature, then both less one, 14 bits each
            both = read_number(1, 4)
            return (both >> 14 & 0x3FFF) + 1, (both & 0x3FFF) + 1
        case b"VP8 ":  # six bytes of tag and start code; two bits of scale are in each number
            return read_number(8, 2) & 0x3FFF, read_number(6, 2) & 0x3FFF
    return 0, 0


def answer(request: dict[str, Any], payload: bytes) -> Reply:
    """Return what is asked of an encoded image; `large` alone, of a large one that may not be yet.

    Raises:
        UserError: As `images.decode` and `images.levels`.
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
