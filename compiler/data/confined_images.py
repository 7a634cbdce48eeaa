"""Decode image files in sandboxed processes.

The functions, pixels and errors are those of `images`. If a decoder crashes, hangs or exceeds its
memory limit, the image fails with E1326.
"""

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import image_files
from tcc.compiler.ir.image_limits import MAX_PIXELS
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support import json_records
from tcc.compiler.support.confined_process import DecoderPool, Reply, make_decoder_error
from tcc.compiler.support.diagnostics import UserError

if TYPE_CHECKING:
    import numpy as np

MEMORY = 2 << 30
"""Memory limit of a decoder in bytes: several times the largest image's pixels plus its file."""
DECODERS = DecoderPool("tcc.compiler.data.images", MEMORY, "image")


SECONDS = 120.0
"""Time limit per image: the largest takes about ten seconds on a slow machine."""
MAX_ANSWER_BYTES = 3 * MAX_PIXELS
"""Maximum reply size in bytes: the pixels of the largest image."""
_ONE_AT_A_TIME = threading.Lock()
"""Lock that serializes the decoding of large images, to bound the memory."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the RGB pixels of an image file, uint8 (height, width, 3), as `images.read_image`.

    Raises:
        UserError: As `images.read_image`, or the decoder ended without a reply (E1326).
    """
    return decode(image_files.read_bytes(path), str(path))


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the RGB pixels of an encoded image, as `images.decode`.

    Raises:
        UserError: As `images.decode`, or the decoder ended without a reply (E1326).
    """
    reply, pixels = _send_request({"do": "decode", "name": name}, content)
    return _read_pixels(reply, pixels, name)


def decode_input_pixels(
    content: bytes, name: str, contract: Preprocess, size: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return the network's input pixels of an encoded image, as `images.decode_input_pixels`.

    Only one large image is decoded at a time.

    Raises:
        UserError: As `images.decode_input_pixels`, or the decoder ended without a reply (E1326).
    """
    request = {
        "do": "levels", "name": name, "contract": json_records.encode(contract), "size": size,
        "large": False,
    }  # fmt: skip
    reply, pixels = _send_request(request, content)
    if reply.get("large"):
        with _ONE_AT_A_TIME:
            reply, pixels = _send_request(request | {"large": True}, content)
    return _read_pixels(reply, pixels, name)


def find_size(content: bytes) -> tuple[int, int] | None:
    """Return the height and width of an encoded image, as `images.find_size`."""
    with suppress(UserError):  # decoding the image reports the error
        sides = _send_request({"do": "size", "name": ""}, content)[0].get("size")
        if isinstance(sides, list) and len(sides) == 2 and all(type(n) is int for n in sides):
            return sides[0], sides[1]
    return None


def collect_remarks(content: bytes) -> tuple[str, ...]:
    """Return what reading an encoded image loses or chooses, as `images.collect_remarks`."""
    with suppress(UserError):  # decoding the image reports the error
        remarks = _send_request({"do": "remarks", "name": ""}, content)[0].get("remarks")
        if isinstance(remarks, list):
            known_remarks = (
                image_files.PICTURES,
                image_files.DEPTH,
                image_files.ALPHA,
                image_files.CMYK,
            )
            return tuple(remark for remark in remarks if remark in known_remarks)
    return ()


def _send_request(request: dict[str, Any], content: bytes) -> Reply:
    return DECODERS.send_request(request, content, request["name"], SECONDS, MAX_ANSWER_BYTES)


def _read_pixels(
    reply: dict[str, Any], pixels: bytes | bytearray | memoryview, name: str
) -> NDArray[np.uint8]:
    shape = reply.get("shape")
    if isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape):
        with suppress(ValueError):
            return np.frombuffer(pixels, np.uint8).reshape(shape)
    raise make_decoder_error(name, DECODERS.noun, "its reply contains no valid pixels")


MAX_CACHE_BYTES = 32 << 20
"""Default cache size in bytes: about 200 images of 224 x 224 pixels.

Fewer images are used to compare candidates.
"""


def read_input_pixels(
    path: Path, contract: Preprocess, size: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return the input pixels of an image file before normalization, uint8.

    Raises:
        UserError: The image is damaged, or the network does not accept its size.
    """
    return decode_input_pixels(image_files.read_bytes(path), str(path), contract, size)


class PixelCache:
    """Cache of input pixels, uint8 (height, width, channels), by image digest, for one network.

    Once it is full, it accepts no more images and evicts none. Thread-safe.
    """

    def __init__(self, free_bytes: int = MAX_CACHE_BYTES) -> None:
        self._free_bytes, self._pixels_by_digest = free_bytes, dict[str, "NDArray[np.uint8]"]()
        self._lock = threading.Lock()

    def get(self, digest: str) -> NDArray[np.uint8] | None:
        """Return the pixels of an image, or None if they are not cached."""
        return self._pixels_by_digest.get(digest)

    def add(self, digest: str, pixels: NDArray[np.uint8]) -> None:
        """Cache a copy of an image's pixels, if there is room."""
        with self._lock:
            if digest not in self._pixels_by_digest and pixels.nbytes <= self._free_bytes:
                self._free_bytes -= pixels.nbytes
                # A copy: a view of a crop would keep the complete large image alive.
                self._pixels_by_digest[digest] = pixels.copy()
                self._pixels_by_digest[digest].flags.writeable = False
