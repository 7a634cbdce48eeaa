"""`calibration.json`, version 1: a calibration with all that it depends on, sealed.

The records below are its whole definition. Tensors are base64 of their bytes, little-endian, row by
row; their shapes are the model's. Numbers that are float32 come back to the bit. Nothing in it
depends on what images are called, where they lie or when it was made.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from tcc.compiler import files, records
from tcc.compiler.floor import Quality
from tcc.compiler.manifest import Network, Source, Weights
from tcc.compiler.quant.methods import Trace
from tcc.compiler.source import UserError, fail, whole_file

VERSION = 1
MAX_BYTES = 1 << 30
"""Largest file that is read."""

_SHA256 = {"pattern": "^[0-9a-f]{64}$"}


@dataclass(frozen=True, slots=True)
class Data:
    """The images: the digest of the set, how many, and how many of them judged the candidates."""

    digest: str = field(metadata=_SHA256)
    images: int = field(metadata={"minimum": 1})
    held_out: int = field(metadata={"minimum": 0})


@dataclass(frozen=True, slots=True)
class Value:
    """How one value becomes integers, and how that came about; `trace` as in `methods.Trace`."""

    scale: float
    signed: bool
    trace: Trace | None


@dataclass(frozen=True, slots=True)
class Tensors:
    """The integer weights of one convolution: int8, float32 and int32."""

    weight: str
    scale: str
    bias: str


@dataclass(frozen=True, slots=True)
class Document:
    """All that a calibration file says; `seal` is the SHA-256 of the rest.

    `used` is the candidate that `method` chose, `judged` how each did on the images held out.
    """

    tcc_calibration: int = field(metadata={"const": VERSION})
    method: str
    used: str
    target: str
    model: Network
    weights: Weights
    data: Data
    input: Source
    passes: str
    values: Mapping[str, Value]
    rounded: Mapping[str, Tensors]
    factors: Mapping[str, str]
    in_float: tuple[str, ...]
    judged: Mapping[str, Quality]
    notices: tuple[str, ...]
    made_with: Mapping[str, str]
    seal: str = ""


def encode(document: Document) -> bytes:
    """Return the bytes of the file, sealed: the same for the same document."""
    plain = records.encode(replace(document, seal=""))
    plain["seal"] = _seal(plain)
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def read(path: Path) -> Document:
    """Return the document of a file.

    Raises:
        UserError: It cannot be read (E0603), or is not a whole calibration (E0730).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise files.explain(error, path, "read the calibration") from error
    if len(data) > MAX_BYTES:
        raise _damaged(str(path), f"it is larger than {MAX_BYTES >> 20} MiB")
    return decode(data, str(path))


def decode(data: bytes, name: str) -> Document:
    """Return the document of a file's bytes; `name` stands for it in errors.

    Raises:
        UserError: It is not a whole calibration of a version that is known (E0730).
    """
    try:
        plain = json.loads(data.decode(), parse_constant=_no_number, parse_float=_number)
    except _NoNumberError as found:
        raise _damaged(name, str(found)) from None
    except (ValueError, RecursionError):
        raise _damaged(name, "it is not JSON; it may be truncated") from None
    version = plain.get("tcc_calibration") if isinstance(plain, dict) else None
    if version != VERSION:
        raise fail(
            "E0730",
            "not a calibration file of a known version",
            whole_file(name),
            label=f"`tcc_calibration` is {version!r:.40}, this tcc reads {VERSION}",
        )
    error = best_match(Draft202012Validator(records.schema(Document)).iter_errors(plain))
    if error:
        place = "/".join(map(str, error.absolute_path)) or "the whole"
        raise _damaged(name, f"{place}: {error.message[:160]}")
    if plain["seal"] != _seal(plain):
        raise _damaged(name, "its content does not match its seal; it was edited or damaged")
    try:
        found_document: Document = records.decode(Document, plain)
    except OverflowError:
        raise _damaged(name, "it holds a number that is too large") from None
    return found_document


def digest(document: Document) -> str:
    """Return the SHA-256 of the file's bytes."""
    return hashlib.sha256(encode(document)).hexdigest()


class _NoNumberError(ValueError):
    """A file holds NaN or infinity."""


def _number(text: str) -> float:
    found = float(text)
    return found if isfinite(found) else _no_number(text)


def _no_number(word: str) -> NoReturn:
    raise _NoNumberError(f"it holds {word[:40]}, which is no number")


def _seal(plain: Mapping[str, Any]) -> str:
    body = json.dumps(dict(plain) | {"seal": ""}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def _damaged(name: str, label: str) -> UserError:
    message = "the calibration file is damaged"
    return fail("E0730", message, whole_file(name), label=label, help="calibrate again")
