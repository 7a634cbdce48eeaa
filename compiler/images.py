"""Image files to pixels, by Pillow, with what it leaves open decided here.

- Formats: PNG, JPEG, BMP, TIFF and PPM/PGM; of several frames or pages, the first.
- An EXIF orientation is applied, so that the network sees what a viewer shows. Where there is
  none, the pixels are those of `Image.open(path).convert("RGB")`.
- Grey and palette pixels become RGB; alpha is dropped, CMYK and YCbCr converted by Pillow's
  formulas; embedded colour profiles are not applied.
- 16-bit colour keeps the high byte of each sample, as Pillow reads it. 16- and 32-bit grey and
  float pixels are refused: which values are black and white is for the user to say.
"""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tcc.compiler.source import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM")
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Pillow's pixel modes of 8 bits or fewer a sample."""
MAX_PIXELS = 1 << 26
"""Most pixels of an image: 8192 x 8192."""
MAX_BYTES = 1 << 28
"""Largest image file, in bytes."""


def read(path: Path) -> "NDArray[np.uint8]":
    """Return the RGB pixels of an image file, uint8 (height, width, 3).

    Raises:
        UserError: The file cannot be read (E0701), is no image of a known format (E0702), is
            damaged (E0703), too large (E0704) or has no 8-bit samples (E0705).
    """
    return decode(contents(path), str(path))


def decode(data: bytes, name: str) -> "NDArray[np.uint8]":
    """Return the RGB pixels of an encoded image, uint8 (height, width, 3).

    `name` stands for it in errors, which are those of `read`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, name)
        except (UserError, MemoryError):
            raise
        except UnidentifiedImageError:
            raise fail(
                "E0702",
                "not an image of a known format",
                whole_file(name),
                help=f"known formats: {', '.join(FORMATS)}",
            ) from None
        except Image.DecompressionBombError:
            raise _too_large(name) from None
        except Exception as error:  # a decoder meets damaged data with any exception at all
            raise fail(
                "E0703", "the image is damaged", whole_file(name), label=_reason(error)
            ) from None


def _decode(data: bytes, name: str) -> "NDArray[np.uint8]":
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(name, f"it has {image.width} x {image.height} pixels")
        if image.mode not in MODES:
            raise fail(
                "E0705",
                f"pixels of mode {image.mode} are not 8 bits a sample",
                whole_file(name),
                help="convert the image to 8 bits, choosing which values are black and white",
            )
        upright = ImageOps.exif_transpose(image)
        return np.array(upright.convert("RGB"), np.uint8)


def contents(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UserError: The file cannot be read (E0701) or is too large (E0704).
    """
    where = whole_file(str(path))
    try:
        if path.exists() and not path.is_file():
            raise fail("E0701", "not a file", where)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise fail("E0701", "cannot read the image", where, label=_reason(error)) from None
    if len(data) > MAX_BYTES:
        raise _too_large(str(path), f"its file is larger than {MAX_BYTES >> 20} MiB")
    return data


def _too_large(name: str, label: str = "") -> UserError:
    return fail(
        "E0704",
        f"the image is larger than {MAX_PIXELS >> 20} Mi pixels",
        whole_file(name),
        label=label,
        help="cut it into tiles",
    )


def _reason(error: Exception) -> str:
    """Return what went wrong in a few words, without a path or a memory address."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__
