"""Structural check of a file against the schema of the language; every error has a location."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from tcc.compiler.frontend import framework_aliases, suggestions
from tcc.compiler.frontend.block_library import CONTROL_KEYWORDS, JOIN_NAMES, OPS_BY_NAME
from tcc.compiler.frontend.language_schema import build_schema
from tcc.compiler.frontend.schema_validation import Path, SchemaViolation, find_violations
from tcc.compiler.frontend.step_syntax import describe_unknown_argument
from tcc.compiler.frontend.yaml import Mapping, Sequence, Tree, find_key_span, find_span, to_plain
from tcc.compiler.support.diagnostics import MAX_CANDIDATES, Diagnostic, Span


@dataclass(frozen=True, slots=True)
class Fault:
    """An invalid part: its path and the location to report; `explain` returns the diagnostics.

    There may be no diagnostics if another fault explains it.
    """

    path: Path
    at: Span
    explain: Callable[[], Iterable[Diagnostic]]


def check_structure(tree: Mapping, part: str) -> list[Fault]:
    """Return every structural error of a `spec` or a `library`, in the order of the text."""
    faults: list[Fault] = []
    graph = tree.get_key("graph")
    if part == "library" and graph is not None:
        help = "move its blocks to a file with only `tcc:` and `blocks:`"
        message = "a spec with a graph cannot be used as a library"
        return [
            Fault((), graph.span, lambda: [Diagnostic("E0202", message, graph.span, help=help)])
        ]
    shared = build_schema()["$defs"]
    # The caller knows whether the file is a spec or a library; the schema's `if` would guess.
    for violation in find_violations(to_plain(tree), shared[part], shared):
        faults += _iterate_faults(tree, violation)
    return sorted(faults, key=lambda fault: (fault.at.line, fault.at.column))


def _iterate_faults(tree: Mapping, violation: SchemaViolation) -> Iterator[Fault]:
    path = violation.path
    if violation.keyword == "additionalProperties":
        known_keys = tuple(violation.rules.get("properties", {}))
        for key in violation.value:
            if key not in known_keys:
                key_span = find_key_span(tree, path, key)
                yield Fault(
                    path, key_span, partial(_explain_unknown_key, path, key, known_keys, key_span)
                )
    else:
        yield Fault(path, find_span(tree, path), partial(_explain, tree, violation))


def find_enclosing_step(tree: Tree, path: Path) -> Tree | None:
    """Return the innermost step that contains a path."""
    step: Tree | None = None
    subtree: Tree | None = tree
    for index, key in enumerate(path):
        holder = path[index - 1] if index else ""
        match subtree:
            case Sequence(items=items) if isinstance(key, int):
                subtree = items[key]
                branch = index > 1 and isinstance(holder, int)
                # Step lists are under these keys. Branches are lists within the list of a join.
                if holder in ("graph", "body", "then", "else", "seq", "branch") or branch:
                    step = subtree
            case Mapping():
                subtree = subtree.get(str(key))
            case _:
                break
    return step


def _explain(tree: Mapping, violation: SchemaViolation) -> Iterator[Diagnostic]:
    path = violation.path
    span = find_span(tree, path)
    match violation.keyword:
        case "required":
            yield from _explain_missing_keys(tree, violation, path, span)
        case "type":
            help = suggestions.explain_type_error(path, violation.value, violation.rules, span)
            label = _describe_actual_type(violation.value)
            yield Diagnostic(
                "E0204", _describe_expected_type(path, violation), span, label=label, help=help
            )
        case "enum" | "const":
            yield _describe_invalid_choice(violation, path, span)
        case "pattern":
            yield _describe_invalid_name(tree, violation, path, span)
        case _:
            shape = path[:1] == ("input",) and path[-1] == "shape"
            help = suggestions.explain_shape(violation.value) if shape else ""
            yield Diagnostic(
                "E0204", f"{_format_label(path)} {_describe_count(violation)}", span, help=help
            )


def _describe_invalid_name(
    tree: Mapping, violation: SchemaViolation, path: Path, span: Span
) -> Diagnostic:
    help = "a name has letters, digits and _, and does not start with a digit"
    if path == ("name",):
        help = "a network's name is a letter, then up to 63 letters, digits, _, . and -"
    key_span = find_key_span(tree, path, str(violation.value)) if violation.of_key else span
    return Diagnostic(
        "E0206", f"`{_trim_text(violation.value)}` cannot be a name", key_span, help=help
    )


def _format_label(path: Path) -> str:
    names = [p for p in path if isinstance(p, str)]
    return f"`{names[-1]}`" if names else "this"


def _explain_unknown_key(
    path: Path, key: str, known_keys: tuple[str, ...], span: Span
) -> list[Diagnostic]:
    if not path:
        help = (
            framework_aliases.match_key(key, known_keys).help or f"keys are {', '.join(known_keys)}"
        )
        file_kind = "spec" if "graph" in known_keys else "library"
        return [
            Diagnostic("E0202", f"a {file_kind} has no key `{_trim_text(key)}`", span, help=help)
        ]
    holder = next((p for p in reversed(path) if isinstance(p, str)), "")
    in_step = holder in OPS_BY_NAME or holder in CONTROL_KEYWORDS
    if holder in JOIN_NAMES and (help := suggestions.explain_join_key(holder, key)):
        return [Diagnostic("E0202", f"`{holder}` has no argument `{key}`", span, help=help)]
    return [
        describe_unknown_argument(holder, key, known_keys, span, "argument" if in_step else "key")
    ]


def _explain_missing_keys(
    tree: Mapping, violation: SchemaViolation, path: Path, span: Span
) -> Iterator[Diagnostic]:
    names = [p for p in path if isinstance(p, str)]
    at_key = find_key_span(tree, path[:-1], names[-1]) if names and path[-1] == names[-1] else span
    known_keys, missing = tuple(violation.rules["properties"]), violation.missing
    match_name = framework_aliases.match_argument if path else framework_aliases.match_key
    unknown_keys = [key for key in violation.value if key not in known_keys][:MAX_CANDIDATES]
    if (
        names
        and names[-1] in JOIN_NAMES
        and any(suggestions.explain_join_key(names[-1], k) for k in unknown_keys)
    ):
        return  # the unknown key is reported instead
    if names and names[-1] == "each" and suggestions.is_count(violation.value.get("of")):
        return  # the number is reported instead
    if any(match_name(key, known_keys).known_name == missing for key in unknown_keys):
        return  # the misspelt key is reported instead
    subject = f"`{names[-1]}`" if names else "a spec" if "graph" in known_keys else "a library"
    yield Diagnostic("E0215", f"{subject} needs `{missing}`", at_key, help=f"add `{missing}:`")


_TYPE_NAMES = {
    "integer": "an integer",
    "number": "a number",
    "string": "an expression",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _describe_expected_type(path: Path, violation: SchemaViolation) -> str:
    types = violation.rules["type"]
    expected_types = [types] if isinstance(types, str) else list(types)
    type_names = [_TYPE_NAMES[t] for t in expected_types if t != "null"]
    if expected_types == ["string"]:
        type_names = ["text"]
    if expected_types == ["string", "object"]:
        type_names = ["a name such as `relu`", "a mapping such as `conv: {...}`"]
    if expected_types == ["array", "string"] and violation.rules.get("items", {}).get("$ref"):
        type_names = ["a list of steps", "the name of a value"]
    type_list = " or ".join(
        [", ".join(type_names[:-1]), type_names[-1]] if len(type_names) > 1 else type_names
    )
    return f"{_name_subject(path, violation, expected_types)} must be {type_list}"


def _name_subject(path: Path, violation: SchemaViolation, expected_types: list[str]) -> str:
    """Return the name of the value with the wrong type."""
    if expected_types == ["string", "object"]:
        return "a step"
    if expected_types == ["array", "string"] and violation.rules.get("items", {}).get("$ref"):
        return "a branch"
    return _format_label(path)


def _describe_actual_type(value: object) -> str:
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
            return f"this is {_trim_text(value)}"


def _trim_text(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _describe_invalid_choice(violation: SchemaViolation, path: Path, span: Span) -> Diagnostic:
    if violation.keyword == "const":
        return Diagnostic(
            "E0209",
            f"{_format_label(path)} must be {violation.rules['const']}",
            span,
            label=f"this is {_trim_text(violation.value)}",
            help="this release of tcc supports version 1 of the language",
        )
    choices = [str(c) for c in violation.rules["enum"]]
    help = framework_aliases.match_value(str(violation.value), tuple(choices)).help
    return Diagnostic(
        "E0213", f"{_format_label(path)} must be one of {', '.join(choices)}", span, help=help
    )


def _describe_count(violation: SchemaViolation) -> str:
    bounds = violation.rules
    bound_texts = {
        "minItems": ("at least", "entries"),
        "maxItems": ("at most", "entries"),
        "minProperties": ("at least", "keys"),
        "maxProperties": ("at most", "keys"),
    }
    bound, noun = bound_texts[violation.keyword]
    limit = bounds[violation.keyword]
    singular = {"entries": "entry", "keys": "key"}[noun]
    if bounds.get("minItems") == bounds.get("maxItems") == limit:
        bound = "exactly"
    return f"needs {bound} {limit} {noun if limit != 1 else singular}"
