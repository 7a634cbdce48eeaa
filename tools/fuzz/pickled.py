"""Checkpoints of PyTorch's that were written by hand: pickles that lie, archives that are bombs."""

import io
import struct
import zipfile
from random import Random

from states import state_dict, wrapped

NAMED = (("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("pathlib", "Path.touch"))
COMMAND = "touch ran"


def _text(words: str) -> bytes:
    return b"X" + struct.pack("<L", len(words.encode())) + words.encode()


def _number(value: int) -> bytes:
    data = value.to_bytes(max(1, value.bit_length() // 8 + 1), "little", signed=True)
    return b"\x8b" + struct.pack("<L", len(data)) + data


def _pickled_tensor(numbers: Random) -> bytes:
    """Return instructions of a tensor whose key, offset, shape and strides are anything."""

    def some() -> int:
        return numbers.choice(
            (0, 1, 2, 3, 54, -1, -(1 << 40), 1 << 31, 1 << 62, 1 << 64, 1 << 2000)
        )

    def several() -> bytes:
        return b"(" + b"".join(_number(some()) for _ in range(numbers.randint(0, 5))) + b"t"

    kind = numbers.choice(
        ("FloatStorage", "DoubleStorage", "ByteStorage", "QInt8Storage", "Nothing")
    )
    key = numbers.choice(("0", "1", "7", "../0", "99"))
    storage = b"(" + _text("storage") + b"ctorch\n" + kind.encode() + b"\n" + _text(key)
    storage += _text(numbers.choice(("cpu", "cuda:0", "meta"))) + _number(some()) + b"tQ"
    function = numbers.choice(
        ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3", "_rebuild_qtensor")
    )
    made = (
        b"ctorch._utils\n"
        + function.encode()
        + b"\n("
        + storage
        + _number(some())
        + several()
        + several()
    )
    return made + b"\x89}tR"


def _piece(numbers: Random, depth: int = 0) -> bytes:
    """Return instructions that leave one value on the stack, or too many, or none."""

    def inner() -> bytes:
        return _piece(numbers, depth + 1) if depth < 4 else b"N"

    module, name = numbers.choice(NAMED)
    return numbers.choice(
        (
            lambda: b")" + b"q\x00h\x00\x86" * numbers.choice((3, 28, 60, 5000)),
            lambda: b"]q\x01h\x01a",
            lambda: b"}q\x02" + _text("state_dict") + b"h\x02s",
            lambda: b"]" * (size := numbers.choice((10, 5000, 100_000))) + b"a" * (size - 1),
            lambda: f"c{module}\n{name}\n".encode() + b"(" + _text(COMMAND) + b"tR",
            f"(i{module}\n{name}\n".encode,
            lambda: b"(" + _text(COMMAND) + f"i{module}\n{name}\n".encode(),
            lambda: b"cargparse\nNamespace\n)\x81}" + inner() + b"b",
            lambda: _pickled_tensor(numbers),
            lambda: (
                b"}" + _text(numbers.choice(("state_dict", "net.0.weight", ""))) + inner() + b"s"
            ),
            lambda: b"}" + inner() + inner() + b"s",
            lambda: b"(" + inner() + inner() + b"t",
            lambda: numbers.choice((b"N", b"\x88", b"K\x07", b"G" + numbers.randbytes(8))),
            lambda: b"\x8d" + struct.pack("<Q", numbers.choice((1 << 40, 1 << 62, 3))) + b"abc",
            lambda: b"r" + struct.pack("<L", 0xFFFFFFFF) + b"j" + struct.pack("<L", 0xFFFFFFFF),
            lambda: numbers.randbytes(numbers.randint(1, 30)),
            lambda: b"c__torch__\nNet\n)\x81q\x03}" + _text("a") + b"h\x03sb",
            lambda: b"}" + 3 * (_text("a") + inner() + b"s"),
        )
    )()


def pickled(numbers: Random) -> bytes:
    """Return a checkpoint whose pickle was written by hand, in one of the two formats."""
    body = b"\x80\x02" + _piece(numbers) + numbers.choice((b".", b".", b".", b"", b"0.", b"b."))
    if numbers.random() < 0.3:
        header = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
        return header + body + b"\x80\x02]" + _text("0") + b"a." + bytes(64)
    return _archive({"data.pkl": body, "data/0": bytes(216), "data/1": bytes(12)}, numbers)


def _archive(entries: dict[str, bytes], numbers: Random) -> bytes:
    file = io.BytesIO()
    folder = numbers.choice(("net", "archive", "/net", "../net", "a/b", ""))
    method = zipfile.ZIP_DEFLATED if numbers.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(f"{folder}/{name}", data)
    return file.getvalue()


def zipped(numbers: Random) -> bytes:
    """Return an archive that is a bomb, lacks entries, or points anywhere."""
    return numbers.choice((_bomb, _many, _without, _moved))(numbers)


def _bomb(_: Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + b"]" * 30_000_000)
    return file.getvalue()


def _many(numbers: Random) -> bytes:
    """Return the directory of an archive of very many entries, all at one place."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 6, 0, 4, 4, 1, *[0] * 4, 0, 0) + b"a"
    count = numbers.choice((70_000, 1_000_000))
    start = b"PK\x03\x04" + bytes(60)
    sizes = (count, count, len(entry) * count, len(start))
    end = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, *sizes)
    end += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(start) + len(entry) * count, 1)
    end += b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    return start + entry * count + end


def _plain(numbers: Random) -> tuple[bytes, list[str]]:
    import torch

    file = io.BytesIO()
    torch.save(wrapped(state_dict(), numbers), file)
    with zipfile.ZipFile(file) as archive:
        return file.getvalue(), archive.namelist()


def _without(numbers: Random) -> bytes:
    data, names = _plain(numbers)
    file = io.BytesIO()
    dropped = numbers.choice(names)
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w") as target:
        for name in names:
            content = source.read(name)
            if name == dropped:
                content = numbers.choice((content[: len(content) // 2], content * 3, b""))
            target.writestr(name, content)
    return file.getvalue()


def _moved(numbers: Random) -> bytes:
    """Return an archive in whose directory sizes and places were changed."""
    data = bytearray(_plain(numbers)[0])
    places = [i for i in range(len(data) - 46) if data[i : i + 4] == b"PK\x01\x02"]
    for _ in range(numbers.randint(1, 5)):
        at = numbers.choice(places) + numbers.choice((10, 16, 20, 24, 28, 30, 42))
        struct.pack_into(
            "<L", data, at, numbers.choice((0, 1, 64, 0xFFFFFFFF, numbers.getrandbits(32)))
        )
    return bytes(data)
