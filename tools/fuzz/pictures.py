"""Encoded images: of every format and kind, of sizes that are not there, and damaged ones."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageOps

MODES = ("1", "L", "LA", "P", "RGB", "RGB", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F", "LAB")
KINDS = (
    *(("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF")) * 3,
    *(("bmp", "BMP"), ("ppm", "PPM"), ("gif", "GIF"), ("webp", "WEBP"), ("tga", "TGA")),
)
SIDES = (
    0,
    1,
    255,
    8192,
    8193,
    65535,
    65536,
    65537,
    2_000_000,
    1 << 26,
    (1 << 31) - 1,
    (1 << 32) - 1,
)
"""Sides that a header may claim."""


def pixels(data: bytes) -> np.ndarray:
    """Return the pixels of an image as Pillow decodes it, uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright is not None
        return np.array(upright.convert("RGB"), np.uint8)


def whole(numbers: Random, *, huge: bool = True) -> tuple[str, bytes]:
    """Return the name and the bytes of an image, of one that is none, or of a bomb."""
    makers: tuple[Callable[[Random], tuple[str, bytes]], ...] = (_picture, _deep, _other)
    name, data = numbers.choices(makers, (12, 1, 1))[0](numbers)
    if huge and numbers.random() < 0.2:
        name, data = numbers.choice((_claims, _claims, _bomb))(numbers)
    return name, data


def damaged(numbers: Random, data: bytes) -> bytes:
    """Return an image of which bytes are lost, changed, doubled or put in."""
    result = bytearray(data or b"\0")
    for _ in range(numbers.randint(1, 5)):
        at = (
            numbers.randrange(len(result))
            if numbers.random() < 0.5
            else numbers.randrange(min(len(result), 200))
        )
        match numbers.randrange(5):
            case 0:
                del result[at:]
            case 1:
                result[at] ^= 1 << numbers.randrange(8)
            case 2:
                result[at : at + 4] = numbers.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 3:
                result[at:at] = result[at : at + numbers.randint(1, 400)]
            case _:
                result[at:at] = numbers.randbytes(numbers.randint(1, 30))
        result = result or bytearray(b"\0")
    return bytes(result)


def _picture(numbers: Random) -> tuple[str, bytes]:
    ending, kind = numbers.choice(KINDS)
    size = (numbers.randint(1, 60), numbers.randint(1, 60))
    if numbers.random() < 0.3:
        size = (30, 20)
    elif numbers.random() < 0.15:
        long = numbers.choice((500, 65500))
        size = numbers.choice(((1, long), (long, 1)))
    image = _drawn(numbers, size, numbers.choice(MODES))
    options: dict[str, Any] = {}
    if numbers.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = numbers.randint(1, 8)
        options["exif"] = exif
    if numbers.random() < 0.2:
        options |= {"save_all": True, "append_images": [_drawn(numbers, size, image.mode)]}
    if kind == "TIFF":
        options["compression"] = numbers.choice(
            (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        )
    if kind == "JPEG":
        options |= {"progressive": numbers.random() < 0.5, "quality": numbers.randint(1, 100)}
    return f"x.{ending}", _saved(image, kind, options)


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    """Return an image in a format, in the nearest mode that the format has."""
    for mode in (image.mode, "RGB"):
        buffer = io.BytesIO()
        try:
            image.convert(mode).save(buffer, kind, **options)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            options.pop("compression", None)
            continue
        return buffer.getvalue()
    buffer = io.BytesIO()
    Image.new("RGB", image.size).save(buffer, "PNG")
    return buffer.getvalue()


def _drawn(numbers: Random, size: tuple[int, int], mode: str) -> Image.Image:
    width, height = size
    draw = np.random.default_rng(numbers.randrange(1 << 32))
    levels = draw.integers(0, numbers.choice((1, 2, 90, 256)), (height, width, 4), np.uint8)
    match mode:
        case "I;16":
            return Image.fromarray(levels[:, :, 0].astype(np.uint16) * 257)
        case "F":
            return Image.fromarray(levels[:, :, 0].astype(np.float32))
        case "LAB":
            return Image.frombytes("LAB", size, levels[:, :, :3].tobytes())
        case "P":
            return Image.fromarray(levels[:, :, :3]).quantize(16)
        case _:
            return (
                Image.fromarray(levels, "RGBA")
                .convert("RGB" if mode == "CMYK" else mode)
                .convert(mode)
            )


def _deep(numbers: Random) -> tuple[str, bytes]:
    """Return colour of 16 bits a sample."""
    width, height = numbers.randint(1, 40), numbers.randint(1, 40)
    color, samples = numbers.choice(((2, 3), (6, 4), (4, 2)))
    rows = b"".join(b"\0" + numbers.randbytes(width * samples * 2) for _ in range(height))
    return "x.png", png(width, height, 16, color, zlib.compress(rows))


def _other(numbers: Random) -> tuple[str, bytes]:
    choices = (
        b"", b"\0" * 5000, b"tcc: 1\nname: net\n", numbers.randbytes(3000), b"\xff\xd8\xff",
        b"P6", b"P6 1 1 255\n", b"P5 3 3 65535\n" + bytes(18), b"P3 1 1 255\n1 2 3\n",
        b"P6 4 1 7\n" + bytes(range(12)), b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bytes(128) + b"DICM" + bytes(99), b"II*\0\x08\0\0\0",
    )  # fmt: skip
    return f"x.{numbers.choice(('png', 'tif', 'ppm', 'jpg', 'dat'))}", numbers.choice(choices)


def _claims(numbers: Random) -> tuple[str, bytes]:
    """Return a small file whose header claims any size."""
    width, height = numbers.choice(SIDES), numbers.choice(SIDES)
    little = min(width, 65535), min(height, 65535)
    rows = zlib.compress(bytes(numbers.choice((0, 100, 1 << 20))))
    depth, color = numbers.choice((1, 8, 16)), numbers.choice((0, 2, 3, 6))
    tile = numbers.choice((None, numbers.choice(SIDES)))
    files = (
        ("png", png(width, height, depth, color, rows)),
        ("ppm", b"P%d %d %d 255\n" % (numbers.choice((5, 6)), width, height) + bytes(99)),
        ("bmp", _bmp(width, height * numbers.choice((1, -1)), numbers)),
        ("tif", tiff(width, height, numbers.choice(SIDES), tile, rows)),
        ("jpg", _jpeg(*little)),
        ("gif", b"GIF89a" + struct.pack("<HHBBB", *little, 0, 0, 0) + bytes(50)),
    )
    ending, data = numbers.choice(files)
    return f"x.{ending}", data


def _bmp(width: int, height: int, numbers: Random) -> bytes:
    bits, packing = numbers.choice((8, 24, 32)), numbers.choice((0, 0, 1))
    sides = (max(-(1 << 31), min(side, (1 << 31) - 1)) for side in (width, height))
    about = struct.pack("<IiiHHIIiiII", 40, *sides, 1, bits, packing, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<III", 1254, 0, 54) + about + numbers.randbytes(1200)


@cache
def _packed(width: int, height: int) -> bytes:
    """Return rows of nothing, compressed."""
    packer, row = zlib.compressobj(1), bytes(1 + width * 3)
    return b"".join(packer.compress(row) for _ in range(height)) + packer.flush()


def _bomb(numbers: Random) -> tuple[str, bytes]:
    """Return a small file that unpacks to what it claims, near what is taken and beyond it."""
    width, height = numbers.choice(
        (
            (8192, 8192),
            (65536, 1024),
            (1024, 65536),
            (8192, 8193),
            (1, 65536),
            (2, 65537),
            (1, 2_000_000),
        )
    )
    if numbers.random() < 0.4:
        width, height = min(width, 65500), min(height, 65500)
        buffer = io.BytesIO()
        Image.new("L", (width, height), 7).save(buffer, "JPEG", progressive=True)
        data = buffer.getvalue()
        scans = data.index(b"\xff\xda")
        return "x.jpg", data[:scans] + data[scans:-2] * numbers.choice((1, 1, 9, 200)) + data[-2:]
    return "x.png", png(width, height, 8, 2, _packed(width, height))


def png(width: int, height: int, depth: int, color: int, packed: bytes) -> bytes:
    """Return a PNG file of compressed rows."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)),
        *([(b"PLTE", bytes(range(48)))] if color == 3 else []), (b"IDAT", packed), (b"IEND", b""),
    )  # fmt: skip
    parts = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width: int, height: int, rows: int, tile: int | None, packed: bytes) -> bytes:
    """Return a TIFF file of one deflated strip of `rows` rows, or one tile as wide."""
    place = ((278, rows), (273, 400), (279, len(packed)), (266, 1))
    if tile is not None:
        place = ((322, tile), (323, rows), (324, 400), (325, len(packed)))
    short = {258: 8, 259: 8, 262: 1, 277: 1}
    tags = sorted([(256, width), (257, height), *short.items(), *place])
    entries = b"".join(
        struct.pack("<HHII", tag, 3 if tag in short else 4, 1, value) for tag, value in tags
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    return head.ljust(400, b"\0") + packed


def _jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = buffer.getvalue()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
