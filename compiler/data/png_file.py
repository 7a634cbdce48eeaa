"""Validate PNG files: reject what decoders handle in different ways.

Pillow fills missing rows with black, reads a color outside the palette as black, and lets a text
chunk named `interlace` change the pixel layout. The web page's decoder
(backends/web/site/png_chunks.js) has the same rules as this module. A file is therefore read with
the same pixels on every target, or on none. See the PNG specification, third edition.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tcc.compiler.data import png_exif
from tcc.compiler.data.png_exif import PngError
from tcc.compiler.ir import image_limits


class AnimatedPngError(Exception):
    """The file has animation chunks."""


SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
CRITICAL = frozenset({"IHDR", "PLTE", "IDAT"})
ANIMATION = frozenset({"acTL", "fcTL", "fdAT"})
SHORTEST = {"gAMA": 4, "cHRM": 32, "sRGB": 1, "pHYs": 9}
"""Minimum size in bytes of the chunks that Pillow reads."""
ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
MAX_UNPACKED = (1 << 20) - 1
"""Maximum size in bytes of a decompressed text or profile."""
MAX_TEXTS = 1 << 26
"""Maximum size in bytes of all texts."""
RESERVED = frozenset({"interlace", "bbox", "transparency", "default_image", "xmp"})
"""Text keys that Pillow confuses with the data of other chunks."""
STEP = 1 << 18


class Chunk(NamedTuple):
    """A chunk of a PNG file: its name of four letters, and its data."""

    name: str
    data: bytes


class Header(NamedTuple):
    """The fields of the IHDR chunk."""

    width: int
    height: int
    depth: int
    color: int
    interlaced: bool


def check(file_bytes: bytes, name: str) -> int:
    """Check a PNG file, except whether its pixels' palette indices are valid.

    Args:
        file_bytes: The file's bytes.
        name: The image's name in error messages.

    Returns:
        The number of colors in its palette; 0 if the pixels do not use a palette.

    Raises:
        PngError: The file is damaged; the message describes the problem.
        UserError: The image is too large (E0704).
        AnimatedPngError: The file has animation chunks.
    """
    chunks = list(_read_chunks(file_bytes))
    header = _read_header(chunks)
    image_limits.check(header.height, header.width, name)
    if any(chunk.name in ANIMATION for chunk in chunks):
        raise AnimatedPngError
    _check_order(chunks, header)
    _check_contents(chunks, header)
    packed = [chunk.data for chunk in chunks if chunk.name == "IDAT"]
    _check_pixels(packed, _count_bytes(header))
    palettes = [len(chunk.data) // 3 for chunk in chunks if chunk.name == "PLTE"]
    return palettes[0] if header.color == 3 else 0


def _read_chunks(file_bytes: bytes) -> Iterator[Chunk]:
    """Yield the chunks before IEND."""
    offset = len(SIGNATURE)
    while True:
        if offset + 8 > len(file_bytes):
            raise PngError("the file ends too early")
        length, letters = struct.unpack_from(">I4s", file_bytes, offset)
        if not re.fullmatch(rb"[A-Za-z]{4}", letters):
            raise PngError("the name of a chunk is invalid")
        if letters == b"IEND":
            return
        stop = offset + 8 + length
        if stop + 4 > len(file_bytes):
            raise PngError("the file ends too early")
        name = letters.decode("ascii")
        if struct.unpack_from(">I", file_bytes, stop)[0] != zlib.crc32(
            file_bytes[offset + 4 : stop]
        ):
            raise PngError(f"the checksum of chunk {name} is wrong")
        yield Chunk(name, file_bytes[offset + 8 : stop])
        offset = stop + 4


def _read_header(chunks: Sequence[Chunk]) -> Header:
    if not chunks or chunks[0].name != "IHDR" or len(chunks[0].data) != 13:
        raise PngError("the file has no header")
    width, height, depth, color, *methods, interlace = struct.unpack(">IIBBBBB", chunks[0].data)
    if depth not in DEPTHS.get(color, ()) or any(methods) or interlace > 1 or not width * height:
        raise PngError("its header is invalid")
    return Header(width, height, depth, color, interlace == 1)


def _check_order(chunks: Sequence[Chunk], header: Header) -> None:
    names = [chunk.name for chunk in chunks]
    if names.count("IHDR") > 1:
        raise PngError("the file has several headers")
    for name in names:
        if name[0].isupper() and name not in CRITICAL:
            raise PngError(f"critical chunk {name} is unknown")
    if "IDAT" not in names:
        raise PngError("the file has no pixels")
    first_idat, count = names.index("IDAT"), names.count("IDAT")
    if set(names[first_idat : first_idat + count]) != {"IDAT"}:
        raise PngError("its IDAT chunks are not consecutive")
    if header.color == 3:
        _check_palette(chunks[:first_idat], names.count("PLTE"))


def _check_palette(chunks_ahead: Sequence[Chunk], count: int) -> None:
    """Check that the file has exactly one palette, ahead of the pixels."""
    sizes = [len(chunk.data) for chunk in chunks_ahead if chunk.name == "PLTE"]
    if count != 1 or len(sizes) != 1 or not 0 < sizes[0] <= 768 or sizes[0] % 3:
        raise PngError("its palette is missing or invalid")


def _check_contents(chunks: Sequence[Chunk], header: Header) -> None:
    shortest = SHORTEST | {"tRNS": {0: 2, 2: 6}.get(header.color, 0)}
    texts = 0
    for name, data in chunks:
        if len(data) < shortest.get(name, 0):
            raise PngError(f"chunk {name} is too short")
        if name == "eXIf":
            png_exif.check(data)
        elif name == "iCCP":
            _unpack(name, data[data.find(b"\0") + 1 :])
        elif name in ("tEXt", "zTXt", "iTXt"):
            texts += _check_text(name, data)
    if texts > MAX_TEXTS:
        raise PngError("its text chunks are too long")


def _check_text(name: str, data: bytes) -> int:
    """Check a text chunk and return the length of its text."""
    letters, _, content = data.partition(b"\0")
    key = letters.decode("latin-1")
    if name == "zTXt":
        content = _unpack(name, content) if content else b""
    elif name == "iTXt":
        if (international := _unpack_international(content)) is None:
            return 0
        content = international
    if key in RESERVED or (key == "exif" and name != "tEXt"):
        raise PngError(f"it has a text chunk with the reserved key {key}")
    if key == "exif":
        png_exif.check(content)
    elif key == png_exif.PROFILE:
        png_exif.check(png_exif.read_profile(content))
    return len(content)


def _unpack_international(content: bytes) -> bytes | None:
    """Return the text of an iTXt chunk, without its key; None where Pillow reads no text."""
    flags, parts = content[:2], content[2:].split(b"\0", 2)
    if len(flags) < 2 or len(parts) < 3 or (flags[0] and flags[1]):
        return None
    return _inflate("iTXt", parts[2]) if flags[0] else parts[2]


def _unpack(name: str, data: bytes) -> bytes:
    """Return the decompressed data after the byte of the compression method."""
    if not data or data[0]:
        raise PngError(f"chunk {name} uses an unknown compression method")
    return _inflate(name, data[1:])


def _inflate(name: str, packed: bytes) -> bytes:
    if not packed:
        return b""
    decoder = zlib.decompressobj()
    try:
        unpacked = decoder.decompress(packed, MAX_UNPACKED + 1)
    except zlib.error:
        raise PngError(f"the compressed data of chunk {name} are invalid") from None
    if len(unpacked) > MAX_UNPACKED:
        raise PngError(f"the decompressed data of chunk {name} are too long")
    if not decoder.eof or decoder.unused_data:
        raise PngError(f"the compressed data of chunk {name} are invalid")
    return unpacked


def _count_bytes(header: Header) -> int:
    """Return the number of bytes of all rows, each with its filter byte."""
    total = 0
    for x, y, across, down in ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(header.width - x) // across), -(-(header.height - y) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * CHANNELS[header.color] * header.depth // 8))
    return total


def _check_pixels(parts: Sequence[bytes], size: int) -> None:
    """Check that the compressed pixels unpack to exactly `size` bytes, with bounded memory."""
    decoder, count = zlib.decompressobj(), 0
    try:
        for part in parts:
            content = part
            while content and not decoder.eof:
                count += len(decoder.decompress(content, STEP))
                content = decoder.unconsumed_tail
                if count > size:
                    raise PngError("the file has too many pixels")
            if decoder.unused_data or (content and decoder.eof):
                raise PngError("extra data follow its pixels")
    except zlib.error:
        raise PngError("its compressed pixels are invalid") from None
    if not decoder.eof or count < size:
        raise PngError("the file has too few pixels")
