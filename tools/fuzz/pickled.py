"""Generate forged PyTorch checkpoints: handwritten pickles and archive bombs."""

import io
import struct
import zipfile
from random import Random

from states import make_state_dict, wrap_state

CALLABLES = (
    ("os", "system"),
    ("builtins", "eval"),
    ("subprocess", "Popen"),
    ("pathlib", "Path.touch"),
)
COMMAND = "touch ran"


def _encode_text(text: str) -> bytes:
    return b"X" + struct.pack("<L", len(text.encode())) + text.encode()


def _encode_number(integer: int) -> bytes:
    integer_bytes = integer.to_bytes(max(1, integer.bit_length() // 8 + 1), "little", signed=True)
    return b"\x8b" + struct.pack("<L", len(integer_bytes)) + integer_bytes


def _make_tensor(numbers: Random) -> bytes:
    """Return pickle instructions of a tensor with any key, offset, shape and strides."""

    def choose_integer() -> int:
        return numbers.choice(
            (0, 1, 2, 3, 54, -1, -(1 << 40), 1 << 31, 1 << 62, 1 << 64, 1 << 2000)
        )

    def encode_integers() -> bytes:
        return (
            b"("
            + b"".join(_encode_number(choose_integer()) for _ in range(numbers.randint(0, 5)))
            + b"t"
        )

    kind = numbers.choice(
        ("FloatStorage", "DoubleStorage", "ByteStorage", "QInt8Storage", "Nothing")
    )
    key = numbers.choice(("0", "1", "7", "../0", "99"))
    storage = (
        b"(" + _encode_text("storage") + b"ctorch\n" + kind.encode() + b"\n" + _encode_text(key)
    )
    storage += (
        _encode_text(numbers.choice(("cpu", "cuda:0", "meta")))
        + _encode_number(choose_integer())
        + b"tQ"
    )
    function = numbers.choice(
        ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3", "_rebuild_qtensor")
    )
    instructions = (
        b"ctorch._utils\n"
        + function.encode()
        + b"\n("
        + storage
        + _encode_number(choose_integer())
        + encode_integers()
        + encode_integers()
    )
    return instructions + b"\x89}tR"


def _make_piece(numbers: Random, depth: int = 0) -> bytes:
    """Return pickle instructions that leave one value on the stack, too many, or none."""

    def make_inner() -> bytes:
        return _make_piece(numbers, depth + 1) if depth < 4 else b"N"

    module, name = numbers.choice(CALLABLES)
    return numbers.choice(
        (
            lambda: b")" + b"q\x00h\x00\x86" * numbers.choice((3, 28, 60, 5000)),
            lambda: b"]q\x01h\x01a",
            lambda: b"}q\x02" + _encode_text("state_dict") + b"h\x02s",
            lambda: b"]" * (size := numbers.choice((10, 5000, 100_000))) + b"a" * (size - 1),
            lambda: f"c{module}\n{name}\n".encode() + b"(" + _encode_text(COMMAND) + b"tR",
            f"(i{module}\n{name}\n".encode,
            lambda: b"(" + _encode_text(COMMAND) + f"i{module}\n{name}\n".encode(),
            lambda: b"cargparse\nNamespace\n)\x81}" + make_inner() + b"b",
            lambda: _make_tensor(numbers),
            lambda: (
                b"}"
                + _encode_text(numbers.choice(("state_dict", "net.0.weight", "")))
                + make_inner()
                + b"s"
            ),
            lambda: b"}" + make_inner() + make_inner() + b"s",
            lambda: b"(" + make_inner() + make_inner() + b"t",
            lambda: numbers.choice((b"N", b"\x88", b"K\x07", b"G" + numbers.randbytes(8))),
            lambda: b"\x8d" + struct.pack("<Q", numbers.choice((1 << 40, 1 << 62, 3))) + b"abc",
            lambda: b"r" + struct.pack("<L", 0xFFFFFFFF) + b"j" + struct.pack("<L", 0xFFFFFFFF),
            lambda: numbers.randbytes(numbers.randint(1, 30)),
            lambda: b"c__torch__\nNet\n)\x81q\x03}" + _encode_text("a") + b"h\x03sb",
            lambda: b"}" + 3 * (_encode_text("a") + make_inner() + b"s"),
        )
    )()


def make_pickle(numbers: Random) -> bytes:
    """Return a checkpoint with a handwritten pickle, in one of the two formats."""
    body = (
        b"\x80\x02" + _make_piece(numbers) + numbers.choice((b".", b".", b".", b"", b"0.", b"b."))
    )
    if numbers.random() < 0.3:
        header = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
        return header + body + b"\x80\x02]" + _encode_text("0") + b"a." + bytes(64)
    return _write_archive({"data.pkl": body, "data/0": bytes(216), "data/1": bytes(12)}, numbers)


def _write_archive(files: dict[str, bytes], numbers: Random) -> bytes:
    file = io.BytesIO()
    folder = numbers.choice(("net", "archive", "/net", "../net", "a/b", ""))
    method = zipfile.ZIP_DEFLATED if numbers.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)
    return file.getvalue()


def make_archive(numbers: Random) -> bytes:
    """Return an archive that is a bomb, lacks entries, or points to any offset."""
    return numbers.choice((_make_bomb, _make_many_entries, _remove_entry, _replace_offsets))(
        numbers
    )


def _make_bomb(_: Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + b"]" * 30_000_000)
    return file.getvalue()


def _make_many_entries(numbers: Random) -> bytes:
    """Return the directory of an archive with very many entries at one offset."""
    directory_entry = (
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 6, 0, 4, 4, 1, *[0] * 4, 0, 0) + b"a"
    )
    count = numbers.choice((70_000, 1_000_000))
    start = b"PK\x03\x04" + bytes(60)
    sizes = (count, count, len(directory_entry) * count, len(start))
    end = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, *sizes)
    end += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(start) + len(directory_entry) * count, 1)
    end += b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    return start + directory_entry * count + end


def _make_valid(numbers: Random) -> tuple[bytes, list[str]]:
    import torch

    file = io.BytesIO()
    torch.save(wrap_state(make_state_dict(), numbers), file)
    with zipfile.ZipFile(file) as archive:
        return file.getvalue(), archive.namelist()


def _remove_entry(numbers: Random) -> bytes:
    archive_bytes, names = _make_valid(numbers)
    file = io.BytesIO()
    dropped = numbers.choice(names)
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as source, zipfile.ZipFile(file, "w") as target:
        for name in names:
            content = source.read(name)
            if name == dropped:
                content = numbers.choice((content[: len(content) // 2], content * 3, b""))
            target.writestr(name, content)
    return file.getvalue()


def _replace_offsets(numbers: Random) -> bytes:
    """Return an archive with changed sizes and offsets in its directory."""
    archive_bytes = bytearray(_make_valid(numbers)[0])
    entry_offsets = [
        i for i in range(len(archive_bytes) - 46) if archive_bytes[i : i + 4] == b"PK\x01\x02"
    ]
    for _ in range(numbers.randint(1, 5)):
        at = numbers.choice(entry_offsets) + numbers.choice((10, 16, 20, 24, 28, 30, 42))
        struct.pack_into(
            "<L", archive_bytes, at, numbers.choice((0, 1, 64, 0xFFFFFFFF, numbers.getrandbits(32)))
        )
    return bytes(archive_bytes)
