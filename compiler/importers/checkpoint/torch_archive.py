"""Files that `torch.save` writes: a pickle, and the bytes of the tensors' storages.

Since PyTorch 1.6 such a file is a zip archive with uncompressed entries; TorchScript uses the
same format. Older files are several pickles followed by the storages. Storages are located
without reading them.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from tcc.compiler.importers.checkpoint import pickle_reader
from tcc.compiler.importers.checkpoint.pickle_reader import GlobalName, PickleError
from tcc.compiler.support import regular_files

WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(("complex128",), 16),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32", "qint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "qint8", "quint8", "quint4x2", "quint2x4"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), 1),
}
"""Bytes of an element of each type; the names are those of PyTorch, as in `torch.float32`."""
FLOATS = frozenset(name for name in WIDTHS if name.startswith(("float", "bfloat")))
"""Types of weights; numpy with ml_dtypes uses the same names."""
_CLASSES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True, slots=True)
class TorchStorage:
    """Memory of tensors: its key in the file, and the type that it was saved as."""

    key: str
    dtype: str
    meta: bool
    """Whether there are no bytes: the tensor was on PyTorch's device `meta`."""

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS[self.dtype]


def parse_storage(reference: object) -> TorchStorage | None:
    """Return the storage that a pickled reference stands for; None for anything else."""
    match reference:
        case ("storage", GlobalName(module, name), str(key), str(location), int(), *_):
            if module in ("torch", "torch.cuda", "torch.storage") and name in _CLASSES:
                return TorchStorage(key, _CLASSES[name], location == "meta")
    return None


def parse_dtype(value: object) -> str | None:
    """Return the type that a pickled value names, such as `torch.float32`; None otherwise."""
    is_dtype = isinstance(value, GlobalName) and value.module == "torch" and value.name in WIDTHS
    return value.name if is_dtype and isinstance(value, GlobalName) else None


MAX_PICKLE_BYTES = 64 << 20
"""Maximum size of a pickle in bytes."""
MAGIC = 0x1950A86A20F9469CFC6C
"""First value of old files: `MAGIC_NUMBER` of torch/serialization.py."""
MAX_ENTRIES = 200_000
"""Maximum number of archive entries: one per storage of a model and its optimizer."""
BLOCK_BYTES = 1 << 20
COMPRESSED = "its zip entries are compressed"


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """A storage's position in the file, in bytes; `checksum` is its CRC-32, if the file has one."""

    start: int
    size: int
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """An opened file: the value of its pickle, the names used in it, and its storages."""

    path: Path
    root: object
    global_names: frozenset[GlobalName]
    storages: Mapping[str, StorageRecord]
    order: Literal["<", ">"] = "<"
    """Byte order of numbers, in numpy's notation."""


def read_archive(path: Path) -> TorchArchive:
    """Return the contents of a file without the storages' bytes.

    Raises:
        PickleError: It is not a PyTorch file, or it is damaged.
        OSError: It cannot be read.
    """
    with regular_files.open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return _read_zip(path, file, size) if is_zip else _read_legacy(path, file, size)


def check_storage(path: Path, record: StorageRecord) -> None:
    """Compare a storage with its checksum.

    Raises:
        PickleError: The checksum does not match.
        OSError: It cannot be read.
    """
    if record.checksum is None:
        return
    checksum, remaining = 0, record.size
    with regular_files.open_file(path) as file:
        file.seek(record.start)
        while remaining and (block := file.read(min(remaining, BLOCK_BYTES))):
            checksum, remaining = zlib.crc32(block, checksum), remaining - len(block)
    if remaining or checksum != record.checksum:
        raise PickleError("the checksum of a tensor does not match its bytes")


@dataclass(frozen=True, slots=True)
class _Entry:
    method: int
    checksum: int
    size: int
    start: int
    """Offset of the entry's header; the entry's bytes follow it."""


def _read_zip(path: Path, file: BinaryIO, size: int) -> TorchArchive:
    entries = _read_directory(file, size)
    folder = next((n[: -len("data.pkl")] for n in entries if n.endswith("/data.pkl")), None)
    if folder is None:
        raise PickleError("it is a zip archive without a data.pkl, so not a PyTorch file")
    folder_entries = {name: entry for name, entry in entries.items() if name.startswith(folder)}
    record_by_name: dict[str, StorageRecord] = {}
    for name, entry in folder_entries.items():
        inner = name.removeprefix(folder)
        if inner in ("data.pkl", "byteorder") or inner.startswith("data/"):
            record_by_name[inner] = _locate_record(file, entry, size)
    # Overlapping entries let a small archive expand to a large content (D. Fifield, "A better zip
    # bomb", WOOT 2019).
    if sum(record.size for record in record_by_name.values()) > size:
        raise PickleError("its entries overlap")
    pickle = _read_record(path, file, record_by_name["data.pkl"])
    is_big_endian = (
        "byteorder" in record_by_name
        and _read_record(path, file, record_by_name["byteorder"]) == b"big"
    )
    root = pickle_reader.load(BytesIO(pickle))
    storages = {
        n.removeprefix("data/"): r for n, r in record_by_name.items() if n.startswith("data/")
    }
    return TorchArchive(path, root.root, root.global_names, storages, ">" if is_big_endian else "<")


def _read_record(path: Path, file: BinaryIO, record: StorageRecord) -> bytes:
    if record.size > MAX_PICKLE_BYTES:
        raise PickleError(
            f"its pickle has {record.size >> 20} MiB, more than the limit of"
            f" {MAX_PICKLE_BYTES >> 20} MiB"
        )
    check_storage(path, record)
    file.seek(record.start)
    return file.read(record.size)


def _read_directory(file: BinaryIO, size: int) -> dict[str, _Entry]:
    """Return the entries of a zip archive by name, from the directory at its end.

    Appendix of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT: sections 4.3.12 to
    4.3.16, and 4.5.3 for what does not fit in 32 bits.
    """
    # The end record has 22 bytes, and a comment of less than 2**16 bytes may follow it.
    tail_start = max(0, size - (1 << 16) - 22)
    file.seek(tail_start)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise PickleError("the archive's directory is missing: the file is truncated")
    count, length, start = struct.unpack_from("<10xHLL", tail, end)
    # A field with its maximum value means that the number is in the zip64 record.
    if count == 0xFFFF or 0xFFFFFFFF in (length, start):
        count, length, start = _read_zip64_end(file, tail, end)
    if count > MAX_ENTRIES or length > MAX_PICKLE_BYTES:
        raise PickleError(
            f"the archive's directory has {count} entries and {length} bytes, more than the limit"
            f" of {MAX_ENTRIES} entries or {MAX_PICKLE_BYTES} bytes"
        )
    file.seek(start)
    text = file.read(length)
    entries: dict[str, _Entry] = {}
    at = 0
    for _ in range(count):
        name, entry, at = _read_entry(text, at)
        entries.setdefault(name, entry)
    return entries


def _read_zip64_end(file: BinaryIO, tail: bytes, end: int) -> tuple[int, int, int]:
    if end < 20 or tail[end - 20 : end - 16] != b"PK\x06\x07":
        raise PickleError("the archive's directory is damaged")
    (offset,) = struct.unpack_from("<8xQ", tail, end - 20)
    # File offsets are signed, and seek would overflow.
    if offset >= 1 << 63:
        raise PickleError("the archive's directory is damaged")
    file.seek(offset)
    end_record = file.read(56)
    if len(end_record) < 56 or end_record[:4] != b"PK\x06\x06":
        raise PickleError("the archive's directory is damaged")
    count, length, start = struct.unpack_from("<32xQQQ", end_record)
    if start >= 1 << 63:
        raise PickleError("the archive's directory is damaged")
    return count, length, start


def _read_entry(text: bytes, at: int) -> tuple[str, _Entry, int]:
    if text[at : at + 4] != b"PK\x01\x02" or len(text) < at + 46:
        raise PickleError("the archive's directory is damaged")
    fields = struct.unpack_from("<8xHH4xLLLHHH8xL", text, at)
    flags, method, checksum, packed, size, name_size, extra_size, note_size, start = fields
    if flags & 1:
        raise PickleError("the archive is encrypted")
    name_end = at + 46 + name_size
    extra = text[name_end : name_end + extra_size]
    size, packed, start = _read_zip64_sizes(extra, size, packed, start)
    if method == 0 and packed != size:
        raise PickleError("the archive's directory is damaged")
    name = text[at + 46 : name_end].decode(errors="replace")
    return name, _Entry(method, checksum, size, start), name_end + extra_size + note_size


def _read_zip64_sizes(extra: bytes, *sizes: int) -> tuple[int, int, int]:
    """Return an entry's sizes and offset; values above 32 bits are in its extra field."""
    large_sizes: list[int] = []
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field_bytes = extra[at + 4 : at + 4 + length]
            large_sizes = [
                n for (n,) in struct.iter_unpack("<Q", field_bytes[: len(field_bytes) // 8 * 8])
            ]
        at += 4 + length
    large = iter(large_sizes)
    size, packed, start = (next(large, v) if v == 0xFFFFFFFF else v for v in sizes)
    return size, packed, start


def _locate_record(file: BinaryIO, entry: _Entry, size: int) -> StorageRecord:
    if entry.method:
        raise PickleError(COMPRESSED)
    if entry.start + 30 > size:
        raise PickleError("an entry's offset is beyond the end of the archive")
    file.seek(entry.start)
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise PickleError("an entry of the archive is damaged")
    name_size, extra_size = struct.unpack_from("<26xHH", head)
    start = entry.start + 30 + name_size + extra_size
    if start + entry.size > size:
        raise PickleError("an entry's data extends beyond the end of the archive")
    return StorageRecord(start, entry.size, entry.checksum)


def _read_legacy(path: Path, file: BinaryIO, size: int) -> TorchArchive:
    """Read a file from before 1.6: magic number, version, machine, root, keys, then storages."""
    text = BytesIO(file.read(MAX_PICKLE_BYTES))
    if pickle_reader.load(text).root != MAGIC:
        raise PickleError("it is a pickle, but not one that `torch.save` wrote")
    pickle_reader.load(text)
    pickle_reader.load(text)
    root = pickle_reader.load(text)
    keys = pickle_reader.load(text).root
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("it has no list of its storages")
    storage_by_key = {s.key: s for s in map(parse_storage, root.persistent_ids) if s}
    storages: dict[str, StorageRecord] = {}
    at = text.tell()
    for key in keys:
        file.seek(at)
        # Past the end of the file the count is -1, which no storage has.
        (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
        if key not in storage_by_key or not 0 <= count <= size:
            raise PickleError("its storages do not match its list of storages")
        storages[key] = StorageRecord(at + 8, count * storage_by_key[key].width)
        at = storages[key].start + storages[key].size
        if at > size:
            raise PickleError("a tensor's bytes are missing: the file is truncated")
    return TorchArchive(path, root.root, root.global_names, storages)
