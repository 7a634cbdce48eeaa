"""The PNG decoder of the page gives the pixels of Pillow, or refuses the file."""

import io
import struct
import zlib
from itertools import product
from random import Random

import numpy as np
import pytest
from mutated_pngs import CHANNELS, KINDS, encode_chunk, encode_exif, make_mutated_png
from mutated_pngs import make_scan_lines as random_scans
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from web_node import needs_node, run_node

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


def make_png(
    depth,
    color,
    size=(9, 7),
    interlace=0,
    *,
    chunks_before=b"",
    chunks_after=b"",
    pieces=1,
    level=6,
):
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, interlace)
    palette = encode_chunk(b"PLTE", RNG.bytes(3 * (1 << depth))) if color == 3 else b""
    packed = zlib.compress(random_scans(size, depth, CHANNELS[color], interlace, NUMBERS), level)
    step = -(-len(packed) // pieces)
    data = b"".join(
        encode_chunk(b"IDAT", packed[i : i + step]) for i in range(0, len(packed), step)
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + encode_chunk(b"IHDR", header)
        + chunks_before
        + palette
        + data
        + chunks_after
        + encode_chunk(b"IEND", b"")
    )


def save_png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def make_text_info(key, value):
    info = PngInfo()
    info.add_itxt(key, value)
    return info


def generate_sound_files():
    """Yield valid files with a description."""
    for depth, color in KINDS:
        for size, interlace in product(((1, 1), (9, 7), (33, 20), (3, 64)), (0, 1)):
            yield (
                f"{depth} bits of {color}, {size}, {interlace}",
                make_png(depth, color, size, interlace),
            )
    photo = Image.fromarray(RNG.integers(0, 256, (12, 17, 3), np.uint8))
    for orientation, order, kind in product(range(10), "<>", (3, 4)):
        yield (
            f"exif {orientation} {order} {kind}",
            save_png(photo, exif=encode_exif(orientation, order, kind)),
        )
        yield (
            f"exif after {orientation}",
            make_png(
                8, 2, chunks_after=encode_chunk(b"eXIf", encode_exif(orientation, order, kind))
            ),
        )
    for orientation in range(10):
        attribute = make_text_info("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
        inner = make_text_info(
            "XML:com.adobe.xmp", f"<tiff:Orientation>{orientation}</tiff:Orientation>"
        )
        yield f"xmp {orientation}", save_png(photo, pnginfo=attribute)
        yield f"xmp within {orientation}", save_png(photo, pnginfo=inner)
        yield f"xmp and exif {orientation}", save_png(photo, pnginfo=attribute, exif=encode_exif(6))
        hexed = PngInfo()
        data = b"Exif\x00\x00" + encode_exif(orientation)
        hexed.add_text(
            "Raw profile type exif",
            f"\nexif\n{len(data):8}\n{data.hex()}\n",
            zip=orientation % 2 == 1,
        )
        yield f"profile {orientation}", save_png(photo, pnginfo=hexed)
    gray = Image.fromarray(RNG.integers(0, 256, (5, 6), np.uint8))
    yield (
        "gamma",
        make_png(
            8,
            2,
            chunks_before=encode_chunk(b"gAMA", struct.pack(">I", 45455))
            + encode_chunk(b"sRGB", b"\0"),
        ),
    )
    yield "chromaticities", make_png(8, 2, chunks_before=encode_chunk(b"cHRM", RNG.bytes(32)))
    yield "profile", save_png(photo, icc_profile=RNG.bytes(500))
    yield "densities", save_png(photo, dpi=(300, 300))
    yield "one of grey is transparent", save_png(gray, transparency=7)
    yield "a colour is transparent", save_png(photo, transparency=(1, 2, 3))
    yield (
        "some of a palette is transparent",
        save_png(photo.quantize(32), transparency=bytes(range(32))),
    )
    yield "pieces", make_png(8, 6, (40, 40), pieces=7)
    yield "stored", make_png(8, 2, (40, 40), level=0)
    yield (
        "unknown parts",
        make_png(
            8, 2, chunks_before=encode_chunk(b"abCd", b"x"), chunks_after=encode_chunk(b"zzZz", b"")
        ),
    )
    for name, mode in (
        ("bits", "1"),
        ("alpha", "RGBA"),
        ("grey and alpha", "LA"),
        ("palette", "P"),
    ):
        yield f"saved {name}", save_png(photo.convert(mode), optimize=True)


def make_short_palette():
    """Return a palette of three colors for pixels of 256."""
    file = make_png(8, 3)
    palette_start, palette_end = file.index(b"PLTE") - 4, file.index(b"IDAT") - 4
    return file[:palette_start] + encode_chunk(b"PLTE", RNG.bytes(9)) + file[palette_end:]


def generate_broken_files():
    """Yield broken files with a description and the expected message."""
    file = make_png(8, 2)
    yield (
        "an animation",
        make_png(8, 2, chunks_before=encode_chunk(b"acTL", struct.pack(">II", 2, 0))),
        "Animations",
    )
    yield "16 bits of grey", make_png(16, 0), "16-bit grayscale"
    yield "an end too early", file[:-20], "too early"
    yield "half of it", file[: len(file) // 2], "too early"
    yield "a checksum", file.replace(b"IDAT", b"IDAT", 1)[:-17] + b"\0" + file[-16:], "checksum"
    yield "a depth that is none", make_png(8, 2).replace(*_make_headers(8, 3)), "header"
    yield "a large image", make_png(8, 2).replace(*_make_headers(8, 2, (1 << 17, 1))), "too large"
    yield "a bomb", make_png(8, 2).replace(*_make_headers(8, 2, (8192, 8193))), "too large"
    yield "a colour that the palette lacks", make_short_palette(), "outside the palette"
    yield "too few pixels", make_png(8, 2).replace(*_make_headers(8, 2, (9, 8))), "too few"
    yield (
        "broken profile",
        make_png(8, 2, chunks_before=encode_chunk(b"iCCP", b"a\0\0" + RNG.bytes(20))),
        "iCCP",
    )
    for name, size in {"tRNS": 5, "cHRM": 31, "gAMA": 3, "pHYs": 8, "sRGB": 0}.items():
        short = encode_chunk(name.encode(), bytes(size))
        yield f"a short {name}", make_png(8, 2, chunks_before=short), f"chunk {name} is too short"
        yield (
            f"a short {name}, late",
            make_png(8, 2, chunks_after=short),
            f"chunk {name} is too short",
        )
    for key in ("interlace", "bbox", "transparency", "xmp"):
        yield (
            f"a text {key}",
            make_png(8, 2, chunks_before=encode_chunk(b"tEXt", key.encode() + b"\0x")),
            key,
        )
    yield (
        "an unknown critical part",
        make_png(8, 2, chunks_before=encode_chunk(b"CgBI", bytes(4))),
        "CgBI",
    )
    yield (
        "a picture that moves not",
        make_png(8, 2, chunks_before=encode_chunk(b"acTL", bytes(8))),
        "Animations",
    )
    yield (
        "EXIF that is none",
        make_png(8, 2, chunks_before=encode_chunk(b"eXIf", b"nothing at all")),
        "EXIF",
    )


def _make_headers(depth, color, size=(9, 7)):
    """Return headers to replace that of `make_png(8, 2)`. Bit depth 3 does not exist."""
    old = struct.pack(">IIBBBBB", 9, 7, 8, 2, 0, 0, 0)
    new = struct.pack(">IIBBBBB", *size, depth if size != (9, 7) or color != 3 else 5, 2, 0, 0, 0)
    return encode_chunk(b"IHDR", old), encode_chunk(b"IHDR", new)


def decode_files(folder, files):
    for number, data in enumerate(files):
        (folder / f"{number}.png").write_bytes(data)
    records = run_node(DECODE, folder, folder, str(len(files)))
    pixels, offset = np.fromfile(folder / "pixels.bin", np.uint8), 0
    for record in records:
        if "shape" in record:
            end = offset + int(np.prod(record["shape"]))
            record["pixels"], offset = pixels[offset:end].reshape(record["shape"]), end
    return records


@needs_node
def test_valid_files_give_the_pixels_of_pillow(tmp_path):
    files = list(generate_sound_files())
    results = decode_files(tmp_path, [data for _, data in files])
    for (name, data), record in zip(files, results, strict=True):
        assert "pixels" in record, (name, record)
        expected = images.decode(data, name)
        assert record["pixels"].shape == expected.shape, name
        assert np.array_equal(record["pixels"], expected), name
        assert bool(record["remarks"]) == bool(images.collect_remarks(data)), (
            name,
            record["remarks"],
        )


@needs_node
def test_broken_files_are_refused(tmp_path):
    files = list(generate_broken_files())
    results = decode_files(tmp_path, [data for _, data, _ in files])
    for (name, data, message), record in zip(files, results, strict=True):
        assert record.get("refused") == "ImageError", (name, record)
        assert message in record["message"], (name, record["message"])
        with pytest.raises(UserError):
            images.decode(data, name)


@needs_node
@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.slow)])
def test_mutated_files_give_the_pixels_of_pillow_or_are_refused(tmp_path, count):
    numbers = Random(count)
    files = [make_mutated_png(numbers) for _ in range(count)]
    accepted = 0
    for data, record in zip(files, decode_files(tmp_path, files), strict=True):
        expected = decode_or_refuse(data)
        if isinstance(expected, str):
            assert record.get("refused") == "ImageError", (expected, data)
        else:
            assert "pixels" in record, (record, data)
            assert np.array_equal(record["pixels"], expected), data
            accepted += 1
    assert 0.2 * count < accepted < 0.8 * count


def decode_or_refuse(data):
    try:
        return images.decode(data, "changed")
    except UserError as error:
        return str(error)
