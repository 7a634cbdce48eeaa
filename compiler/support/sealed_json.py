"""Sealed documents: a record as JSON, with the SHA-256 of the rest in its field `seal`.

What is read is checked whole, so that nobody meets a half-written or edited file later.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Generic, NoReturn, TypeVar

from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

T = TypeVar("T")


@dataclass(frozen=True)
class DocumentKind(Generic[T]):
    """A kind of document: its record, the key and number of its version, and what is said of it.

    `what` names it ("the bundle's manifest"), `help` says how to get a whole one; wrong ones are
    errors of `code`. `older` are versions that are read as well: fields that came after them have
    a `default`, so that such a document stays as it is.
    """

    record: type[T]
    key: str
    version: int
    code: str
    what: str
    help: str
    indent: int = 2
    older: tuple[int, ...] = ()

    def encode(self, document: T) -> bytes:
        """Return indented UTF-8, keys in the order of the record, sealed."""
        plain = json_records.encode(document)
        plain["seal"] = seal(plain)
        text = json.dumps(plain, indent=self.indent, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()

    def decode(self, data: bytes, name: str) -> T:
        """Return the document of a file's bytes; `name` stands for the file in errors.

        Raises:
            UserError: Its version is not known, or it was changed.
        """
        try:
            plain = json.loads(data.decode(), parse_constant=_no_number, parse_float=_number)
        except _NoNumberError as found:
            raise self.damaged(name, str(found)) from None
        except (ValueError, RecursionError):
            raise self.damaged(name, "it is not JSON; it may be truncated") from None
        version = plain.get(self.key) if isinstance(plain, dict) else None
        # To Python `true` is the number 1.
        if isinstance(version, bool) or version not in (self.version, *self.older):
            label = f"`{self.key}` is {json.dumps(version)[:40]}, this tcc reads {self.version}"
            message = f"not {self.what} of a known version"
            raise fail(self.code, message, whole_file(name), label=label, help=self.help)
        self._check(plain, name)
        try:
            found_document: T = json_records.decode(self.record, plain)
        except OverflowError:
            raise self.damaged(name, "it holds a number that is too large") from None
        return found_document

    def damaged(self, name: str, label: str) -> UserError:
        """Return the error of a document that is not whole."""
        message = f"{self.what.replace('a ', 'the ', 1)} is damaged"
        return fail(self.code, message, whole_file(name), label=label, help=self.help)

    def _check(self, plain: Mapping[str, Any], name: str) -> None:
        # Here, since it takes as long to load as numpy, and many commands only write documents.
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match

        schema = json_records.schema(self.record)
        error = best_match(Draft202012Validator(schema).iter_errors(plain))
        if error:
            place = "/".join(map(str, error.absolute_path)) or "the whole"
            # The package quotes values as Python writes them, and the file is JSON.
            message = error.message.replace(repr(error.instance), json.dumps(error.instance), 1)
            raise self.damaged(name, f"{place}: {message[:160]}")
        if plain.get("seal") != seal(plain):
            raise self.damaged(
                name, "its content does not match its seal; it was edited or damaged"
            )


def seal(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data without its seal."""
    # Keys sorted and no indentation: the seal is of the content, not of how it is laid out.
    body = json.dumps(dict(plain) | {"seal": ""}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


class _NoNumberError(ValueError):
    """A file holds NaN or infinity."""


def _number(text: str) -> float:
    found = float(text)
    return found if isfinite(found) else _no_number(text)


def _no_number(word: str) -> NoReturn:
    raise _NoNumberError(f"it holds {word[:40]}, which is no number")
