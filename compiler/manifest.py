"""What a bundle says of itself: `manifest.json`, version 1.

The records below are its whole definition: the JSON Schema that reads it is made from them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from tcc.compiler import records
from tcc.compiler.preprocess import Preprocess, from_json
from tcc.compiler.source import UserError, fail, whole_file

NAME = "manifest.json"
VERSION = 1
MAX_BYTES = 4 << 20
"""Largest manifest that is read."""

_PATH = {"pattern": "^/?[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*$"}
_SHA256 = {"pattern": "^[0-9a-f]{64}$"}


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle: path below its folder, with `/`; bytes; SHA-256 in hex."""

    path: str = field(metadata=_PATH)
    bytes: int
    sha256: str = field(metadata=_SHA256)
    executable: bool


@dataclass(frozen=True, slots=True)
class Network:
    """The model as compiled: `spec` is the digest over its text, libraries and settings."""

    name: str
    doc: str
    spec: str
    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights come from; `random` ones make every prediction meaningless."""

    origin: str = field(metadata={"enum": ["file", "zoo", "random"]})
    digest: str
    file: str | None
    seed: int | None
    notice: str | None


@dataclass(frozen=True, slots=True)
class Measured:
    """Integer outputs against float ones: `where` says over which images.

    `cosine` of the raw outputs, `agreement` of the largest class, `difference` of probabilities.
    """

    where: str
    images: int
    cosine: float
    least_cosine: float
    agreement: float
    difference: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How an integer program came about: `digest` is that of its calibration file.

    `data` is the digest of the images and `images` their number; `in_float` lists the layers that
    stay in float, `inexact` those whose results a target may round differently.
    """

    method: str
    digest: str = field(metadata=_SHA256)
    data: str
    images: int
    measured: Measured | None
    in_float: tuple[str, ...]
    inexact: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """The input contract: the tensor, and how an image becomes it (None: it is no image)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    preprocess: Preprocess | None


@dataclass(frozen=True, slots=True)
class Result:
    """An output: raw values; `activation` is for whoever reads them to apply."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    activation: str = field(metadata={"enum": ["none", "softmax", "sigmoid"]})
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Golden:
    """An image's bytes, the tensor they become, and the raw outputs of the reference.

    Values are paths of the bundle's files. Tensors are little-endian, row by row, without a header.
    """

    name: str
    source: str
    image: str | None
    tensor: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a replay may be from a golden: `relative` to the output's largest magnitude."""

    relative: float
    reason: str


@dataclass(frozen=True, slots=True)
class Goldens:
    """The goldens, who computed them, and how near a replay must come."""

    executor: str
    tolerance: Tolerance
    cases: tuple[Golden, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a bundle says of itself; `seal` is the SHA-256 of the rest."""

    tcc_bundle: int = field(metadata={"const": VERSION})
    model: Network
    weights: Weights
    target: str
    precision: str
    calibration: Calibrated | None
    made_with: Mapping[str, str]
    input: Source
    outputs: tuple[Result, ...]
    goldens: Goldens
    files: tuple[File, ...]
    seal: str = ""


def sealed(manifest: Manifest) -> Manifest:
    """Return the manifest with its seal."""
    return replace(manifest, seal=_seal(records.encode(manifest)))


def encode(manifest: Manifest) -> bytes:
    """Return `manifest.json`: indented UTF-8, keys in the order of the records."""
    text = json.dumps(records.encode(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def decode(data: bytes, name: str) -> Manifest:
    """Return the manifest of the bytes of `manifest.json`; `name` stands for it in errors.

    Raises:
        UserError: It is no manifest of a version that is known, or was changed (E0621).
    """
    try:
        plain = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise _damaged(name, "it is not JSON; it may be truncated") from None
    version = plain.get("tcc_bundle") if isinstance(plain, dict) else None
    if version != VERSION:
        raise fail(
            "E0621",
            "not a bundle's manifest of a known version",
            whole_file(name),
            label=f"`tcc_bundle` is {version!r:.40}, this tcc reads {VERSION}",
        )
    _check(plain, name)
    found: Manifest = records.decode(Manifest, plain)
    return found


def _check(plain: Any, name: str) -> None:
    error = best_match(Draft202012Validator(records.schema(Manifest)).iter_errors(plain))
    if error:
        place = "/".join(map(str, error.absolute_path)) or "the whole"
        raise _damaged(name, f"{place}: {error.message[:160]}")
    if plain["seal"] != _seal(plain):
        raise _damaged(name, "its content does not match its seal; it was edited or damaged")
    try:
        if plain["input"]["preprocess"] is not None:
            from_json(plain["input"]["preprocess"])
    except ValueError as error:
        raise _damaged(name, f"input/preprocess: {error}") from None


def _seal(plain: Mapping[str, Any]) -> str:
    body = json.dumps(dict(plain) | {"seal": ""}, sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def _damaged(name: str, label: str) -> UserError:
    help = "build the bundle again"
    return fail(
        "E0621", "the bundle's manifest is damaged", whole_file(name), label=label, help=help
    )
