"""PNG files of every kind with damaged, repeated, moved or renamed chunks."""

import struct
import zlib

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = (
    (1, 0), (2, 0), (4, 0), (8, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4),
    (16, 4), (8, 6), (16, 6),
)  # fmt: skip
"""Bit depth and color type."""
ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
NAMES = (
    b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"iCCP", b"tEXt",
    b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IEND", b"abCd", b"ABCD", b"a1cd",
    b"bKGD", b"DDAT", b"tIME",
)  # fmt: skip
KEYS = (
    b"Comment", b"exif", b"interlace", b"bbox", b"transparency", b"default_image", b"xmp", b"gamma",
    b"icc_profile", b"XML:com.adobe.xmp", b"Raw profile type exif", b"", b"dpi", b"\xff\xfe",
)  # fmt: skip
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_exif(orientation, order="<", kind=3):
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    tag_bytes = struct.pack(order + "HHI", 0x112, kind, 1) + struct.pack(
        order + ("H2x" if kind == 3 else "I"), orientation
    )
    return head + struct.pack(order + "H", 1) + tag_bytes + bytes(4)


def make_scan_lines(size, depth, channels, interlace, numbers):
    """Return random lines, each with a filter byte. Every byte value is a valid pixel."""
    width, height = size
    lines = bytearray()
    for x, y, dx, dy in ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0:
            for _ in range(max(rows, 0)):
                stride = -(-columns * channels * depth // 8)
                lines += bytes([numbers.randrange(5)]) + numbers.randbytes(stride)
    return bytes(lines)


def make_mutated_png(numbers):
    """Return a file, usually with one or two changes. Most checksums are correct."""
    chunks = make_chunks(numbers)
    for _ in range(numbers.choice((0, 1, 1, 1, 2))):
        change_chunk(chunks, numbers)
    parts = [bytearray(encode_chunk(kind, data)) for kind, data in chunks]
    if numbers.random() < 0.04:
        part = numbers.choice(parts)
        part[numbers.randrange(len(part))] ^= 1 << numbers.randrange(8)
    data = SIGNATURE + b"".join(parts)
    if numbers.random() < 0.03:
        return data[: numbers.randrange(9, len(data))]
    return data + (numbers.randbytes(9) if numbers.random() < 0.03 else b"")


def make_chunks(numbers):
    depth, color = numbers.choice((*KINDS, (16, 0)))
    size, interlace = (
        numbers.choice(((1, 1), (9, 7), (20, 15), (3, 12), (8, 8))),
        numbers.random() < 0.3,
    )
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, interlace)
    ancillary = [
        part for part in generate_ancillary_chunks(numbers, color, size) if numbers.random() < 0.2
    ]
    numbers.shuffle(ancillary)
    at = numbers.randrange(len(ancillary) + 1)
    colors = []
    if color == 3 or (color in (2, 6) and numbers.random() < 0.1):
        count = numbers.choice((1 << depth,) * 9 + (max(1, 1 << depth >> 1),)) if color == 3 else 10
        colors.append([b"PLTE", numbers.randbytes(3 * count)])
    if color in (0, 2, 3) and numbers.random() < 0.4:
        short = numbers.choice((b"\xff\0", b"\xff\xff\0", numbers.randbytes(2)))
        colors.append([b"tRNS", {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: short}[color]])
    packed = compress_lines(
        make_scan_lines(size, depth, CHANNELS[color], interlace, numbers), numbers
    )
    step = max(1, -(-len(packed) // numbers.choice((1, 1, 1, 2, 5))))
    pixels = [[b"IDAT", packed[i : i + step]] for i in range(0, len(packed), step)]
    return [[b"IHDR", header], *ancillary[:at], *colors, *pixels, *ancillary[at:], [b"IEND", b""]]


def compress_lines(lines, numbers):
    """Return the compressed lines. One in five is compressed incorrectly."""
    packed = zlib.compress(lines, numbers.choice((0, 1, 6)))
    damaged = (
        zlib.compress(lines[: numbers.randrange(len(lines))]),
        zlib.compress(lines + numbers.randbytes(numbers.choice((1, 9, 500)))),
        packed[: numbers.randrange(len(packed))],
        packed + numbers.choice((numbers.randbytes(4), packed[-4:])),
        packed[:-1] + bytes([packed[-1] ^ 1]),
        packed[: -numbers.choice((1, 2, 3, 4))],
        zlib.compress(bytes([numbers.randrange(256)]) + lines[1:]),
    )
    return numbers.choice(damaged) if numbers.random() < 0.2 else packed


def generate_ancillary_chunks(numbers, color, size):
    """Yield one or more of each kind of optional chunk."""
    orientation_xmp = b'<x tiff:Orientation="%d"/>' % numbers.randrange(10)
    profile = (b"Exif\0\0" + encode_exif(numbers.randrange(10))).hex().encode()
    flag = numbers.randrange(2)
    yield [b"gAMA", struct.pack(">I", 45455)]
    yield [b"cHRM", numbers.randbytes(32)]
    yield [b"sRGB", b"\0"]
    yield [b"pHYs", struct.pack(">IIB", 2835, 2835, 1)]
    yield [b"iCCP", b"icc\0\0" + zlib.compress(numbers.randbytes(60))]
    yield [
        b"tEXt",
        numbers.choice(KEYS)
        + b"\0"
        + numbers.choice((orientation_xmp, encode_exif(6), b"", b"abc")),
    ]
    yield [b"zTXt", numbers.choice(KEYS) + b"\0\0" + zlib.compress(b"\nexif\n 10\n" + profile)]
    yield [b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 10\n" + profile)]
    yield [
        b"iTXt",
        numbers.choice((b"XML:com.adobe.xmp", numbers.choice(KEYS)))
        + bytes([0, flag, 0])
        + numbers.choice((b"en", b"\xff"))
        + b"\0\0"
        + (zlib.compress(orientation_xmp) if flag else orientation_xmp),
    ]
    yield [b"tIME", bytes(7)]
    yield [b"bKGD", bytes({0: 2, 4: 2, 2: 6, 6: 6, 3: 1}[color])]
    yield [b"prVt", numbers.randbytes(5)]
    yield [
        b"eXIf",
        encode_exif(numbers.randrange(10), numbers.choice("<>"), numbers.choice((3, 4))),
    ]
    if numbers.random() < 0.2:
        yield [b"acTL", struct.pack(">II", numbers.choice((0, 1, 2)), 0)]
        yield [b"fcTL", struct.pack(">IIIIIHHBB", 0, *size, 0, 0, 1, 1, 0, 0)]
        yield [b"fdAT", struct.pack(">I", 1) + numbers.randbytes(9)]


def change_chunk(chunks, numbers):
    """Change or move one chunk of a file."""
    index = numbers.randrange(len(chunks))
    kind, data = chunks[index]
    length, offset = numbers.choice((0, 1, 4, 13, 26, 32, 200)), numbers.randrange(len(data) + 1)
    changed = (
        [kind, data[:offset]],
        [kind, data[:offset]],
        [kind, data[:offset] + bytes([numbers.choice((0, 1, 255, 7))]) + data[offset + 1 :]],
        [kind, data[:offset] + bytes([numbers.choice((0, 1, 255, 7))]) + data[offset + 1 :]],
        [kind, data + numbers.randbytes(length)],
        [numbers.choice(NAMES), data],
        [kind, b""],
    )
    insertions = ([], [kind, data], [numbers.choice(NAMES), numbers.randbytes(length)])
    if numbers.random() < 0.7:
        chunks[index] = numbers.choice(changed)
    elif part := numbers.choice(insertions):
        chunks.insert(numbers.randrange(len(chunks) + 1), part)
    else:
        chunks.insert(numbers.randrange(len(chunks)), chunks.pop(index))
