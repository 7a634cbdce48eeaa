"""A recipe: how a network is trained, as a YAML file says it.

The records are its whole definition: the schema, the reader and docs/training.md are made of them.
"""

import builtins
import hashlib
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from tcc.compiler.frontend import yaml
from tcc.compiler.frontend.schema_validation import breaches
from tcc.compiler.support import atomic_files, json_records, regular_files
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail
from tcc.compiler.train import augmentation_record, recipe_errors
from tcc.compiler.train.augmentation_record import Augmentation
from tcc.compiler.train.learning_rate import LearningRate
from tcc.compiler.train.losses import Loss
from tcc.compiler.train.mixup import Mixup
from tcc.compiler.train.optimizers import Optimizer
from tcc.compiler.zoo import shipped

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
VERSION = 1
MAX_EPOCHS, MAX_BATCH = 100_000, 65_536
MAX_BYTES = 1 << 16
"""Largest recipe that is read."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a recipe says; what it leaves out has the defaults that stand here."""

    tcc_recipe: int = field(
        metadata={"const": VERSION, "description": "The version of this language, 1."}
    )
    doc: str = field(default="", metadata={"description": "What the recipe is for."})
    initial_weights: Literal["he"] | None = field(
        default=None,
        metadata={
            "description": "What a training without `--weights` begins with. `he` keeps a signal's "
            "size through ReLU: for networks without batch norm, which hardly learn with what "
            "PyTorch's layers begin with, and what is taken where this is left out."
        },
    )
    epochs: int = field(
        default=100,
        metadata={
            "minimum": 1,
            "maximum": MAX_EPOCHS,
            "description": "How often each training image is seen; `--epochs` goes before it.",
        },
    )
    batch: int = field(
        default=64,
        metadata={
            "minimum": 1,
            "maximum": MAX_BATCH,
            "description": "Images of a step, over all processes together.",
        },
    )
    sampling: Literal["shuffled", "balanced"] = field(
        default="shuffled",
        metadata={
            "default": "shuffled",
            "description": "Whether an epoch has each image once, or as many images of each class: "
            "those of small classes then come several times, of large ones some not at all.",
        },
    )
    last_batch: Literal["drop", "wrap"] = field(
        default="drop",
        metadata={
            "description": "What becomes of the images that fill no batch: an epoch leaves them "
            "out, or fills up with its first ones. Where all fill none, they are repeated."
        },
    )
    augment: Augmentation | None = field(
        default=None,
        metadata={"description": "How training images are changed, each time another way."},
    )
    mixup: Mixup | None = field(
        default=None,
        metadata={"description": "How images of a batch are blended, with their classes."},
    )
    loss: Loss = field(default=Loss(), metadata={"description": "What is made small."})
    optimizer: Optimizer = field(
        default=Optimizer(), metadata={"description": "How the weights follow the gradients."}
    )
    learning_rate: LearningRate = field(
        default=LearningRate(), metadata={"description": "How far they go in a step."}
    )
    clip_norm: float | None = field(
        default=None,
        metadata={
            "exclusiveMinimum": 0,
            "description": "The largest norm of all gradients together.",
        },
    )
    average: float | None = field(
        default=None,
        metadata={
            "minimum": 0,
            "exclusiveMaximum": 1,
            "description": "The decay in a step of the weights' moving average (EMA), which is "
            "judged and kept in their place.",
        },
    )
    precision: Literal["auto", "fp32", "bf16"] = field(
        default="auto",
        metadata={
            "description": "The type of the layers' arithmetic where PyTorch's autocast has it; "
            "weights, norms and losses stay float32. `auto` is bf16 where the processor "
            "multiplies it, else fp32."
        },
    )
    channels_last: bool = field(
        default=True, metadata={"description": "Whether channels lie innermost in memory."}
    )
    keep: Literal["last", "best"] = field(
        default="last",
        metadata={
            "description": "Which weights are kept: the last, or those of the epoch that did best "
            "on the validation images."
        },
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes; what may be left out is left out, and never null."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tcc recipe"}
    return head | _object_schema(Recipe)


def _object_schema(record: type) -> dict[str, Any]:
    """Return the schema of a section; a field's limits and description are its metadata."""
    hints = get_type_hints(record)
    own = fields(record)
    return {
        "type": "object",
        "properties": {f.name: _type_schema(hints[f.name]) | dict(f.metadata) for f in own},
        "required": [f.name for f in own if f.default is f.default_factory is MISSING],
        "additionalProperties": False,
    }


def _type_schema(hint: Any) -> dict[str, Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        return _object_schema(hint)
    arguments = get_args(hint)
    match get_origin(hint):
        case None:
            return {"type": _PLAIN[hint]}
        case typing.Literal:
            return {"enum": list(arguments)}
        case types.UnionType | typing.Union:
            # A record's `None` means that a key is left out; `augment: null` would be a second way
            # to say so.
            return _type_schema(arguments[0])
        case builtins.tuple:
            return {"type": "array", "items": _type_schema(arguments[0])}
        case _:
            return {"type": "object", "additionalProperties": _type_schema(arguments[1])}


def find(name: str, at: Span) -> Path:
    """Return the file that a user calls `name`: a path, or the name of a recipe of the package.

    Raises:
        UserError: There is none (E1220).
    """
    path = Path(name)
    known = shipped.recipes()
    # A null in a name would be an error of the operating system's, without a place.
    if name not in known and "\0" not in name and not path.is_dir() and path.exists():
        return path
    if name in known:
        return known[name]
    help = f"known recipes: {', '.join(known)}"
    raise fail("E1220", f"there is no recipe `{name[:80]}`", at, help=help)


def read(path: Path) -> Recipe:
    """Return the recipe of a file.

    Raises:
        UserError: It cannot be read (E0603), is no YAML (E01..), or does not say a recipe (E1220
            to E1223), every mistake located.
    """
    try:
        with regular_files.opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise atomic_files.explain(error, path, "read the recipe") from error
    if len(data) > MAX_BYTES:
        raise fail("E1220", "the recipe is too large", Span(str(path), 0, 0))
    return parse(data, str(path))


def parse(text: str | bytes, file: str) -> Recipe:
    """Return the recipe that a text says; `file` names it in errors.

    Raises:
        UserError: As for `read`.
    """
    tree = yaml.parse(text, file)
    if not isinstance(tree, yaml.Mapping):
        raise fail("E1220", "a recipe is a mapping of keys", tree.span, help="begin: tcc_recipe: 1")
    plain = yaml.plain(tree)
    found = [d for b in breaches(plain, schema(), {}) for d in recipe_errors.told(tree, b)]
    found += [*_no_numbers(tree), *recipe_errors.out_of_place(tree)]
    if found:
        # One key may break several rules of the schema by the same mistake.
        unique = {(d.code, d.at): d for d in found}
        raise UserError(tuple(sorted(unique.values(), key=lambda d: (d.at.line, d.at.column))))
    # Not strictly: to the schema 1.0 is an integer.
    made = msgspec.convert(plain, Recipe, strict=False)
    if wrong := tuple(_augment(tree, made)):
        raise UserError(wrong)
    return made


def _augment(tree: yaml.Mapping, made: Recipe) -> Iterator[Diagnostic]:
    """Yield an error for each change of images that is out of bounds (E1215)."""
    if made.augment is None:
        return
    for keys, message, help in augmentation_record.out_of_bounds(made.augment):
        yield Diagnostic("E1215", message, yaml.at(tree, ("augment", *keys)), help=help)


def _no_numbers(tree: yaml.Tree) -> Iterator[Diagnostic]:
    """Yield an error for each NaN and infinity."""
    match tree:
        case yaml.Scalar(value=float() as value, span=span) if not isfinite(value):
            yield Diagnostic("E1222", "this must be a finite number", span)
        case yaml.Sequence(items=items):
            for one in items:
                yield from _no_numbers(one)
        case yaml.Mapping(items=pairs):
            for _, one in pairs:
                yield from _no_numbers(one)


def text(recipe: Recipe) -> str:
    """Return a recipe as JSON, which YAML is too: every key that means something, with its value.

    The same recipe gives the same text, and `parse` gives the recipe again.
    """
    plain = json_records.encode(recipe)
    if recipe.sampling == "shuffled":  # as in recipes of before it could be chosen
        del plain["sampling"]
    for section, keys in recipe_errors.ONLY.items():
        for key, (word, choices) in keys.items():
            if plain[section][word] not in choices:
                # What means nothing is not written, so that recipes that train alike have one
                # digest.
                del plain[section][key]
    return json.dumps(_said(plain), indent=1, ensure_ascii=False) + "\n"


def _said(plain: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _said(v) if isinstance(v, dict) else v for k, v in plain.items()}
    return {key: value for key, value in inner.items() if value is not None}


def digest(recipe: Recipe) -> str:
    """Return the SHA-256 of what a recipe says."""
    return hashlib.sha256(text(recipe).encode()).hexdigest()
