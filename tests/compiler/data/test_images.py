"""Image files: which are read, how, and which are refused."""

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.data import image_files, images
from tcc.compiler.data.images import decode, read_image
from tcc.compiler.ir import image_limits
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.support.diagnostics import UserError

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (11, 17, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
LOSSLESS = ["PNG", "BMP", "TIFF", "PPM"]


def encode_image(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read_refusal(data, code):
    """Return the error of `decode`. Pillow's warnings count as errors here."""
    with pytest.raises(UserError) as caught:
        decode(data, "tile.png")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    return str(diagnostic)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_are_read_exactly(tmp_path, kind):
    path = tmp_path / "tile"
    path.write_bytes(encode_image(PICTURE, kind))
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert np.array_equal(pixels, PIXELS)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ""])
def test_format_is_detected_from_the_bytes_not_the_name(tmp_path, suffix):
    path = tmp_path / f"tile{suffix}"
    path.write_bytes(encode_image(PICTURE, "BMP"))
    assert np.array_equal(read_image(path), PIXELS)


def test_jpeg_matches_pillow():
    data = encode_image(PICTURE, "JPEG", quality=80)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_are_converted_to_rgb_as_in_pillow(mode):
    image = PICTURE.convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(encode_image(image), "x"), expected)


def test_alpha_is_dropped():
    image = PICTURE.copy()
    image.putalpha(Image.fromarray(RNG.integers(0, 256, (11, 17), dtype=np.uint8)))
    assert np.array_equal(decode(encode_image(image), "x"), PIXELS)


def test_palette_with_transparency_is_read_without_a_warning():
    image = PICTURE.quantize(16)
    data = encode_image(image, transparency=bytes(range(16)))
    assert np.array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))


def test_cmyk_is_converted():
    image = PICTURE.convert("CMYK")
    pixels = decode(encode_image(image, "TIFF"), "x")
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


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
    assert np.array_equal(decode(encode_image(PICTURE, kind, exif=exif), "x"), upright)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_animations_and_multi_page_files_are_refused(kind):
    second_page = Image.new("RGB", PICTURE.size)
    data = encode_image(PICTURE, kind, save_all=True, append_images=[second_page])
    text = read_refusal(data, "E0707")
    assert text == (
        "error[E0707]: this file is an animation or has several pages, so the image to use "
        "is ambiguous\n"
        "  --> tile.png\n"
        "   = help: save the frame or page that you want to a file of its own"
    )
    assert images.collect_remarks(data) == ()
    contract = Preprocess(resize=PixelResize((9, 9)))
    with pytest.raises(UserError, match="E0707"):
        images.decode_input_pixels(data, "x", contract, (3, 9, 9))
    single_page = encode_image(PICTURE, kind, save_all=True, append_images=[])
    assert decode(single_page, "x").shape == PIXELS.shape


def test_multi_picture_jpeg_gives_its_first_picture():
    data = encode_image(PICTURE, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert np.array_equal(decode(data, "x"), decode(encode_image(PICTURE, "JPEG"), "x"))
    assert images.collect_remarks(data) == (image_files.PICTURES,)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": True, "exif": b"Exif\0\0"}])
def test_lossless_webp_is_read_exactly(options):
    data = encode_image(PICTURE, "WEBP", **options)
    assert np.array_equal(decode(data, "x"), PIXELS)
    assert images.find_size(data) == (11, 17)


def test_lossy_webp_matches_pillow():
    data = encode_image(PICTURE, "WEBP", quality=80)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))
    assert images.find_size(data) == (11, 17)
    clear = PICTURE.convert("RGBA")
    clear.putalpha(9)
    assert images.collect_remarks(encode_image(clear, "WEBP")) == (image_files.ALPHA,)


@pytest.mark.parametrize(
    "head",
    [
        b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\0\xff\xff\0",
        b"VP8L" + struct.pack("<I", 5) + b"\x2f\xff\xff\xff\x0f",
        b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f",
    ],
)
def test_webp_bomb_is_refused_before_pillow_opens_it(head, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    data = b"RIFF" + struct.pack("<I", 100) + b"WEBP" + head + bytes(80)
    read_refusal(data, "E0704")
    assert images.collect_remarks(data) == ()
    assert not images.is_large(data)


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
    text = read_refusal(encode_image(Image.fromarray(values), kind), "E0705")
    assert "does not have 8 bits per sample\n  --> tile.png\n" in text
    assert "= help: convert the image to 8 bits per sample and choose the black and" in text


def encode_png(width, height, depth, color, rows):
    """Encode a PNG file from raw rows, for forms that Pillow does not write."""

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
    assert np.array_equal(decode(encode_png(5, 4, 16, 2, rows), "x"), values >> 8)


@pytest.mark.parametrize(
    ("width", "height", "label"),
    [
        (1, 65537, "it is 1x65537 pixels"),
        (2_000_000, 1, "it is 2000000x1 pixels"),
        (1 << 26, 1, "it is 67108864x1 pixels"),
        (8192, 8193, "it is 8192x8193 pixels"),
        (1 << 14, 1 << 14, "it is 16384x16384 pixels"),
        (1 << 16, 1 << 16, "it is 65536x65536 pixels"),
        ((1 << 31) - 1, (1 << 31) - 1, "it is 2147483647x2147483647 pixels"),
    ],
)
def test_png_bomb_is_refused_before_decompression(width, height, label):
    text = read_refusal(encode_png(width, height, 8, 2, b"\0" * 1000), "E0704")
    assert text == (
        f"error[E0704]: {image_limits.TOO_LARGE}\n  --> tile.png\n   = {label}\n"
        "   = help: cut it into tiles"
    )


@pytest.mark.parametrize("size", [(65536, 3), (3, 65536)])
def test_longest_allowed_side_is_read(size):
    image = Image.new("RGB", size, (1, 2, 3))
    pixels = decode(encode_image(image), "x")
    assert pixels.shape == (size[1], size[0], 3)
    assert (pixels == (1, 2, 3)).all()


def encode_tiff(tags, tail=b""):
    """Encode a TIFF file with one directory: (tag, type, value or values) of each entry, then
    `tail`.
    """
    kinds = {3: "<H", 4: "<I"}
    entries, out = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, kind, value in tags:
        values = value if isinstance(value, tuple) else (value,)
        data = b"".join(struct.pack(kinds[kind], v) for v in values)
        if len(data) > 4:
            entries += struct.pack("<HHII", tag, kind, len(values), start + len(out))
            out += data
        else:
            entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + out + tail


def test_small_tiff_with_huge_tiles_is_refused():
    packed = zlib.compress(bytes(1 << 20))
    tags = [(256, 4, 16), (257, 4, 16), (258, 3, (8, 8, 8)), (259, 3, 8), (262, 3, 2), (277, 3, 3),
            (322, 4, 32768), (323, 4, 16384), (324, 4, 300), (325, 4, len(packed))]  # fmt: skip
    text = read_refusal(encode_tiff(tags, bytes(300) + packed), "E0704")
    assert "   = it is 32768x16384 pixels\n" in text


def test_jpeg_with_too_many_scans_is_refused():
    data = encode_image(PICTURE, "JPEG", progressive=True)
    scans = data.index(b"\xff\xda")
    assert data.count(b"\xff\xda") <= 20
    decode(data, "x")
    last_scan = data[scans:-2]
    text = read_refusal(data[:scans] + last_scan * 40 + data[-2:], "E0704")
    assert "more than 100 scans" in text


def test_wrong_checksum_is_refused():
    data = bytearray(encode_image(PICTURE))
    end = data.index(b"IEND") - 4  # the checksum of the pixels is before it
    data[end - 1] ^= 1
    assert "the image is damaged" in read_refusal(bytes(data), "E0703")


def test_most_images_have_no_remarks():
    for kind in [*LOSSLESS, "JPEG"]:
        assert images.collect_remarks(encode_image(PICTURE, kind)) == ()
    for mode in ("1", "L", "P"):
        assert images.collect_remarks(encode_image(PICTURE.convert(mode))) == ()
    opaque = PICTURE.convert("RGBA")
    assert images.collect_remarks(encode_image(opaque)) == ()
    assert images.collect_remarks(b"no image") == ()


def test_lost_transparency_and_colour_are_reported():
    clear = PICTURE.convert("RGBA")
    clear.putpixel((3, 10), (9, 9, 9, 254))
    assert images.collect_remarks(encode_image(clear)) == (image_files.ALPHA,)
    palette = encode_image(PICTURE.quantize(16), transparency=3)
    assert images.collect_remarks(palette) == (image_files.ALPHA,)
    cmyk = PICTURE.convert("CMYK")
    for kind in ("TIFF", "JPEG"):
        assert images.collect_remarks(encode_image(cmyk, kind)) == (image_files.CMYK,)


@pytest.mark.parametrize(
    "data",
    [
        encode_png(5, 4, 16, 2, b"\0" * 31 * 4),
        b"P6 2 1 65535\n" + bytes(12),
        encode_tiff([(256, 4, 2), (257, 4, 1), (258, 3, (16, 16, 16)), (259, 3, 1), (262, 3, 2),
              (273, 4, 200), (277, 3, 3), (278, 4, 1), (279, 4, 12)], bytes(400)),
    ],
)  # fmt: skip
def test_dropped_bits_are_reported(data):
    assert images.collect_remarks(data) == (image_files.DEPTH,)
    assert decode(data, "x").dtype == np.uint8


@pytest.mark.parametrize(
    ("kind", "largest"),
    [*((5, n) for n in (1, 7, 254)), *((6, n) for n in (1, 100, 254, 256, 1000, 65535))],
)
def test_ppm_maximum_values_are_scaled_as_in_pillow(kind, largest):
    wide = RNG.integers(0, min(2 * largest, 65535 if largest > 255 else 255) + 1, 17 * 11 * 3)
    values = wide.astype(">u2" if largest > 255 else "u1").tobytes()
    data = f"P{kind}\n# a comment\n17 11 {largest}\n".encode() + values
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data, "x"), np.asarray(image.convert("RGB")))
    cut = data[: len(data) // 4]
    assert "the image is damaged" in read_refusal(cut, "E0703")


def test_unsupported_colour_modes_are_refused():
    text = read_refusal(encode_image(Image.new("LAB", (4, 4)), "TIFF"), "E0705")
    assert "colour mode LAB is not supported" in text


def test_a_large_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_BYTES", 1 << 20)
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(UserError, match="E0704") as caught:
        read_image(path)
    assert "its file is larger than 1 MiB" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"tcc: 1\nname: net\n",
        random.Random(5).randbytes(4000),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_files_that_are_not_images_are_refused(data):
    text = read_refusal(data, "E0702")
    assert text == (
        "error[E0702]: not an image of a known format\n"
        "  --> tile.png\n"
        + ("" if data else "   = the file is empty\n")
        + "   = help: known formats: PNG, JPEG, BMP, TIFF, PPM, WEBP"
    )


@pytest.mark.parametrize(
    ("data", "label", "help"),
    [
        (b"GIF89a" + bytes(100), "GIF", "convert it to one of PNG, JPEG, BMP, TIFF, PPM, WEBP"),
        (bytes(128) + b"DICM", "DICOM", "convert it to one of PNG, JPEG, BMP, TIFF, PPM, WEBP"),
    ],
)
def test_unsupported_format_is_named(data, label, help):
    text = read_refusal(data, "E0702")
    assert text.endswith(f"   = it starts like a {label} file\n   = help: {help}")


@pytest.mark.parametrize(
    ("data", "label"),
    [(b"MM\x00*" + bytes(500), "TIFF"), (b"II*\x00" + bytes(500), "TIFF")],
)
def test_file_with_only_an_image_header_is_damaged(data, label):
    assert read_refusal(b"\x89PNG\r\n\x1a\n", "E0703") == (
        "error[E0703]: the image is damaged\n  --> tile.png\n   = the file ends too early\n"
        "   = help: the file may be truncated or modified: copy or export it again"
    )
    text = read_refusal(data, "E0703")
    assert text == (
        "error[E0703]: the image is damaged\n"
        "  --> tile.png\n"
        f"   = it starts like a {label} file, but the rest cannot be read\n"
        "   = help: the file may be truncated: copy or export it again"
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"])
def test_a_truncated_image_is_refused(kind):
    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    data = encode_image(Image.fromarray(noise), kind)
    text = read_refusal(data[: len(data) * 2 // 3], "E0703")
    assert text.startswith("error[E0703]: the image is damaged\n  --> tile.png\n   = ")


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "WEBP"])
def test_flipped_bytes_give_an_image_or_a_located_error(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in {"PNG", "JPEG", "TIFF"} else {}
    data = encode_image(PICTURE, kind, **options)
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
    assert codes <= {"E0702", "E0703", "E0704", "E0705", "E0707"}


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.png"
    with pytest.raises(UserError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"error[E0701]: cannot read the image\n  --> {path}\n   = No such file or directory"
    )


def test_folders_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="E0701") as caught:
            read_image(path)
        assert str(caught.value).startswith("error[E0701]: cannot read the image\n")


def test_invalid_file_names_are_refused():
    for name in ("a\0b.png", "x" * 5000):
        with pytest.raises(UserError, match="E0701"):
            read_image(Path(name))
