"""PyTorch's element types, and how a pickle refers to the storage that a tensor lies in."""

from collections.abc import Mapping
from dataclasses import dataclass

from tcc.compiler.foreign.checkpoint.pickle_reader import GlobalName

WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(("complex128",), 16),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32", "qint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "qint8", "quint8", "quint4x2", "quint2x4"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), 1),
}
"""Bytes of an element of each type, by the names of `torch.float32` and the others."""
FLOATS = frozenset(name for name in WIDTHS if name.startswith(("float", "bfloat")))
"""The types that weights have; numpy, with ml_dtypes, calls them the same."""
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
    """Memory that tensors lie in: its key in the file, and the type that it was saved as."""

    key: str
    dtype: str
    meta: bool
    """There are no bytes: the tensor was on PyTorch's device `meta`."""

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS[self.dtype]


def storage(reference: object) -> TorchStorage | None:
    """Return the storage that a reference out of a pickle stands for; None for anything else."""
    match reference:
        case ("storage", GlobalName(module, name), str(key), str(location), int(), *_):
            if module in ("torch", "torch.cuda", "torch.storage") and name in _CLASSES:
                return TorchStorage(key, _CLASSES[name], location == "meta")
    return None


def dtype(value: object) -> str | None:
    """Return the type that a pickle names, such as `torch.float32`; None for anything else."""
    known = isinstance(value, GlobalName) and value.module == "torch" and value.name in WIDTHS
    return value.name if known and isinstance(value, GlobalName) else None
