"""The structural check of a file against the language's schema, with every error located."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from tcc.compiler.frontend import foreign_names, suggestions
from tcc.compiler.frontend.block_library import CONTROL, JOIN_WORDS, WORDS
from tcc.compiler.frontend.language_schema import schema
from tcc.compiler.frontend.schema_validation import Breach, Path, breaches
from tcc.compiler.frontend.step_syntax import unknown_argument
from tcc.compiler.frontend.yaml import Mapping, Sequence, Tree, at, key_at, plain
from tcc.compiler.support.diagnostics import MANY_NAMES, Diagnostic, Span


@dataclass(frozen=True, slots=True)
class Fault:
    """A part that is wrong, by its path, and the place to tell of; `explain` says what is wrong.

    The explanation may be none, where that of another fault says it too.
    """

    path: Path
    at: Span
    explain: Callable[[], Iterable[Diagnostic]]


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
    shared = schema()["$defs"]
    # As a spec or as a library, as the file is used: the schema's own `if` would guess by its keys.
    for breach in breaches(plain(tree), shared[part], shared):
        found += _faults(tree, breach)
    return sorted(found, key=lambda fault: (fault.at.line, fault.at.column))


def _faults(tree: Mapping, breach: Breach) -> Iterator[Fault]:
    path = breach.path
    if breach.keyword == "additionalProperties":
        known = tuple(breach.rules.get("properties", {}))
        for key in breach.value:
            if key not in known:
                place = key_at(tree, path, key)
                yield Fault(path, place, partial(_unknown_key, path, key, known, place))
    else:
        yield Fault(path, at(tree, path), partial(_explain, tree, breach))


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
                # Lists of steps by the keys that hold them, and branches as lists within a join's
                # list.
                if holder in ("graph", "body", "then", "else", "seq", "branch") or branch:
                    found = where
            case Mapping():
                where = where.get(str(key))
            case _:
                break
    return found


def _explain(tree: Mapping, breach: Breach) -> Iterator[Diagnostic]:
    path = breach.path
    span = at(tree, path)
    match breach.keyword:
        case "required":
            yield from _missing_keys(tree, breach, path, span)
        case "type":
            help = suggestions.of_type(path, breach.value, breach.rules, span)
            label = _found(breach.value)
            yield Diagnostic("E0204", _expected(path, breach), span, label=label, help=help)
        case "enum" | "const":
            yield _not_among(breach, path, span)
        case "pattern":
            yield _bad_name(tree, breach, path, span)
        case _:
            shape = path[:1] == ("input",) and path[-1] == "shape"
            help = suggestions.of_shape(breach.value) if shape else ""
            yield Diagnostic("E0204", f"{_label(path)} {_count(breach)}", span, help=help)


def _bad_name(tree: Mapping, breach: Breach, path: Path, span: Span) -> Diagnostic:
    help = "names are letters, digits and _, and do not begin with a digit"
    if path == ("name",):
        help = "a network's name is a letter, then up to 63 letters, digits, _ . and -"
    place = key_at(tree, path, str(breach.value)) if breach.of_key else span
    return Diagnostic("E0206", f"`{_short(breach.value)}` cannot be a name", place, help=help)


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
    if holder in JOIN_WORDS and (help := suggestions.in_join(holder, key)):
        return [Diagnostic("E0202", f"`{holder}` has no argument `{key}`", span, help=help)]
    return [unknown_argument(holder, key, known, span, "argument" if in_step else "key")]


def _missing_keys(tree: Mapping, breach: Breach, path: Path, span: Span) -> Iterator[Diagnostic]:
    names = [p for p in path if isinstance(p, str)]
    at_key = key_at(tree, path[:-1], names[-1]) if names and path[-1] == names[-1] else span
    known, missing = tuple(breach.rules["properties"]), breach.missing
    meant = foreign_names.argument if path else foreign_names.key
    others = [key for key in breach.value if key not in known][:MANY_NAMES]
    if names and names[-1] in JOIN_WORDS and any(suggestions.in_join(names[-1], k) for k in others):
        return  # which is said of that key
    if names and names[-1] == "each" and suggestions.counts(breach.value.get("of")):
        return  # which is said of that number
    if any(meant(key, known).ours == missing for key in others):
        return  # which is said of the misspelt key
    what = f"`{names[-1]}`" if names else "a spec" if "graph" in known else "a library"
    yield Diagnostic("E0215", f"{what} needs `{missing}`", at_key, help=f"add `{missing}:`")


_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "an expression",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _expected(path: Path, breach: Breach) -> str:
    types = breach.rules["type"]
    wanted = [types] if isinstance(types, str) else list(types)
    words = [_WORDS[t] for t in wanted if t != "null"]
    if wanted == ["string"]:
        words = ["text"]
    if wanted == ["string", "object"]:
        words = ["a word such as `relu`", "a mapping such as `conv: {...}`"]
    if wanted == ["array", "string"] and breach.rules.get("items", {}).get("$ref"):
        words = ["a list of steps", "the name of a value"]
    listed = " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return f"{_subject(path, breach, wanted)} must be {listed}"


def _subject(path: Path, breach: Breach, wanted: list[str]) -> str:
    """Return a name for the value that has the wrong type."""
    if wanted == ["string", "object"]:
        return "a step"
    if wanted == ["array", "string"] and breach.rules.get("items", {}).get("$ref"):
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


def _not_among(breach: Breach, path: Path, span: Span) -> Diagnostic:
    if breach.keyword == "const":
        return Diagnostic(
            "E0209",
            f"{_label(path)} must be {breach.rules['const']}",
            span,
            label=f"this is {_short(breach.value)}",
            help="this version of tcc reads version 1 of the language",
        )
    choices = [str(c) for c in breach.rules["enum"]]
    help = foreign_names.value(str(breach.value), tuple(choices)).help
    return Diagnostic(
        "E0213", f"{_label(path)} must be one of {', '.join(choices)}", span, help=help
    )


def _count(breach: Breach) -> str:
    bounds = breach.rules
    many = {
        "minItems": ("at least", "entries"),
        "maxItems": ("at most", "entries"),
        "minProperties": ("at least", "keys"),
        "maxProperties": ("at most", "keys"),
    }
    bound, noun = many[breach.keyword]
    limit = bounds[breach.keyword]
    singular = {"entries": "entry", "keys": "key"}[noun]
    if bounds.get("minItems") == bounds.get("maxItems") == limit:
        bound = "exactly"
    return f"needs {bound} {limit} {noun if limit != 1 else singular}"
