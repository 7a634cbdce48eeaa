"""A recipe: how a network is trained, as a YAML file says it.

The records are its whole definition: the schema, the reader and docs/training.md are made of them.
"""

import builtins
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from tcc.compiler.frontend import yaml
from tcc.compiler.frontend.schema_validation import Breach, breaches
from tcc.compiler.frontend.schema_validation import Path as TreePath
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, at, key_at
from tcc.compiler.support import json_records, regular_files
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, nearest
from tcc.compiler.train import recipe_records
from tcc.compiler.train.recipe_records import (
    LearningRate,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Recipe,
    Schedule,
)
from tcc.compiler.zoo import shipped

MAX_BYTES = 1 << 16
"""Largest recipe that is read."""

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
"""The types of plain fields, in JSON Schema's words."""


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
    data = regular_files.read_file(path, "read the recipe", MAX_BYTES + 1)
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
    found = [d for b in breaches(plain, schema(), {}) for d in told(tree, b)]
    found += [*_no_numbers(tree), *out_of_place(tree)]
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
    for keys, message, help in recipe_records.out_of_bounds(made.augment):
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
    for section, keys in ONLY.items():
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


ONLY: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "learning_rate": {
        "final": ("schedule", ("cosine",)),
        "decay": ("schedule", ("exponential", "steps")),
        "at_epochs": ("schedule", ("steps",)),
    },
    "optimizer": {
        "momentum": ("kind", ("sgd",)),
        "nesterov": ("kind", ("sgd",)),
        "beta1": ("kind", ("adam", "adamw")),
        "beta2": ("kind", ("adam", "adamw")),
    },
    "loss": {
        "label_smoothing": ("kind", ("cross_entropy",)),
        "gamma": ("kind", ("focal", "attention")),
        "alpha": ("kind", ("focal", "attention")),
        "positive": ("kind", ("focal", "attention")),
    },
}
"""Keys of sections that mean something for some choices of another key alone."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "learning_rate": get_args(Schedule),
    "optimizer": get_args(OptimizerKind),
    "loss": get_args(LossKind),
}
"""What that other key may choose."""
CHOSEN = {
    "learning_rate": LearningRate().schedule,
    "optimizer": Optimizer().kind,
    "loss": Loss().kind,
}
"""What is chosen where it is left out."""
_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys",
}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def told(tree: MappingTree, breach: Breach) -> Iterator[Diagnostic]:
    """Yield what a breach of the schema means (E1221, E1222)."""
    path = breach.path
    name = next((str(p) for p in reversed(path) if isinstance(p, str)), "this")
    here = at(tree, path)
    match breach.keyword:
        case "additionalProperties":
            yield from _unknown(tree, breach, path)
        case "required":
            help = f"add `{breach.missing}: 1`"
            yield Diagnostic("E1222", f"a recipe needs `{breach.missing}`", here, help=help)
        case "type":
            wanted = _KINDS[breach.rules["type"]]
            yield Diagnostic("E1222", f"`{name}` must be {wanted}", here)
        case "enum":
            words = breach.rules["enum"]
            close = nearest(str(breach.value), words)
            help = f"did you mean `{close}`?" if close else ""
            message = f"`{name}` must be one of {', '.join(words)}"
            yield Diagnostic("E1222", message, here, help=help)
        case "const":
            message = f"`{name}` must be {breach.rules['const']}"
            help = "this tcc reads version 1 of recipes"
            yield Diagnostic("E1222", message, here, help=help)
        case "minItems" | "maxItems":
            count = breach.rules[breach.keyword]
            few = "at least" if breach.keyword == "minItems" else "at most"
            yield Diagnostic("E1222", f"`{name}` must have {few} {count} entries", here)
        case bound:
            message = f"`{name}` must be {_BOUNDS[bound]} {breach.rules[bound]}"
            yield Diagnostic("E1222", message, here)


def _unknown(tree: MappingTree, breach: Breach, path: TreePath) -> Iterator[Diagnostic]:
    known = tuple(breach.rules.get("properties", {}))
    holder = f"`{path[-1]}`" if path else "a recipe"
    for key in breach.value:
        if key not in known:
            close = nearest(str(key), known)
            help = f"did you mean `{close}`?" if close else f"its keys are {', '.join(known)}"
            message = f"{holder} has no key `{str(key)[:80]}`"
            yield Diagnostic("E1221", message, key_at(tree, path, str(key)), help=help)


def out_of_place(tree: MappingTree) -> Iterator[Diagnostic]:
    """Yield an error for each key that what is chosen beside it has no use for (E1223)."""
    for section, keys in ONLY.items():
        inner = tree.get(section)
        for key, (word, choices) in keys.items() if isinstance(inner, MappingTree) else ():
            assert isinstance(inner, MappingTree)
            said = inner.get(word)
            # What the recipe leaves out is chosen too: by its default.
            chosen = said.value if isinstance(said, Scalar) else CHOSEN[section]
            given = inner.key(key)
            if given is not None and chosen in CHOICES[section] and chosen not in choices:
                message = f"`{key}` means nothing where `{word}` is {str(chosen)[:40]}"
                help = f"it is for {' and '.join(choices)}; remove it, or choose another `{word}`"
                yield Diagnostic("E1223", message, given.span, help=help)
