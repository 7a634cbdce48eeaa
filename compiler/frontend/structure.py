"""The structural check of a file against the language's schema, with every error located."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import jsonschema
from jsonschema.exceptions import ValidationError

from tcc.compiler.frontend import foreign_names, forms
from tcc.compiler.frontend.arguments import unknown_argument
from tcc.compiler.frontend.library import CONTROL, JOIN_WORDS, WORDS
from tcc.compiler.frontend.schema import schema
from tcc.compiler.frontend.yaml import Mapping, Sequence, Tree, at, key_at, plain
from tcc.compiler.source import Diagnostic, Span

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A part that is wrong, by its path, and the place to tell of; `explain` says what is wrong.

    The explanation may be none, where that of another fault says it too.
    """

    path: Path
    at: Span
    explain: Callable[[], Iterable[Diagnostic]]


def _defined(_: Any, ref: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    """Check against a part of the schema; the library looks each up anew, which takes longer."""
    return cast(
        "Iterator[ValidationError]", _validator(ref.removeprefix("#/$defs/")).iter_errors(instance)
    )


@cache
def _validator(part: str) -> Any:
    extend = cast("Callable[..., Any]", jsonschema.validators.extend)
    checked = extend(jsonschema.Draft202012Validator, {"$ref": _defined})
    return checked(schema()["$defs"][part])


def check_structure(tree: Mapping, part: str) -> list[Fault]:
    """Return every structural error of a `spec` or a `library`, in the order of the text."""
    found: list[Fault] = []
    graph = tree.key("graph")
    if part == "library" and graph is not None:
        help = "move its blocks to a file that holds `tcc:` and `blocks:` alone"
        message = "a spec with a graph cannot be used as a library"
        return [
            Fault((), graph.span, lambda: [Diagnostic("E0202", message, graph.span, help=help)])
        ]
    for error in _validator(part).iter_errors(plain(tree)):
        found += _faults(tree, error)
    return sorted(found, key=lambda fault: (fault.at.line, fault.at.column))


def _faults(tree: Mapping, error: ValidationError) -> Iterator[Fault]:
    path = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known = tuple(_rules(error).get("properties", {}))
        for key in cast("dict[str, Any]", error.instance):
            if key not in known:
                place = key_at(tree, path, key)
                yield Fault(path, place, partial(_unknown_key, path, key, known, place))
    else:
        yield Fault(path, at(tree, path), partial(_explain, tree, error))


def enclosing_step(tree: Tree, path: Path) -> Tree | None:
    """Return the innermost element of a list of steps on the way to a path."""
    found: Tree | None = None
    where: Tree | None = tree
    for index, key in enumerate(path):
        holder = path[index - 1] if index else ""
        match where:
            case Sequence(items=items) if isinstance(key, int):
                where = items[key]
                branch = index > 1 and isinstance(holder, int)
                if holder in ("graph", "body", "then", "else", "seq", "branch") or branch:
                    found = where
            case Mapping():
                where = where.get(str(key))
            case _:
                break
    return found


def _explain(tree: Mapping, error: ValidationError) -> Iterator[Diagnostic]:
    path = tuple(error.absolute_path)
    span = at(tree, path)
    match error.validator:
        case "required":
            yield from _missing_keys(tree, error, path, span)
        case "type":
            help = forms.of_type(path, error.instance, _rules(error), span)
            label = _found(error.instance)
            yield Diagnostic("E0204", _expected(path, error), span, label=label, help=help)
        case "enum" | "const":
            yield _not_among(error, path, span)
        case "pattern":
            yield _bad_name(tree, error, path, span)
        case _:
            shape = path[:1] == ("input",) and path[-1] == "shape"
            help = forms.of_shape(cast("list[object]", error.instance)) if shape else ""
            yield Diagnostic("E0204", f"{_label(path)} {_count(error)}", span, help=help)


def _bad_name(tree: Mapping, error: ValidationError, path: Path, span: Span) -> Diagnostic:
    help = "names are letters, digits and _, and do not begin with a digit"
    if path == ("name",):
        help = "a network's name is a letter, then up to 63 letters, digits, _ . and -"
    is_key = "propertyNames" in error.absolute_schema_path
    place = key_at(tree, path, str(error.instance)) if is_key else span
    return Diagnostic("E0206", f"`{_short(error.instance)}` cannot be a name", place, help=help)


def _rules(error: ValidationError) -> dict[str, Any]:
    """Return the part of the schema that was broken."""
    return dict(cast("dict[str, Any]", error.schema))


def _label(path: Path) -> str:
    names = [p for p in path if isinstance(p, str)]
    return f"`{names[-1]}`" if names else "this"


def _unknown_key(path: Path, key: str, known: tuple[str, ...], span: Span) -> list[Diagnostic]:
    if not path:
        help = foreign_names.key(key, known).help or f"keys are {', '.join(known)}"
        what = "spec" if "graph" in known else "library"
        return [Diagnostic("E0202", f"a {what} has no key `{_short(key)}`", span, help=help)]
    holder = next((p for p in reversed(path) if isinstance(p, str)), "")
    in_step = holder in WORDS or holder in CONTROL
    if holder in JOIN_WORDS and (help := forms.in_join(holder, key)):
        return [Diagnostic("E0202", f"`{holder}` has no argument `{key}`", span, help=help)]
    return [unknown_argument(holder, key, known, span, "argument" if in_step else "key")]


def _missing_keys(
    tree: Mapping, error: ValidationError, path: Path, span: Span
) -> Iterator[Diagnostic]:
    names = [p for p in path if isinstance(p, str)]
    at_key = key_at(tree, path[:-1], names[-1]) if names and path[-1] == names[-1] else span
    # jsonschema reports each missing key by itself, naming it only in its message
    rules = _rules(error)
    missing = [k for k in rules["required"] if error.message.startswith(f"'{k}' ")]
    given = cast("dict[str, Any]", error.instance)
    known = tuple(rules["properties"])
    meant = foreign_names.argument if path else foreign_names.key
    misspelt = {meant(k, known).ours for k in given if k not in known}
    if names and names[-1] in JOIN_WORDS and any(forms.in_join(names[-1], k) for k in given):
        return  # which is said of that key
    for key in missing:
        if key in misspelt:  # which is said of the misspelt key
            continue
        what = f"`{names[-1]}`" if names else "a spec" if "graph" in known else "a library"
        yield Diagnostic("E0215", f"{what} needs `{key}`", at_key, help=f"add `{key}:`")


_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "an expression",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _expected(path: Path, error: ValidationError) -> str:
    types = _rules(error)["type"]
    wanted = [types] if isinstance(types, str) else list(types)
    words = [_WORDS[t] for t in wanted if t != "null"]
    if wanted == ["string"]:
        words = ["text"]
    if wanted == ["string", "object"]:
        words = ["a word such as `relu`", "a mapping such as `conv: {...}`"]
    if wanted == ["array", "string"] and _rules(error).get("items", {}).get("$ref"):
        words = ["a list of steps", "the name of a value"]
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return f"{_subject(path, error, wanted)} must be {listed}"


def _subject(path: Path, error: ValidationError, wanted: list[str]) -> str:
    """Return what it is that has the wrong type."""
    if wanted == ["string", "object"]:
        return "a step"
    if wanted == ["array", "string"] and _rules(error).get("items", {}).get("$ref"):
        return "a branch"
    return _label(path)


def _found(value: object) -> str:
    match value:
        case None:
            return "this is empty"
        case bool():
            return f"this is {str(value).lower()}"
        case dict():
            return "this is a mapping"
        case list():
            return "this is a list"
        case str():
            return "this is text"
        case _:
            return f"this is {_short(value)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _not_among(error: ValidationError, path: Path, span: Span) -> Diagnostic:
    if error.validator == "const":
        return Diagnostic(
            "E0209",
            f"{_label(path)} must be {_rules(error)['const']}",
            span,
            label=f"this is {_short(error.instance)}",
            help="this version of tcc reads version 1 of the language",
        )
    choices = [str(c) for c in _rules(error)["enum"]]
    help = foreign_names.value(str(error.instance), tuple(choices)).help
    return Diagnostic(
        "E0213", f"{_label(path)} must be one of {', '.join(choices)}", span, help=help
    )


def _count(error: ValidationError) -> str:
    bounds = _rules(error)
    many = {
        "minItems": ("at least", "entries"),
        "maxItems": ("at most", "entries"),
        "minProperties": ("at least", "keys"),
        "maxProperties": ("at most", "keys"),
    }
    bound, noun = many[str(error.validator)]
    limit = bounds[str(error.validator)]
    singular = {"entries": "entry", "keys": "key"}[noun]
    if bounds.get("minItems") == bounds.get("maxItems") == limit:
        bound = "exactly"
    return f"needs {bound} {limit} {noun if limit != 1 else singular}"
