"""Pyramids of JPEG tiles as a BigTIFF file, as slide viewers open them.

The form is that of TIFF 6.0 with its Technical Note 2 (JPEG), in BigTIFF's 64-bit words. Written
here since tifffile asks for one package more to hold JPEG tiles that are made already.
"""

import hashlib
import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import BinaryIO

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
FORMATS = {SHORT: "H", LONG: "I", RATIONAL: "II", LONG8: "Q"}
JPEG, YCBCR, CENTIMETRES = 7, 6, 3


class TiledTiff:
    """Writes levels, the largest first; tiles of the same bytes are kept once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, int] = {}
        self._next = 8
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def level(
        self, width: int, height: int, tile: int, micrometres: float, tiles: Iterable[bytes]
    ) -> None:
        """Write a level.

        Args:
            width: Its pixels in a row.
            height: Its pixels in a column.
            tile: The side of a tile, a multiple of 16.
            micrometres: How wide a pixel is.
            tiles: JPEG files of whole tiles, row after row, whose colours are halved both ways.
        """
        offsets, sizes = [], []
        for data in tiles:
            offsets.append(self._place(data))
            sizes.append(len(data))
        reduced = int(self._next != 8)
        unit = Fraction(1e4 / micrometres).limit_denominator(1000)
        resolution = [unit.numerator, unit.denominator]
        fields = [
            (254, LONG, [reduced]), (256, LONG, [width]), (257, LONG, [height]),
            (258, SHORT, [8, 8, 8]), (259, SHORT, [JPEG]), (262, SHORT, [YCBCR]),
            (277, SHORT, [3]), (282, RATIONAL, resolution), (283, RATIONAL, resolution),
            (284, SHORT, [1]), (296, SHORT, [CENTIMETRES]), (322, LONG, [tile]),
            (323, LONG, [tile]), (324, LONG8, offsets), (325, LONG, sizes), (530, SHORT, [2, 2]),
        ]  # fmt: skip
        entries = [self._entry(*field) for field in fields]
        at = self._end()
        directory = struct.pack("<Q", len(entries)) + b"".join(entries)
        self._file.write(directory + bytes(8))
        self._file.seek(self._next)
        self._file.write(struct.pack("<Q", at))
        self._next = at + len(directory)

    def _end(self) -> int:
        """Go to an even place at the end, and return it."""
        at = self._file.seek(0, 2)
        self._file.write(bytes(at % 2))
        return at + at % 2

    def _place(self, data: bytes) -> int:
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._places[key] = self._end()
            self._file.write(data)
        return self._places[key]

    def _entry(self, tag: int, kind: int, values: list[int]) -> bytes:
        """Return a field of a directory, whose values lie elsewhere if they are many."""
        letters = FORMATS[kind]
        count = len(values) // len(letters)
        data = struct.pack(f"<{letters[0] * len(values)}", *values)
        if len(data) > 8:
            at = self._end()
            self._file.write(data)
            data = struct.pack("<Q", at)
        return struct.pack("<HHQ", tag, kind, count) + data.ljust(8, b"\0")
