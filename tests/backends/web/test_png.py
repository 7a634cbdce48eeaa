"""The page's PNG decoder: the bytes that Pillow gives, or a refusal."""

import io
import struct
import zlib
from itertools import product
from random import Random

import numpy as np
import pytest
from mutated_pngs import CHANNELS, KINDS, chunk, exif, mutated_png
from mutated_pngs import scans as random_scans
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
RNG = np.random.default_rng(11)
NUMBERS = Random(11)


def png(depth, color, size=(9, 7), interlace=0, *, before=b"", after=b"", pieces=1, level=6):
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, interlace)
    palette = chunk(b"PLTE", RNG.bytes(3 * (1 << depth))) if color == 3 else b""
    packed = zlib.compress(random_scans(size, depth, CHANNELS[color], interlace, NUMBERS), level)
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
    yield "broken profile", png(8, 2, before=chunk(b"iCCP", b"a\0\0" + RNG.bytes(20))), "iCCP"
    for name, size in {"tRNS": 5, "cHRM": 31, "gAMA": 3, "pHYs": 8, "sRGB": 0}.items():
        short = chunk(name.encode(), bytes(size))
        yield f"a short {name}", png(8, 2, before=short), f"{name} is cut short"
        yield f"a short {name}, late", png(8, 2, after=short), f"{name} is cut short"
    for key in ("interlace", "bbox", "transparency", "xmp"):
        yield f"a text {key}", png(8, 2, before=chunk(b"tEXt", key.encode() + b"\0x")), key
    yield "an unknown critical part", png(8, 2, before=chunk(b"CgBI", bytes(4))), "CgBI"
    yield "a picture that moves not", png(8, 2, before=chunk(b"acTL", bytes(8))), "animation"
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
        assert bool(found["remarks"]) == bool(images.collect_remarks(data)), (
            name,
            found["remarks"],
        )


@needs_node
def test_what_is_broken_is_refused(tmp_path):
    files = list(broken())
    results = decoded(tmp_path, [data for _, data, _ in files])
    for (name, data, words), found in zip(files, results, strict=True):
        assert found.get("refused") == "ImageError", (name, found)
        assert words in found["message"], (name, found["message"])
        with pytest.raises(UserError):
            images.decode(data, name)


@needs_node
@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.slow)])
def test_what_is_mutated_is_read_alike_or_refused_by_both(tmp_path, count):
    numbers = Random(count)
    files = [mutated_png(numbers) for _ in range(count)]
    accepted = 0
    for data, found in zip(files, decoded(tmp_path, files), strict=True):
        wanted = decode_or_refuse(data)
        if isinstance(wanted, str):
            assert found.get("refused") == "ImageError", (wanted, data)
        else:
            assert "pixels" in found, (found, data)
            assert np.array_equal(found["pixels"], wanted), data
            accepted += 1
    assert 0.2 * count < accepted < 0.8 * count


def decode_or_refuse(data):
    try:
        return images.decode(data, "changed")
    except UserError as error:
        return str(error)
