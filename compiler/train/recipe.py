"""Read and write recipes: YAML files with the settings of a training.

The records define the format. The schema, the reader and docs/training.md are generated from them.
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
from tcc.compiler.frontend.schema_validation import Path as TreePath
from tcc.compiler.frontend.schema_validation import SchemaViolation, find_violations
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, find_key_span, find_span
from tcc.compiler.support import json_records, regular_files
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, find_nearest_name
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
"""Maximum size of a recipe in bytes."""

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
"""JSON Schema types of plain fields."""


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes; optional keys are omitted, never null."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tcc recipe"}
    return head | _build_object_schema(Recipe)


def _build_object_schema(record: type) -> dict[str, Any]:
    """Return the schema of a section; a field's limits and description are its metadata."""
    hints = get_type_hints(record)
    record_fields = fields(record)
    return {
        "type": "object",
        "properties": {
            f.name: _build_type_schema(hints[f.name]) | dict(f.metadata) for f in record_fields
        },
        "required": [f.name for f in record_fields if f.default is f.default_factory is MISSING],
        "additionalProperties": False,
    }


def _build_type_schema(hint: Any) -> dict[str, Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        return _build_object_schema(hint)
    arguments = get_args(hint)
    match get_origin(hint):
        case None:
            return {"type": _JSON_TYPES[hint]}
        case typing.Literal:
            return {"enum": list(arguments)}
        case types.UnionType | typing.Union:
            # A record's `None` means an omitted key; `augment: null` would be a second spelling.
            return _build_type_schema(arguments[0])
        case builtins.tuple:
            return {"type": "array", "items": _build_type_schema(arguments[0])}
        case _:
            return {"type": "object", "additionalProperties": _build_type_schema(arguments[1])}


def find_recipe(name: str, at: Span) -> Path:
    """Return the recipe file for a path or the name of a recipe of the package.

    Raises:
        UserError: There is no such recipe (E1220).
    """
    path = Path(name)
    shipped_recipes = shipped.list_recipes()
    # A NUL character in a name would cause an error of the operating system, without a location.
    if name not in shipped_recipes and "\0" not in name and not path.is_dir() and path.exists():
        return path
    if name in shipped_recipes:
        return shipped_recipes[name]
    help = f"known recipes: {', '.join(shipped_recipes)}"
    raise fail("E1220", f"there is no recipe `{name[:80]}`", at, help=help)


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a file.

    Raises:
        UserError: The file cannot be read (E0603), is not YAML (E01..), or is not a valid recipe
            (E1220 to E1223). All errors are reported, each with its location.
    """
    content = regular_files.read_file(path, "read the recipe", MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise fail(
            "E1220", f"the recipe is larger than {MAX_BYTES >> 10} KiB", Span(str(path), 0, 0)
        )
    return parse_recipe(content, str(path))


def parse_recipe(text: str | bytes, file: str) -> Recipe:
    """Return the recipe of a YAML text; `file` is its name in errors.

    Raises:
        UserError: As for `read_recipe`.
    """
    tree = yaml.parse(text, file)
    if not isinstance(tree, yaml.Mapping):
        raise fail(
            "E1220",
            "a recipe must be a mapping of keys",
            tree.span,
            help="start with `tcc_recipe: 1`",
        )
    document = yaml.to_plain(tree)
    problems = [
        d for b in find_violations(document, build_schema(), {}) for d in explain_breach(tree, b)
    ]
    problems += [*_find_nonfinite(tree), *find_unused_keys(tree)]
    if problems:
        # One mistake in a key may violate several rules of the schema.
        unique = {(d.code, d.at): d for d in problems}
        raise UserError(tuple(sorted(unique.values(), key=lambda d: (d.at.line, d.at.column))))
    # Not strict, because 1.0 is an integer for the schema.
    recipe = msgspec.convert(document, Recipe, strict=False)
    if bound_problems := tuple(_check_augmentation(tree, recipe)):
        raise UserError(bound_problems)
    return recipe


def _check_augmentation(tree: yaml.Mapping, recipe: Recipe) -> Iterator[Diagnostic]:
    """Yield an error for each augmentation that is out of bounds (E1215)."""
    if recipe.augment is None:
        return
    for keys, message, help in recipe_records.find_out_of_bounds(recipe.augment):
        yield Diagnostic("E1215", message, yaml.find_span(tree, ("augment", *keys)), help=help)


def _find_nonfinite(tree: yaml.Tree) -> Iterator[Diagnostic]:
    """Yield an error for each NaN and infinity."""
    match tree:
        case yaml.Scalar(value=float() as value, span=span) if not isfinite(value):
            yield Diagnostic("E1222", "this must be a finite number", span)
        case yaml.Sequence(items=items):
            for child in items:
                yield from _find_nonfinite(child)
        case yaml.Mapping(items=pairs):
            for _, child in pairs:
                yield from _find_nonfinite(child)


def render_json(recipe: Recipe) -> str:
    """Return a recipe as JSON, with the values of all keys that have an effect.

    The text is canonical. JSON is valid YAML, so `parse_recipe` reads it back.
    """
    document = json_records.encode(recipe)
    if recipe.sampling == "shuffled":  # as in recipes from before this key existed
        del document["sampling"]
    for section, keys in CONDITIONAL_KEYS.items():
        for key, (selector, choices) in keys.items():
            if document[section][selector] not in choices:
                # Omit keys without effect, so that equivalent recipes have the same digest.
                del document[section][key]
    return json.dumps(_remove_nulls(document), indent=1, ensure_ascii=False) + "\n"


def _remove_nulls(section: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _remove_nulls(v) if isinstance(v, dict) else v for k, v in section.items()}
    return {key: value for key, value in inner.items() if value is not None}


def digest(recipe: Recipe) -> str:
    """Return the SHA-256 of a recipe's canonical JSON."""
    return hashlib.sha256(render_json(recipe).encode()).hexdigest()


CONDITIONAL_KEYS: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {
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
"""Keys that have an effect only for some values of another key, by section."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "learning_rate": get_args(Schedule),
    "optimizer": get_args(OptimizerKind),
    "loss": get_args(LossKind),
}
"""The possible values of that other key."""
DEFAULT_CHOICES = {
    "learning_rate": LearningRate().schedule,
    "optimizer": Optimizer().kind,
    "loss": Loss().kind,
}
"""Its default value."""
_KINDS = {
    "integer": "an integer",
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


def explain_breach(tree: MappingTree, breach: SchemaViolation) -> Iterator[Diagnostic]:
    """Yield the errors for a violation of the schema (E1221, E1222)."""
    path = breach.path
    name = next((str(p) for p in reversed(path) if isinstance(p, str)), "this")
    span = find_span(tree, path)
    match breach.keyword:
        case "additionalProperties":
            yield from _explain_unknown_keys(tree, breach, path)
        case "required":
            help = f"add `{breach.missing}: 1`"
            yield Diagnostic("E1222", f"a recipe needs `{breach.missing}`", span, help=help)
        case "type":
            expected = _KINDS[breach.rules["type"]]
            yield Diagnostic("E1222", f"`{name}` must be {expected}", span)
        case "enum":
            choices = breach.rules["enum"]
            suggestion = find_nearest_name(str(breach.value), choices)
            help = f"did you mean `{suggestion}`?" if suggestion else ""
            message = f"`{name}` must be one of {', '.join(choices)}"
            yield Diagnostic("E1222", message, span, help=help)
        case "const":
            message = f"`{name}` must be {breach.rules['const']}"
            help = f"this version of tcc reads recipes of version {breach.rules['const']}"
            yield Diagnostic("E1222", message, span, help=help)
        case "minItems" | "maxItems":
            count = breach.rules[breach.keyword]
            bound_text = "at least" if breach.keyword == "minItems" else "at most"
            yield Diagnostic("E1222", f"`{name}` must have {bound_text} {count} entries", span)
        case bound:
            message = f"`{name}` must be {_BOUNDS[bound]} {breach.rules[bound]}"
            yield Diagnostic("E1222", message, span)


def _explain_unknown_keys(
    tree: MappingTree, breach: SchemaViolation, path: TreePath
) -> Iterator[Diagnostic]:
    valid_keys = tuple(breach.rules.get("properties", {}))
    holder = f"`{path[-1]}`" if path else "a recipe"
    for key in breach.value:
        if key not in valid_keys:
            suggestion = find_nearest_name(str(key), valid_keys)
            help = (
                f"did you mean `{suggestion}`?"
                if suggestion
                else f"its keys are {', '.join(valid_keys)}"
            )
            message = f"{holder} has no key `{str(key)[:80]}`"
            yield Diagnostic("E1221", message, find_key_span(tree, path, str(key)), help=help)


def find_unused_keys(tree: MappingTree) -> Iterator[Diagnostic]:
    """Yield an error for each key without effect (E1223)."""
    for section, keys in CONDITIONAL_KEYS.items():
        inner = tree.get(section)
        for key, (selector, choices) in keys.items() if isinstance(inner, MappingTree) else ():
            assert isinstance(inner, MappingTree)
            selector_node = inner.get(selector)
            # An omitted key has its default value.
            choice = (
                selector_node.value
                if isinstance(selector_node, Scalar)
                else DEFAULT_CHOICES[section]
            )
            key_node = inner.get_key(key)
            if key_node is not None and choice in CHOICES[section] and choice not in choices:
                message = f"`{key}` has no effect if `{selector}` is {str(choice)[:40]}"
                help = (
                    f"it is for {' and '.join(choices)}; remove it, or choose another `{selector}`"
                )
                yield Diagnostic("E1223", message, key_node.span, help=help)
