"""Generate `.npz` files: valid, of any type and shape, with false headers, and bombs."""

import io
import struct
import zipfile
from random import Random

import numpy as np

SHAPES = (
    (3, 5, 7, 3), (1, 1, 1, 3), (0, 4, 4, 3), (2, 65537, 1, 3), (2, 4, 4), (4,), (), (1, 0, 5, 3),
    (2, 3, 9, 11), (1, 300, 2, 4),
)  # fmt: skip
TYPES = ("u1", "u1", "u1", "f4", "f8", "f2", "i8", "b1", "c8", "U3", "S2", "M8[s]", "V4", ">f4")
CLAIMS = (
    "(1, 40000, 40000, 3)", "(9, 8192, 8192, 3)", "(-1, 2, 2, 3)", "(9223372036854775807, 9, 9, 3)",
    "(1,) * 9", "((1, 2), 3)", "(1, 2, 2, 3", "None", "(True, 2, 2, 3)", "(" * 300,
    "(0, 10**40, 1, 3)", "(1000000000000,)",
)  # fmt: skip


def make_npz(numbers: Random) -> bytes:
    """Return the bytes of a file."""
    content = numbers.choices((_make_valid, _make_false_header, _make_bomb), (6, 4, 1))[0](numbers)
    if numbers.random() < 0.3:
        at = numbers.randrange(len(content))
        content = numbers.choice(
            (content[:at], content[:at] + numbers.randbytes(9) + content[at + 9 :])
        )
    return content


def _make_valid(numbers: Random) -> bytes:
    shape = (4, 5, 7, 3) if numbers.random() < 0.5 else numbers.choice(SHAPES)
    name = numbers.choice(("images", "images", "tensors", "other"))
    generator = np.random.default_rng(numbers.randrange(1 << 32))
    array = generator.integers(0, 256, shape).astype(
        "u1" if name == "images" and numbers.random() < 0.7 else numbers.choice(TYPES)
    )
    count = numbers.choice((*shape[:1], 3))
    labels = numbers.choice(
        (
            np.arange(count) % 2,
            np.array(["a", "b"] * count)[:count],
            np.zeros((2, 2)),
            np.full(count, 1 << 60),
        )
    )
    content = {name: array, **({"labels": labels} if numbers.random() < 0.8 else {})}
    buffer = io.BytesIO()
    (np.savez if numbers.random() < 0.5 else np.savez_compressed)(buffer, **content)  # type: ignore[arg-type]
    return buffer.getvalue()


def _make_false_header(numbers: Random) -> bytes:
    kind = numbers.choice(("|u1", "|O", "<f8", "|V0", "<U0", "|V1000000000", "garbage", "<f4"))
    head = _format_header(kind, numbers.choice(("False", "True", "1")), numbers.choice(CLAIMS))
    version = numbers.choice((1, 1, 2, 3, 9))
    size = numbers.choice((len(head), len(head), 60000, 3))
    length = struct.pack("<H" if version == 1 else "<I", size)
    body = (
        b"\x93NUMPY" + bytes((version, 0)) + length + head + bytes(numbers.choice((0, 50, 1 << 20)))
    )
    return _write_zip(numbers, body)


def _format_header(kind: str, order: str, shape: str) -> bytes:
    return f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()


def _make_bomb(numbers: Random) -> bytes:
    """Return a small file that decompresses to an array or a header of very many zeros."""
    count = numbers.choice((1 << 24, 1 << 28))
    if numbers.random() < 0.5:
        return _write_zip(numbers, b"\x93NUMPY\2\0" + struct.pack("<I", count) + bytes(count))
    side = numbers.choice((1, 64))
    head = _format_header("|u1", "False", f"({count // (side * side * 3)}, {side}, {side}, 3)")
    return _write_zip(
        numbers, b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + bytes(count)
    )


def _write_zip(numbers: Random, body: bytes) -> bytes:
    kinds = (zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2)
    kind = zipfile.ZIP_DEFLATED if len(body) > 1 << 22 else numbers.choice(kinds)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind, compresslevel=1) as file:
        file.writestr(f"{numbers.choice(('images', 'images', 'tensors'))}.npy", body)
    return buffer.getvalue()
