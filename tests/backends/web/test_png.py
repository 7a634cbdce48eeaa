"""The page's PNG decoder: the bytes that Pillow gives, or a refusal."""

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from web_node import needs_node, node

from tcc.compiler.data import images
from tcc.compiler.support.diagnostics import UserError

DECODE = """
import { readFileSync, writeFileSync } from 'node:fs';
import { decodePng } from 'site/png.js';
const folder = process.argv[2];
const found = [];
const parts = [];
for (let i = 0; i < Number(process.argv[3]); i += 1) {
  try {
    const { height, width, data, remarks } = await decodePng(new Uint8Array(readFileSync(`${folder}/${i}.png`)));
    found.push({ shape: [height, width, 3], remarks });
    parts.push(Buffer.from(data));
  } catch (error) {
    found.push({ refused: error.constructor.name, message: error.message });
  }
}
writeFileSync(folder + '/pixels.bin', Buffer.concat(parts));
console.log(JSON.stringify(found));
"""
KINDS = [
    (1, 0),
    (2, 0),
    (4, 0),
    (8, 0),
    (8, 2),
    (16, 2),
    (1, 3),
    (2, 3),
    (4, 3),
    (8, 3),
    (8, 4),
    (16, 4),
    (8, 6),
    (16, 6),
]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
RNG = np.random.default_rng(11)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def scans(width, height, depth, channels, interlace):
    """Random lines, each with a filter: all bytes are pixels, whatever the filter makes of them."""
    lines = bytearray()
    for x, y, dx, dy in ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0:
            for _ in range(max(rows, 0)):
                stride = -(-columns * channels * depth // 8)
                lines += bytes([RNG.integers(0, 5)]) + RNG.bytes(stride)
    return bytes(lines)


def png(depth, color, size=(9, 7), interlace=0, *, before=b"", after=b"", pieces=1, level=6):
    width, height = size
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    palette = chunk(b"PLTE", RNG.bytes(3 * (1 << depth))) if color == 3 else b""
    packed = zlib.compress(scans(width, height, depth, CHANNELS[color], interlace), level)
    step = -(-len(packed) // pieces)
    data = b"".join(chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + palette
        + data
        + after
        + chunk(b"IEND", b"")
    )


def exif(orientation, order="<", kind=3):
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    value = struct.pack(order + "HHI", 0x112, kind, 1) + struct.pack(
        order + ("H2x" if kind == 3 else "I"), orientation
    )
    return head + struct.pack(order + "H", 1) + value + bytes(4)


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def text(key, value):
    info = PngInfo()
    info.add_itxt(key, value)
    return info


def sound():
    """Files that Pillow reads, by what they are."""
    for depth, color in KINDS:
        for size, interlace in product(((1, 1), (9, 7), (33, 20), (3, 64)), (0, 1)):
            yield (
                f"{depth} bits of {color}, {size}, {interlace}",
                png(depth, color, size, interlace),
            )
    photo = Image.fromarray(RNG.integers(0, 256, (12, 17, 3), np.uint8))
    for orientation, order, kind in product(range(10), "<>", (3, 4)):
        yield (
            f"exif {orientation} {order} {kind}",
            saved(photo, exif=exif(orientation, order, kind)),
        )
        yield (
            f"exif after {orientation}",
            png(8, 2, after=chunk(b"eXIf", exif(orientation, order, kind))),
        )
    for orientation in range(10):
        attribute = text("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
        inner = text("XML:com.adobe.xmp", f"<tiff:Orientation>{orientation}</tiff:Orientation>")
        yield f"xmp {orientation}", saved(photo, pnginfo=attribute)
        yield f"xmp within {orientation}", saved(photo, pnginfo=inner)
        yield f"xmp and exif {orientation}", saved(photo, pnginfo=attribute, exif=exif(6))
        hexed = PngInfo()
        data = b"Exif\x00\x00" + exif(orientation)
        hexed.add_text(
            "Raw profile type exif",
            f"\nexif\n{len(data):8}\n{data.hex()}\n",
            zip=orientation % 2 == 1,
        )
        yield f"profile {orientation}", saved(photo, pnginfo=hexed)
    gray = Image.fromarray(RNG.integers(0, 256, (5, 6), np.uint8))
    yield (
        "gamma",
        png(8, 2, before=chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")),
    )
    yield "chromaticities", png(8, 2, before=chunk(b"cHRM", RNG.bytes(32)))
    yield "profile", saved(photo, icc_profile=RNG.bytes(500))
    yield "broken profile", png(8, 2, before=chunk(b"iCCP", b"a\0\0" + RNG.bytes(20)))
    yield "densities", saved(photo, dpi=(300, 300))
    yield "one of grey is transparent", saved(gray, transparency=7)
    yield "a colour is transparent", saved(photo, transparency=(1, 2, 3))
    yield (
        "some of a palette is transparent",
        saved(photo.quantize(32), transparency=bytes(range(32))),
    )
    yield "pieces", png(8, 6, (40, 40), pieces=7)
    yield "stored", png(8, 2, (40, 40), level=0)
    yield "unknown parts", png(8, 2, before=chunk(b"abCd", b"x"), after=chunk(b"zzZz", b""))
    for name, mode in (
        ("bits", "1"),
        ("alpha", "RGBA"),
        ("grey and alpha", "LA"),
        ("palette", "P"),
    ):
        yield f"saved {name}", saved(photo.convert(mode), optimize=True)


def short_palette():
    """A palette of three colours for pixels of 256."""
    whole = png(8, 3)
    first, last = whole.index(b"PLTE") - 4, whole.index(b"IDAT") - 4
    return whole[:first] + chunk(b"PLTE", RNG.bytes(9)) + whole[last:]


LENIENT = ("a colour that the palette lacks", "too few pixels")
"""What Pillow reads although it is broken, with black where nothing is stored."""


def broken():
    """Files that are refused, by what is wrong, with what is said."""
    whole = png(8, 2)
    yield "an animation", png(8, 2, before=chunk(b"acTL", struct.pack(">II", 2, 0))), "animation"
    yield "16 bits of grey", png(16, 0), "16 bits of grey"
    yield "an end too early", whole[:-20], "too early"
    yield "half of it", whole[: len(whole) // 2], "too early"
    yield "a checksum", whole.replace(b"IDAT", b"IDAT", 1)[:-17] + b"\0" + whole[-16:], "checksum"
    yield "a depth that is none", png(8, 2).replace(*_header(8, 3)), "header"
    yield "a large image", png(8, 2).replace(*_header(8, 2, (1 << 17, 1))), "too large"
    yield "a bomb", png(8, 2).replace(*_header(8, 2, (8192, 8193))), "too large"
    yield "a colour that the palette lacks", short_palette(), "palette lacks"
    yield "too few pixels", png(8, 2).replace(*_header(8, 2, (9, 8))), "too few"
    yield "EXIF that is none", png(8, 2, before=chunk(b"eXIf", b"nothing at all")), "EXIF"


def _header(depth, color, size=(9, 7)):
    """A header in place of that of `png(8, 2)`; of a depth 3 there is none."""
    old = struct.pack(">IIBBBBB", 9, 7, 8, 2, 0, 0, 0)
    new = struct.pack(">IIBBBBB", *size, depth if size != (9, 7) or color != 3 else 5, 2, 0, 0, 0)
    return chunk(b"IHDR", old), chunk(b"IHDR", new)


def decoded(folder, files):
    for number, data in enumerate(files):
        (folder / f"{number}.png").write_bytes(data)
    found = node(DECODE, folder, folder, str(len(files)))
    pixels, at = np.fromfile(folder / "pixels.bin", np.uint8), 0
    for one in found:
        if "shape" in one:
            end = at + int(np.prod(one["shape"]))
            one["pixels"], at = pixels[at:end].reshape(one["shape"]), end
    return found


@needs_node
def test_what_pillow_reads_gives_its_bytes(tmp_path):
    files = list(sound())
    results = decoded(tmp_path, [data for _, data in files])
    for (name, data), found in zip(files, results, strict=True):
        assert "pixels" in found, (name, found)
        wanted = images.decode(data, name)
        assert found["pixels"].shape == wanted.shape, name
        assert np.array_equal(found["pixels"], wanted), name
        assert bool(found["remarks"]) == bool(images.remarks(data)), (name, found["remarks"])


@needs_node
def test_what_is_broken_is_refused(tmp_path):
    files = list(broken())
    results = decoded(tmp_path, [data for _, data, _ in files])
    for (name, data, words), found in zip(files, results, strict=True):
        assert found.get("refused") == "ImageError", (name, found)
        assert words in found["message"], (name, found["message"])
        if name not in LENIENT:
            with pytest.raises(UserError):
                images.decode(data, name)


@needs_node
def test_damage_is_refused_or_read_as_pillow_does(tmp_path):
    whole = [png(8, 6, (20, 15), 1), png(4, 3, (20, 15)), png(8, 2)]
    files = []
    for data in whole:
        for _ in range(100):
            changed = bytearray(data)
            for place in RNG.integers(8, len(data), RNG.integers(1, 3)):
                changed[place] ^= 1 << RNG.integers(0, 8)
            files.append(bytes(changed))
    results = decoded(tmp_path, files)
    refused = 0
    for data, found in zip(files, results, strict=True):
        if "pixels" in found:
            assert np.array_equal(found["pixels"], images.decode(data, "changed"))
        else:
            assert found["refused"] == "ImageError", found
            refused += 1
    assert refused > 200
