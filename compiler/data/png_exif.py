"""The EXIF data of a PNG file, where its orientation is."""

import re
import struct


class PngError(ValueError):
    """The file is damaged: the message names the part."""


PROFILE = "Raw profile type exif"
"""The key of the text that ImageMagick keeps EXIF data in, as hexadecimal digits."""
PREFIX = b"Exif\0\0"
ORIENTATION, SHORT, LONG = 0x0112, 3, 4
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes of a number of each type of TIFF."""
DAMAGED = "its EXIF data"


def read_profile(text: bytes) -> bytes:
    """Return the bytes that hexadecimal digits stand for, after three lines.

    Raises:
        PngError: They are no such digits.
    """
    digits = b"".join(text.split(b"\n")[3:])
    if not re.fullmatch(rb"[ \t\r\f\v]*([0-9a-fA-F]{2}[ \t\r\f\v]*)*", digits):
        raise PngError(DAMAGED)
    return bytes.fromhex(digits.decode("ascii"))


def check(exif: bytes) -> None:
    """Check that EXIF data say one orientation, or none, and say it soundly; empty ones do.

    Pillow stops in silence at an entry whose bytes are not there, and then turns no image: such
    data are refused. The page's reader (backends/web/site/exif.js) has the same rules.

    Raises:
        PngError: They are damaged, or name several orientations.
    """
    tiff_data = exif.removeprefix(PREFIX)
    if not tiff_data:
        return
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff_data[:4])
    if order is None:
        raise PngError(DAMAGED)
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff_data, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff_data, start)
        entries = [
            struct.unpack_from(f"{order}HHII", tiff_data, start + 2 + 12 * n) for n in range(count)
        ]
    except struct.error:
        raise PngError(DAMAGED) from None
    for tag, value_type, count_of_values, offset in entries:
        size = SIZES.get(value_type, 0) * count_of_values
        if size > 4 and offset + size > len(tiff_data):
            raise PngError(DAMAGED)
        if tag == ORIENTATION and (count_of_values != 1 or value_type not in (SHORT, LONG)):
            raise PngError(DAMAGED)
    if sum(tag == ORIENTATION for tag, *_ in entries) > 1:
        raise PngError(DAMAGED)
