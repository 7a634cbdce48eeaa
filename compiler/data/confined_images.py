"""Image files to pixels, decoded by processes that can do nothing else.

The functions are those of `images`, and so are pixels and errors. A decoder that crashes, hangs or
takes too much memory is an error of its image (E1326).
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
"""Bytes that a decoder may take: several times the pixels of the largest image, and its file."""
DECODERS = DecoderPool("tcc.compiler.data.images", MEMORY, "image")


SECONDS = 120.0
"""How long an image may take: on a slow machine the largest takes some ten."""
MAX_ANSWER_BYTES = 3 * MAX_PIXELS
"""Most bytes of an answer: the pixels of the largest image."""
_ONE_AT_A_TIME = threading.Lock()
"""Held while a large image is decoded, so that threads do not multiply what it takes."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the RGB pixels of an image file, uint8 (height, width, 3), as `images.read`.

    Raises:
        UserError: As `images.read`, or the decoder ended without an answer (E1326).
    """
    return decode(image_files.read_bytes(path), str(path))


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the RGB pixels of an encoded image, as `images.decode` (E1326 besides)."""
    reply, pixels = _send_request({"do": "decode", "name": name}, content)
    return _read_pixels(reply, pixels, name)


def decode_input_pixels(
    content: bytes, name: str, contract: Preprocess, size: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return what a contract makes of an encoded image, as `images.levels` (E1326 besides).

    Of large images one is decoded at a time.
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
    """Return the height and width of an encoded image, as `images.size`."""
    with suppress(UserError):  # whoever decodes it says what is wrong
        sides = _send_request({"do": "size", "name": ""}, content)[0].get("size")
        if isinstance(sides, list) and len(sides) == 2 and all(type(n) is int for n in sides):
            return sides[0], sides[1]
    return None


def collect_remarks(content: bytes) -> tuple[str, ...]:
    """Return what is lost or chosen when an encoded image is read, as `images.remarks`."""
    with suppress(UserError):  # whoever decodes it says what is wrong
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
    raise make_decoder_error(name, DECODERS.noun, "it answers what are no pixels")


MAX_CACHE_BYTES = 32 << 20
"""Bytes of all: some 200 images of 224 x 224 pixels, which is more than judge candidates."""


def read_input_pixels(
    path: Path, contract: Preprocess, size: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return what a contract makes of an image file before it divides, as `images.levels`.

    Raises:
        UserError: The image is damaged, or of a size that the network does not take.
    """
    return decode_input_pixels(image_files.read_bytes(path), str(path), contract, size)


class PixelCache:
    """Levels uint8 (height, width, channels) by the digest of an image, for one network's input.

    What is kept is the first that came. Threads may share it.
    """

    def __init__(self, free_bytes: int = MAX_CACHE_BYTES) -> None:
        self._free_bytes, self._pixels_by_digest = free_bytes, dict[str, "NDArray[np.uint8]"]()
        self._lock = threading.Lock()

    def get(self, digest: str) -> NDArray[np.uint8] | None:
        """Return the levels of an image, if they are kept."""
        return self._pixels_by_digest.get(digest)

    def add(self, digest: str, pixels: NDArray[np.uint8]) -> None:
        """Keep a copy of the levels of an image, if there is room."""
        with self._lock:
            if digest not in self._pixels_by_digest and pixels.nbytes <= self._free_bytes:
                self._free_bytes -= pixels.nbytes
                # A copy: what was cut out of a large image would keep all of it.
                self._pixels_by_digest[digest] = pixels.copy()
                self._pixels_by_digest[digest].flags.writeable = False
