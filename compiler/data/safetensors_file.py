"""Read safetensors files: validate the complete header, then read single tensors.

Format: eight bytes with the header's length; a JSON header with each tensor's type, shape and
offsets; then the tensors' bytes without gaps. https://huggingface.co/docs/safetensors
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy the name bfloat16
import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import Shape
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_HEADER_BYTES = 16 << 20
"""Maximum header size: 50,000 tensors with long names take 8 MiB."""
MAX_TENSORS = 50_000
"""Maximum number of tensors in a file."""
FLOATS = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16"}
"""The supported types and their NumPy names."""
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits per element of all types of the format."""
HELP = "to read a PyTorch checkpoint, use `tcc import --spec`"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's header entry; `start` is its byte offset in the file, `size` its bytes."""

    dtype: str
    shape: Shape
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file with a validated header; tensors are read on demand."""

    path: Path
    parts: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    def read_tensor(self, name: str) -> NDArray[Any]:
        """Return a float tensor in the file's type.

        Raises:
            UserError: The file cannot be read any more (E0501).
        """
        part = self.parts[name]
        kind = np.dtype(FLOATS[part.dtype]).newbyteorder("<")
        try:
            with regular_files.open_file(self.path) as file:
                tensor = np.fromfile(file, kind, prod(part.shape), offset=part.start)
        except OSError as error:
            raise _make_read_error(self.path, error) from None
        if tensor.nbytes != part.size:
            raise _make_read_error(self.path, OSError("the file was truncated while it was read"))
        return tensor.reshape(part.shape)


class _FormatError(Exception):
    """The file is not a valid safetensors file; the message gives the reason."""


def open_safetensors(path: Path) -> TensorFile:
    """Open a file and validate its header.

    Raises:
        UserError: The file cannot be read, or is not a complete safetensors file (E0501).
    """
    span = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            text = _read_header(file.read(8), size, file)
        return _parse_header(path, text, size)
    except IsADirectoryError:
        raise fail("E0501", "cannot read the weights: this is a folder, not a file", span) from None
    except OSError as error:
        raise _make_read_error(path, error) from None
    except _FormatError as error:
        message = "not a valid safetensors file"
        raise fail("E0501", message, span, label=str(error), help=HELP) from None


def _read_header(start: bytes, size: int, file: Any) -> bytes:
    if len(start) < 8:
        raise _FormatError("the file ends before its header")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise _FormatError("its header is longer than the file")
    if length > MAX_HEADER_BYTES:
        raise _FormatError(
            f"its header has {length >> 20} MiB, the limit is {MAX_HEADER_BYTES >> 20} MiB"
        )
    text: bytes = file.read(length)
    if not text.startswith(b"{"):
        raise _FormatError("its header is not a JSON object")
    return text


def _parse_header(path: Path, text: bytes, size: int) -> TensorFile:
    try:
        # json keeps the last of duplicate keys, but other readers may keep another one.
        header = json.loads(text.decode(), object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError):
        raise _FormatError("its header is not valid JSON") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _FormatError("its metadata contain values that are not strings")
    if len(header) > MAX_TENSORS:
        raise _FormatError(f"the file has {len(header)} tensors, the limit is {MAX_TENSORS}")
    parts = {
        name: _parse_tensor(name, description, 8 + len(text))
        for name, description in header.items()
    }
    _check_offsets(parts, 8 + len(text), size)
    return TensorFile(path, parts, metadata)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _FormatError("its header has duplicate keys")
    return fields


def _parse_tensor(name: str, description: object, begin: int) -> StoredTensor:
    match description:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [start_offset, end_offset],
        }:
            if dtype not in BITS:
                raise _FormatError(
                    f"{_escape_text(name)} has an unknown type, {_escape_text(dtype)}"
                )
            numbers = (*shape, start_offset, end_offset)
            if len(shape) > 64 or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
                raise _FormatError(f"{_escape_text(name)} has an invalid shape or offset")
            if prod(shape) * BITS[dtype] != (end_offset - start_offset) * 8:
                raise _FormatError(f"the shape of {_escape_text(name)} does not match its bytes")
            return StoredTensor(
                dtype, tuple(shape), begin + start_offset, end_offset - start_offset
            )
    raise _FormatError(f"{_escape_text(name)} has no valid type, shape or offsets")


def _check_offsets(parts: Mapping[str, StoredTensor], begin: int, size: int) -> None:
    """Reject tensors that overlap, leave gaps, or do not end at the end of the file."""
    end = begin
    # Also by size: an empty tensor precedes the tensor with the same start.
    for name, part in sorted(parts.items(), key=lambda item: (item[1].start, item[1].size)):
        if part.start != end:
            raise _FormatError(f"{_escape_text(name)} does not start at the previous tensor's end")
        end += part.size
    if end != size:
        raise _FormatError(f"its tensors end at byte {end}, the file at byte {size}")


def _escape_text(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:80])


def _make_read_error(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return fail("E0501", "cannot read the weights", make_file_span(str(path)), label=reason)
