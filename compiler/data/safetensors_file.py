"""Reading safetensors: the header first, whole and checked, then a tensor at a time.

The format: eight bytes that say how long the header is, the header, which is JSON and says of each
tensor its type, shape and place, then the tensors' bytes, side by side and nothing else.
https://huggingface.co/docs/safetensors
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
"""Bytes of the longest header: 50,000 tensors of long names take 8 MiB."""
MAX_TENSORS = 50_000
"""Most tensors of a file."""
FLOATS = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16"}
"""The types that are read, and numpy's names of them."""
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of an element of each type there is."""
HELP = "PyTorch checkpoints come in through `tcc import --spec`"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the header describes it: `start` and `size` count the file's bytes."""

    dtype: str
    shape: Shape
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file whose header fits the file; its tensors are not read yet."""

    path: Path
    parts: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    def read_tensor(self, name: str) -> NDArray[Any]:
        """Return a tensor of floats in the type of the file.

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
            raise _make_read_error(self.path, OSError("it became shorter while it was read"))
        return tensor.reshape(part.shape)


class _FormatError(Exception):
    """Why a file is no safetensors file."""


def open_safetensors(path: Path) -> TensorFile:
    """Return a file by its header.

    Raises:
        UserError: It cannot be read, or is no whole safetensors file (E0501).
    """
    span = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            text = _read_header(file.read(8), size, file)
        return _parse_header(path, text, size)
    except IsADirectoryError:
        raise fail("E0501", "cannot read the weights: it is a folder", span) from None
    except OSError as error:
        raise _make_read_error(path, error) from None
    except _FormatError as why:
        message = "not a whole safetensors file"
        raise fail("E0501", message, span, label=str(why), help=HELP) from None


def _read_header(start: bytes, size: int, file: Any) -> bytes:
    if len(start) < 8:
        raise _FormatError("it ends before its header")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise _FormatError("its header would be longer than the file")
    if length > MAX_HEADER_BYTES:
        raise _FormatError(
            f"its header is of {length >> 20} MiB, longer than {MAX_HEADER_BYTES >> 20} MiB"
        )
    text: bytes = file.read(length)
    if not text.startswith(b"{"):
        raise _FormatError("its header is no JSON object")
    return text


def _parse_header(path: Path, text: bytes, size: int) -> TensorFile:
    try:
        # json keeps the last of equal keys: readers of the file might then see different tensors.
        header = json.loads(text.decode(), object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError):
        raise _FormatError("its header is no valid JSON") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _FormatError("its metadata are no texts")
    if len(header) > MAX_TENSORS:
        raise _FormatError(f"it holds {len(header)} tensors, more than {MAX_TENSORS}")
    parts = {
        name: _parse_tensor(name, description, 8 + len(text))
        for name, description in header.items()
    }
    _check_offsets(parts, 8 + len(text), size)
    return TensorFile(path, parts, metadata)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _FormatError("its header names something twice")
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
                    f"{_escape_text(name)} is of an unknown type, {_escape_text(dtype)}"
                )
            numbers = (*shape, start_offset, end_offset)
            if len(shape) > 64 or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
                raise _FormatError(f"{_escape_text(name)} has no whole sizes")
            if prod(shape) * BITS[dtype] != (end_offset - start_offset) * 8:
                raise _FormatError(f"{_escape_text(name)} has a shape that its bytes do not fill")
            return StoredTensor(
                dtype, tuple(shape), begin + start_offset, end_offset - start_offset
            )
    raise _FormatError(f"{_escape_text(name)} lacks its type, shape or place")


def _check_offsets(parts: Mapping[str, StoredTensor], begin: int, size: int) -> None:
    """Refuse tensors that overlap, leave gaps, or end before or after the file does."""
    end = begin
    # By size as well: empty tensors come before the one that begins where they do.
    for name, part in sorted(parts.items(), key=lambda item: (item[1].start, item[1].size)):
        if part.start != end:
            raise _FormatError(f"{_escape_text(name)} does not lie where the tensor before it ends")
        end += part.size
    if end != size:
        raise _FormatError(f"its tensors end at byte {end} of {size}")


def _escape_text(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:80])


def _make_read_error(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return fail("E0501", "cannot read the weights", make_file_span(str(path)), label=reason)
