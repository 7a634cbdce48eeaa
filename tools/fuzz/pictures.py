"""Generate encoded images: all formats and modes, false sizes, and damage."""

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
"""Side lengths that a header may claim."""


def decode_pixels(content: bytes) -> np.ndarray:
    """Return the pixels of an image as Pillow decodes it, uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright is not None
        return np.array(upright.convert("RGB"), np.uint8)


def make_image(numbers: Random, *, huge: bool = True) -> tuple[str, bytes]:
    """Return the name and the bytes of an image, of something else, or of a bomb."""
    makers: tuple[Callable[[Random], tuple[str, bytes]], ...] = (
        _make_picture,
        _make_16_bit,
        _make_other,
    )
    name, content = numbers.choices(makers, (12, 1, 1))[0](numbers)
    if huge and numbers.random() < 0.2:
        name, content = numbers.choice((_make_false_size, _make_false_size, _make_bomb))(numbers)
    return name, content


def inject_damage(numbers: Random, content: bytes) -> bytes:
    """Return an image with lost, changed, repeated or inserted bytes."""
    changed = bytearray(content or b"\0")
    for _ in range(numbers.randint(1, 5)):
        at = (
            numbers.randrange(len(changed))
            if numbers.random() < 0.5
            else numbers.randrange(min(len(changed), 200))
        )
        match numbers.randrange(5):
            case 0:
                del changed[at:]
            case 1:
                changed[at] ^= 1 << numbers.randrange(8)
            case 2:
                changed[at : at + 4] = numbers.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 3:
                changed[at:at] = changed[at : at + numbers.randint(1, 400)]
            case _:
                changed[at:at] = numbers.randbytes(numbers.randint(1, 30))
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def _make_picture(numbers: Random) -> tuple[str, bytes]:
    ending, kind = numbers.choice(KINDS)
    size = (numbers.randint(1, 60), numbers.randint(1, 60))
    if numbers.random() < 0.3:
        size = (30, 20)
    elif numbers.random() < 0.15:
        long = numbers.choice((500, 65500))
        size = numbers.choice(((1, long), (long, 1)))
    image = _draw_image(numbers, size, numbers.choice(MODES))
    options: dict[str, Any] = {}
    if numbers.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = numbers.randint(1, 8)
        options["exif"] = exif
    if numbers.random() < 0.2:
        options |= {"save_all": True, "append_images": [_draw_image(numbers, size, image.mode)]}
    if kind == "TIFF":
        options["compression"] = numbers.choice(
            (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        )
    if kind == "JPEG":
        options |= {"progressive": numbers.random() < 0.5, "quality": numbers.randint(1, 100)}
    return f"x.{ending}", _encode_image(image, kind, options)


def _encode_image(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    """Return an image in a format, in the nearest mode that the format supports."""
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


def _draw_image(numbers: Random, size: tuple[int, int], mode: str) -> Image.Image:
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


def _make_16_bit(numbers: Random) -> tuple[str, bytes]:
    """Return a colour image with 16 bits per sample."""
    width, height = numbers.randint(1, 40), numbers.randint(1, 40)
    color, samples = numbers.choice(((2, 3), (6, 4), (4, 2)))
    rows = b"".join(b"\0" + numbers.randbytes(width * samples * 2) for _ in range(height))
    return "x.png", write_png(width, height, 16, color, zlib.compress(rows))


def _make_other(numbers: Random) -> tuple[str, bytes]:
    choices = (
        b"", b"\0" * 5000, b"tcc: 1\nname: net\n", numbers.randbytes(3000), b"\xff\xd8\xff",
        b"P6", b"P6 1 1 255\n", b"P5 3 3 65535\n" + bytes(18), b"P3 1 1 255\n1 2 3\n",
        b"P6 4 1 7\n" + bytes(range(12)), b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bytes(128) + b"DICM" + bytes(99), b"II*\0\x08\0\0\0",
    )  # fmt: skip
    return f"x.{numbers.choice(('png', 'tif', 'ppm', 'jpg', 'dat'))}", numbers.choice(choices)


def _make_false_size(numbers: Random) -> tuple[str, bytes]:
    """Return a small file with a header that claims any size."""
    width, height = numbers.choice(SIDES), numbers.choice(SIDES)
    little = min(width, 65535), min(height, 65535)
    rows = zlib.compress(bytes(numbers.choice((0, 100, 1 << 20))))
    depth, color = numbers.choice((1, 8, 16)), numbers.choice((0, 2, 3, 6))
    tile = numbers.choice((None, numbers.choice(SIDES)))
    files = (
        ("png", write_png(width, height, depth, color, rows)),
        ("ppm", b"P%d %d %d 255\n" % (numbers.choice((5, 6)), width, height) + bytes(99)),
        ("bmp", _write_bmp(width, height * numbers.choice((1, -1)), numbers)),
        ("tif", write_tiff(width, height, numbers.choice(SIDES), tile, rows)),
        ("jpg", _write_jpeg(*little)),
        ("gif", b"GIF89a" + struct.pack("<HHBBB", *little, 0, 0, 0) + bytes(50)),
    )
    ending, content = numbers.choice(files)
    return f"x.{ending}", content


def _write_bmp(width: int, height: int, numbers: Random) -> bytes:
    bits, packing = numbers.choice((8, 24, 32)), numbers.choice((0, 0, 1))
    sides = (max(-(1 << 31), min(side, (1 << 31) - 1)) for side in (width, height))
    info_header = struct.pack("<IiiHHIIiiII", 40, *sides, 1, bits, packing, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<III", 1254, 0, 54) + info_header + numbers.randbytes(1200)


@cache
def _compress_rows(width: int, height: int) -> bytes:
    """Return compressed rows of zeros."""
    packer, row = zlib.compressobj(1), bytes(1 + width * 3)
    return b"".join(packer.compress(row) for _ in range(height)) + packer.flush()


def _make_bomb(numbers: Random) -> tuple[str, bytes]:
    """Return a small file that unpacks to its claimed size, near the limit and above it."""
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
        jpeg_bytes = buffer.getvalue()
        scans = jpeg_bytes.index(b"\xff\xda")
        return "x.jpg", jpeg_bytes[:scans] + jpeg_bytes[scans:-2] * numbers.choice(
            (1, 1, 9, 200)
        ) + jpeg_bytes[-2:]
    return "x.png", write_png(width, height, 8, 2, _compress_rows(width, height))


def write_png(width: int, height: int, depth: int, color: int, packed: bytes) -> bytes:
    """Return a PNG file of compressed rows."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)),
        *([(b"PLTE", bytes(range(48)))] if color == 3 else []), (b"IDAT", packed), (b"IEND", b""),
    )  # fmt: skip
    parts = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write_tiff(width: int, height: int, rows: int, tile: int | None, packed: bytes) -> bytes:
    """Return a TIFF file of one deflated strip of `rows` rows, or one tile of the same width."""
    layout_tags = ((278, rows), (273, 400), (279, len(packed)), (266, 1))
    if tile is not None:
        layout_tags = ((322, tile), (323, rows), (324, 400), (325, len(packed)))
    short = {258: 8, 259: 8, 262: 1, 277: 1}
    tags = sorted([(256, width), (257, height), *short.items(), *layout_tags])
    tag_bytes = b"".join(
        struct.pack("<HHII", tag, 3 if tag in short else 4, 1, tag_content)
        for tag, tag_content in tags
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + tag_bytes + bytes(4)
    return head.ljust(400, b"\0") + packed


def _write_jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    jpeg_bytes = buffer.getvalue()
    at = jpeg_bytes.index(b"\xff\xc0") + 5
    return jpeg_bytes[:at] + struct.pack(">HH", height, width) + jpeg_bytes[at + 4 :]
