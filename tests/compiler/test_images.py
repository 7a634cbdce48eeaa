"""Image files: what is read and how, and what is refused."""

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcc.compiler import images
from tcc.compiler.images import decode, read
from tcc.compiler.source import UserError

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (11, 17, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
LOSSLESS = ["PNG", "BMP", "TIFF", "PPM"]


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data, code):
    """The diagnostic with which `decode` refuses; a warning of Pillow's would be an error here."""
    with pytest.raises(UserError) as caught:
        decode(data, "tile.png")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    return str(diagnostic)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_their_pixels(tmp_path, kind):
    path = tmp_path / "tile"
    path.write_bytes(encoded(PICTURE, kind))
    found = read(path)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert np.array_equal(found, PIXELS)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ""])
def test_the_format_is_told_by_the_bytes_not_the_name(tmp_path, suffix):
    path = tmp_path / f"tile{suffix}"
    path.write_bytes(encoded(PICTURE, "BMP"))
    assert np.array_equal(read(path), PIXELS)


def test_jpeg_is_what_pillow_decodes():
    data = encoded(PICTURE, "JPEG", quality=80)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb_as_pillow_converts_them(mode):
    image = PICTURE.convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(encoded(image), "x"), expected)


def test_alpha_is_dropped():
    image = PICTURE.copy()
    image.putalpha(Image.fromarray(RNG.integers(0, 256, (11, 17), dtype=np.uint8)))
    assert np.array_equal(decode(encoded(image), "x"), PIXELS)


def test_a_palette_with_transparency_is_read_without_a_warning():
    image = PICTURE.quantize(16)
    data = encoded(image, transparency=bytes(range(16)))
    assert np.array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))


def test_cmyk_is_converted():
    image = PICTURE.convert("CMYK")
    found = decode(encoded(image, "TIFF"), "x")
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: PIXELS.transpose(1, 0, 2)[:, ::-1],
        7: PIXELS.transpose(1, 0, 2)[::-1, ::-1],
        8: PIXELS.transpose(1, 0, 2)[::-1],
    }[orientation]
    assert np.array_equal(decode(encoded(PICTURE, kind, exif=exif), "x"), upright)


def test_the_first_of_several_frames():
    black = Image.new("RGB", PICTURE.size)
    data = encoded(PICTURE, "TIFF", save_all=True, append_images=[black])
    assert np.array_equal(decode(data, "x"), PIXELS)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000, "PNG"),
        (np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000, "TIFF"),
        (np.arange(35, dtype=np.int32).reshape(5, 7) * 70000, "TIFF"),
        (np.arange(35, dtype=np.float32).reshape(5, 7), "TIFF"),
    ],
)
def test_grey_of_more_than_8_bits_is_refused(values, kind):
    text = refused(encoded(Image.fromarray(values), kind), "E0705")
    assert "are not 8 bits a sample\n  --> tile.png\n" in text
    assert "= help: convert the image to 8 bits, choosing which values are black and" in text


def png(width, height, depth, color, rows):
    """A PNG file of raw rows, for what Pillow does not write itself."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_16_bit_colour_keeps_the_high_bytes():
    values = np.random.default_rng(3).integers(0, 1 << 16, (4, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    assert np.array_equal(decode(png(5, 4, 16, 2, rows), "x"), values >> 8)


@pytest.mark.parametrize("side", [1 << 14, 1 << 20, (1 << 31) - 1])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(side):
    text = refused(png(side, side, 8, 2, b"\0" * 1000), "E0704")
    assert text.startswith("error[E0704]: the image is larger than 64 Mi pixels\n  --> tile.png")


def test_a_large_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1 << 20)
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(UserError, match="E0704") as caught:
        read(path)
    assert "its file is larger than 1 MiB" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"tcc: 1\nname: net\n",
        random.Random(5).randbytes(4000),
        b"GIF89a" + bytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_what_is_no_image_is_refused(data):
    text = refused(data, "E0702")
    assert text == (
        "error[E0702]: not an image of a known format\n"
        "  --> tile.png\n"
        "   = help: known formats: PNG, JPEG, BMP, TIFF, PPM"
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "TIFF"])
def test_a_truncated_image_is_refused(kind):
    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    text = refused(data[: len(data) * 2 // 3], "E0703")
    assert text.startswith("error[E0703]: the image is damaged\n  --> tile.png\n   = ")


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG"])
def test_flipped_bytes_give_an_image_or_a_located_error(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in {"PNG", "JPEG", "TIFF"} else {}
    data = encoded(PICTURE, kind, **options)
    flips = random.Random(kind)
    codes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(flips.randint(1, 4)):
            damaged[flips.randrange(len(damaged))] = flips.randrange(256)
        try:
            decode(bytes(damaged), "x")
        except UserError as error:
            codes.add(error.diagnostics[0].code)
    assert codes
    assert codes <= {"E0702", "E0703", "E0704", "E0705"}


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.png"
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value) == (
        f"error[E0701]: cannot read the image\n  --> {path}\n   = No such file or directory"
    )


def test_a_folder_and_a_pipe_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="E0701") as caught:
            read(path)
        assert "not a file" in str(caught.value)


def test_an_impossible_name_is_refused():
    for name in ("a\0b.png", "x" * 5000):
        with pytest.raises(UserError, match="E0701"):
            read(Path(name))
