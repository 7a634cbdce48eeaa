"""JSON documents as frozen records that define their content, encoding and decoding.

A record derives from `Record`: msgspec decodes it, and refuses unknown keys and values of other
types. Limits of numbers and texts are in the fields' types, as `msgspec.Meta`. This module adds
checks for ambiguous JSON, the order of the fields, and seals.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

T = TypeVar("T")
_OMITTED = Meta(extra={"omit_default": True})
OmitDefault = Annotated[T, _OMITTED]
"""A field that is written only if it differs from its default: documents that were written before
the field existed stay unchanged."""
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 in hex."""


class _DataclassFields:
    """Lets `dataclasses.replace` and `asdict` accept a record, as type checkers assume."""

    def __get__(self, _: object, record: type[Struct]) -> dict[str, Any]:
        twin = make_dataclass(record.__name__, record.__struct_fields__)
        twin_fields: dict[str, Any] = vars(twin)["__dataclass_fields__"]
        return twin_fields


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """An object of a JSON document; its fields are the keys."""

    __dataclass_fields__: ClassVar[Any] = _DataclassFields()


class AmbiguousJsonError(ValueError):
    """A JSON text has an invalid number, or the same key twice."""


class RecordError(ValueError):
    """A document does not match its record; the message names the key and the error."""


def parse(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        AmbiguousJsonError: It contains a key twice, NaN, infinity, or a number that overflows.
        ValueError: It is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_build_object,
            parse_float=_parse_float,
            parse_constant=_refuse_number,
        )
    except RecursionError:
        raise ValueError("its lists or objects are nested too deeply") from None


def _build_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(members)
    if len(built) < len(members):
        keys = [key for key, _ in members]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise AmbiguousJsonError(f"the key `{twice[:40]}` appears twice")
    return built


def _parse_float(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _refuse_number(text)


def _refuse_number(number: str) -> NoReturn:
    raise AmbiguousJsonError(f"it contains {number[:40]}, which is not a finite number")


def encode(record: Any) -> Any:
    """Return a record or dataclass as plain data for JSON, with keys in field order."""
    match record:
        case Struct():
            field_values = (
                (field, getattr(record, field.name)) for field in structs.fields(record)
            )
            return {
                field.encode_name: encode(content)
                for field, content in field_values
                if not _is_omitted(field, content)
            }
        case Mapping():
            return {name: encode(content) for name, content in record.items()}
        case tuple() | list():
            return type(record)(encode(content) for content in record)
        case _ if is_dataclass(record):
            return {f.name: encode(getattr(record, f.name)) for f in fields(record)}
        case _:
            return record


def _is_omitted(field: structs.FieldInfo, content: Any) -> bool:
    if _OMITTED not in getattr(field.type, "__metadata__", ()):
        return False
    factory = field.default_factory
    return bool(content == (factory() if callable(factory) else field.default))


def decode(kind: type[T], content: Any) -> T:
    """Return plain data converted to a type.

    Raises:
        RecordError: The data does not match the type.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise RecordError(_describe(kind, content, str(error))) from None


def _describe(kind: Any, content: Any, problem: str) -> str:
    """Return msgspec's message with the path first, including the keys of mappings."""
    message, _, path = problem.rpartition(" - at `$")
    key_path, part = [], content
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path if message else ""):
        if index == "...":
            _keep_wrong_entry(kind, content, part, problem)
            key = next(iter(part))
        else:
            key = name or int(index)
        key_path.append(str(key)[:40])
        part = part[key]
    message = message or problem
    return f"{'/'.join(key_path) or 'the document'}: {message[0].lower()}{message[1:]}"


def _keep_wrong_entry(kind: Any, content: Any, mapping: dict[str, Any], problem: str) -> None:
    """Reduce a mapping within plain data to its first entry that has a given problem."""
    members = list(mapping.items())
    while len(members) > 1:
        half = members[: len(members) // 2]
        mapping.clear()
        mapping.update(half)
        try:
            msgspec.convert(content, kind)
            members = members[len(half) :]
        except msgspec.ValidationError as error:
            members = half if str(error) == problem else members[len(half) :]
    mapping.clear()
    mapping.update(members)


def seal(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, without its seal."""
    # Keys sorted and no indentation: the seal covers the content, not its layout.
    body = json.dumps(dict(content) | {"seal": ""}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


@dataclass(frozen=True)
class DocumentKind(Generic[T]):
    """A kind of sealed document: its record, with the SHA-256 of the rest in the field `seal`.

    `key` and `version` are the key and number of its version. `noun` names the document in errors
    ("the bundle's manifest"), `help` says how to get an intact one, and `code` is the error code.
    `older_versions` can be read as well: fields that were added later have a default.
    """

    record: type[T]
    key: str
    version: int
    code: str
    noun: str
    help: str
    indent: int = 2
    older_versions: tuple[int, ...] = ()

    def encode(self, document: T) -> bytes:
        """Return indented UTF-8 with a seal, keys in the order of the record."""
        content = encode(document)
        content["seal"] = seal(content)
        text = json.dumps(content, indent=self.indent, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()

    def read_bytes(self, path: Path, action: str, max_bytes: int) -> bytes:
        """Return the bytes of a file.

        The size is limited first: parsing JSON takes several times the file's size in memory.

        Args:
            path: The file.
            action: What the error says could not be done.
            max_bytes: The largest size, whole MiB.

        Raises:
            UserError: The file cannot be read (E0603), or it is too large.
        """
        content = regular_files.read_file(path, action, max_bytes + 1)
        if len(content) > max_bytes:
            raise self.make_damage_error(str(path), f"it is larger than {max_bytes >> 20} MiB")
        return content

    def decode(self, file_bytes: bytes, name: str) -> T:
        """Return the document in a file's bytes; `name` is the file's name in errors.

        Raises:
            UserError: Its version is unknown, or it was changed.
        """
        try:
            content = parse(file_bytes)
        except AmbiguousJsonError as error:
            raise self.make_damage_error(name, str(error)) from None
        except ValueError:
            raise self.make_damage_error(name, "it is not JSON; it may be truncated") from None
        version = content.get(self.key) if isinstance(content, dict) else None
        # In Python, `true` equals 1.
        if isinstance(version, bool) or version not in (self.version, *self.older_versions):
            label = f"`{self.key}` is {json.dumps(version)[:40]}, but this tcc reads {self.version}"
            message = f"not {self.noun} of a known version"
            raise fail(self.code, message, make_file_span(name), label=label, help=self.help)
        try:
            document = decode(self.record, content)
        except RecordError as error:
            raise self.make_damage_error(name, str(error)[:200]) from None
        if content.get("seal") != seal(content):
            raise self.make_damage_error(
                name, "its content does not match its seal; it was edited or damaged"
            )
        return document

    def make_damage_error(self, name: str, label: str) -> UserError:
        """Return the error of a damaged document."""
        message = f"{self.noun.replace('a ', 'the ', 1)} is damaged"
        return fail(self.code, message, make_file_span(name), label=label, help=self.help)
