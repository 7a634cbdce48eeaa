"""Check the EXIF data of a PNG file, which contain its orientation."""

import re
import struct


class PngError(ValueError):
    """The file is damaged; the message names the part."""


PROFILE = "Raw profile type exif"
"""Key of the text chunk in which ImageMagick stores EXIF data as hexadecimal digits."""
PREFIX = b"Exif\0\0"
ORIENTATION, SHORT, LONG = 0x0112, 3, 4
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
"""Bytes per value of each TIFF type."""
DAMAGED = "its EXIF data are invalid"


def read_profile(text: bytes) -> bytes:
    """Return the bytes of hexadecimal digits that follow three header lines.

    Raises:
        PngError: The text does not consist of pairs of hexadecimal digits.
    """
    digits = b"".join(text.split(b"\n")[3:])
    if not re.fullmatch(rb"[ \t\r\f\v]*([0-9a-fA-F]{2}[ \t\r\f\v]*)*", digits):
        raise PngError(DAMAGED)
    return bytes.fromhex(digits.decode("ascii"))


def check(exif: bytes) -> None:
    """Check that EXIF data are valid and contain at most one orientation; empty data are valid.

    Pillow stops without an error at an entry with missing bytes and then ignores the orientation,
    so such data are rejected. The web page's reader (backends/web/site/exif.js) has the same rules.

    Raises:
        PngError: The data are damaged, or contain several orientations.
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
