"""Lazily read tensors of checkpoints, and how PyTorch's tensors are pickled."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Literal

import ml_dtypes  # noqa: F401 - teaches numpy the names bfloat16 and float8_e4m3fn
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tcc.compiler.importers.checkpoint import torch_archive
from tcc.compiler.importers.checkpoint.pickle_reader import (
    ConstructedObject,
    GlobalName,
    PersistentReference,
    PickleError,
)
from tcc.compiler.importers.checkpoint.torch_archive import (
    FLOATS,
    WIDTHS,
    StorageRecord,
    TorchArchive,
    parse_dtype,
    parse_storage,
)
from tcc.compiler.ir.types import Shape
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

SAVE_HELP = "save it again: `torch.save(model.state_dict(), path)`"
MAX_BYTES = 8 << 30
"""Maximum bytes of a storage, and of the part of it that a tensor's elements span."""
MAX_SPREAD_BYTES = 1 << 30
"""Bytes that any tensor may span in its storage; a larger tensor may span more."""


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that is read on demand; `storage` is equal for names of the same memory.

    `kind` is the type of its elements or the kind of tensor. Only `floating` ones are weights.
    """

    name: str
    shape: Shape
    kind: str
    floating: bool
    storage: Hashable
    read_values: Callable[[], NDArray[np.float32]]


def escape_text(text: str) -> str:
    """Return text of a checkpoint for a message: short, and safe for a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:160])


def make_read_error(path: Path, message: str, label: str = "", help: str = "") -> UserError:
    """Return the error of a checkpoint that cannot be read (E0510)."""
    return fail("E0510", message, make_file_span(str(path)), label=label, help=help)


@dataclass(frozen=True, slots=True)
class TensorReader:
    """Reads the tensors of an archive; checks each storage's checksum once."""

    archive: TorchArchive
    checked: set[str] = field(default_factory=set)

    def make_tensor(self, name: str, value: object) -> LazyTensor | None:
        """Return the tensor that a pickled value represents; None if it is not a tensor.

        Raises:
            PickleError: It is outside its storage, or its sizes are invalid.
        """
        constructed = _unwrap_tensor(value)
        if constructed is None:
            return None
        match constructed.callee, constructed.args:
            case (
                GlobalName("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"),
                (PersistentReference(reference), offset, tuple(shape), tuple(stride), *_),
            ):
                return self._make_strided(name, reference, None, (offset, shape, stride))
            case (
                GlobalName("torch._utils", "_rebuild_tensor_v3"),
                (
                    PersistentReference(reference),
                    offset,
                    tuple(shape),
                    tuple(stride),
                    _,
                    _,
                    kind,
                    *_,
                ),
            ):
                return self._make_strided(
                    name, reference, parse_dtype(kind), (offset, shape, stride)
                )
            case GlobalName("torch._utils", str(function)), _ if function.startswith("_rebuild_"):
                kind = function.removeprefix("_rebuild_").removesuffix("_tensor")
                return _make_non_float(name, (), "quantised" if kind == "qtensor" else kind)
        return None

    def _make_strided(
        self, name: str, reference: object, kind: str | None, layout: tuple[object, ...]
    ) -> LazyTensor:
        offset, shape, stride = _parse_layout(name, layout)
        torch_storage = parse_storage(reference)
        if torch_storage is None:
            raise PickleError(f"{escape_text(name)} has an unknown storage type")
        kind = kind or torch_storage.dtype
        if torch_storage.meta or kind not in FLOATS:
            return _make_non_float(name, shape, "meta" if torch_storage.meta else kind)
        record = self.archive.storages.get(torch_storage.key)
        if record is None:
            raise PickleError(f"the bytes of {escape_text(name)} are missing")
        count = prod(shape)
        # Strides are not negative (`_parse_layout`), so the last element has the largest offset.
        end_offset = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1
        if count and end_offset * WIDTHS[kind] > record.size:
            raise PickleError(f"{escape_text(name)} is larger than its storage")
        memory_key = (torch_storage.key, offset, shape, stride) if count else name
        span = _StorageSpan(name, kind, record, offset, end_offset if count else offset)
        read_tensor = partial(self._read_values, torch_storage.key, span, shape, stride)
        return LazyTensor(name, shape, kind, True, memory_key, read_tensor)

    def _read_values(
        self, key: str, span: "_StorageSpan", shape: Shape, stride: Shape
    ) -> NDArray[np.float32]:
        path = self.archive.path
        try:
            # Reading a sparse view reads everything between its elements, so that is limited.
            if max(
                span.record.size, span.bytes
            ) > MAX_BYTES or span.bytes > MAX_SPREAD_BYTES + 16 * prod(shape):
                raise make_read_error(
                    path,
                    f"{escape_text(span.name)} is a small view of a much larger tensor",
                    help=SAVE_HELP,
                )
            if key not in self.checked:
                torch_archive.check_storage(path, span.record)
                self.checked.add(key)
            flat = span.read_elements(path, self.archive.order)
        except PickleError as error:
            raise make_read_error(path, "the checkpoint is damaged", str(error)) from None
        except OSError as error:
            raise make_read_error(
                path, "cannot read the checkpoint", error.strerror or ""
            ) from None
        # numpy does not check strides here; `_make_strided` compared them with the storage's size.
        steps = tuple(s * flat.itemsize for s in stride)
        with np.errstate(over="ignore", invalid="ignore"):  # non-finite values are detected later
            return np.array(as_strided(flat, shape, steps), np.float32)


@dataclass(frozen=True, slots=True)
class _StorageSpan:
    """The range of a storage that a tensor uses, in elements: `start` up to before `stop`."""

    name: str
    kind: str
    record: StorageRecord
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        return (self.stop - self.start) * WIDTHS[self.kind]

    def read_elements(self, path: Path, order: Literal["<", ">"]) -> NDArray[np.generic]:
        kind = np.dtype(self.kind)
        with regular_files.open_file(path) as file:
            count, at = self.stop - self.start, self.record.start + self.start * kind.itemsize
            flat = np.fromfile(file, kind.newbyteorder(order), count, offset=at)
        if flat.size != count:
            raise PickleError("the file was truncated while it was read")
        return flat


def _make_non_float(name: str, shape: Shape, kind: str) -> LazyTensor:
    return LazyTensor(name, shape, kind, False, name, lambda: np.zeros(0, np.float32))


def _unwrap_tensor(pickled: object) -> ConstructedObject | None:
    """Return the call that rebuilds a tensor, without parameter and subclass wrappers."""
    # A pickle can wrap a value in itself. PyTorch writes one or two wrappers.
    for _ in range(8):
        match pickled:
            case ConstructedObject(
                GlobalName("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            ):
                pickled = _get_first_argument(pickled)
            case ConstructedObject(GlobalName("torch.nn.parameter", "Parameter" | "Buffer")):
                pickled = _get_first_argument(pickled)
            case ConstructedObject(
                GlobalName("torch._tensor", "_rebuild_from_type_v2"), (function, _, args, *_)
            ):
                pickled = ConstructedObject(function, args)
            case ConstructedObject():
                return pickled
            case _:
                return None
    return None


def _get_first_argument(constructed: ConstructedObject) -> object:
    return constructed.args[0] if isinstance(constructed.args, tuple) and constructed.args else None


def _parse_layout(name: str, layout: tuple[object, ...]) -> tuple[int, Shape, Shape]:
    match layout:
        case int(offset), tuple(shape), tuple(stride):
            numbers = (offset, *shape, *stride)
            # Not bool, which is a subclass of int.
            are_sizes_valid = all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)
            # numpy before version 2 supports at most 32 axes.
            if are_sizes_valid and len(shape) == len(stride) <= 32:
                return offset, shape, stride
    raise PickleError(f"{escape_text(name)} has invalid sizes or strides")
