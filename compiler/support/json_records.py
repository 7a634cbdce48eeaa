"""Frozen dataclasses as JSON documents: one definition gives the type, the schema and the reader.

A field is a `str`, `int`, `float`, `bool`, one of a `Literal`'s strings, another record, a
`tuple[X, ...]`, a `Mapping[str, X]`, or any of these `| None`. Its limits stand in the field's
metadata, as JSON Schema words (`field(metadata={"pattern": ...})`); a field with the word `default`
is written only where it has another value, so that documents from before it stay as they are.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def schema(record: type) -> dict[str, Any]:
    """Return the JSON Schema of a record; fields without a default are required."""
    hints = get_type_hints(record)
    own = fields(record)
    return {
        "type": "object",
        "properties": {f.name: _schema(hints[f.name]) | dict(f.metadata) for f in own},
        "required": [f.name for f in own if f.default is f.default_factory is MISSING],
        "additionalProperties": False,
    }


def _schema(hint: Any) -> dict[str, Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        return schema(hint)
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) in (UnionType, Union):
        return {"anyOf": [_schema(choice) for choice in get_args(hint)]}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _schema(get_args(hint)[1])}
    return {"type": _PLAIN[hint]}


def encode(record: Any) -> dict[str, Any]:
    """Return a record as plain data for JSON, its fields in their order.

    Fields that have the value of their schema's `default` are left out.
    """
    found: dict[str, Any] = _plain(record)
    return found


def _plain(value: Any) -> Any:
    match value:
        case tuple() | list():
            return type(value)(_plain(item) for item in value)
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _ if is_dataclass(value):
            shown = (f for f in fields(value) if not _left_out(f, getattr(value, f.name)))
            return {f.name: _plain(getattr(value, f.name)) for f in shown}
        case _:
            return value


def _left_out(own: "Field[Any]", value: Any) -> bool:
    return "default" in own.metadata and own.metadata["default"] == value


def decode(hint: Any, data: Any) -> Any:
    """Return the value of a type hint from plain data that its schema let pass."""
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{name: decode(hints[name], value) for name, value in data.items()})
    if data is None:
        return None
    if get_origin(hint) in (UnionType, Union):
        return decode(next(c for c in get_args(hint) if c is not NoneType), data)
    if get_origin(hint) is tuple:
        return tuple(decode(get_args(hint)[0], item) for item in data)
    if get_origin(hint) is Mapping:
        return {name: decode(get_args(hint)[1], value) for name, value in data.items()}
    # JSON has one kind of number: 1 may stand for 1.0 and, as JSON Schema says, 1.0 for 1
    return hint(data) if hint in {int, float} else data
