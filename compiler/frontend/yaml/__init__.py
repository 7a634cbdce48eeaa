"""YAML 1.2 and JSON text read into a located tree.

The core schema of YAML 1.2 holds: `yes` and `on` are text, `0o17` is a number. Of what YAML
has beyond plain data, anchors and aliases are allowed within the limits; merge keys, tags
outside the core schema, several documents in a file and keys that are not text are errors.
JSON goes by its own rules (RFC 8259) into the same tree.

ruamel.yaml's parser decides what a YAML text means and what is wrong with it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tcc.compiler.frontend.yaml.json_reader import read_json
from tcc.compiler.frontend.yaml.reader import read_yaml
from tcc.compiler.frontend.yaml.source_text import (
    MAX_JSON_BYTES,
    MAX_YAML_BYTES,
    SourceText,
    decode,
    get_max_bytes,
)
from tcc.compiler.frontend.yaml.tree_builder import (
    MAX_DEPTH,
    MAX_NODES,
    Mapping,
    Scalar,
    Sequence,
    Tree,
    TreeBuilder,
    find_key_span,
    find_span,
    find_subtree,
    to_plain,
)
from tcc.compiler.support.diagnostics import UserError, fail

MAX_DIRECTIVES = 100
"""Most lines with directives of YAML, which a spec needs none of."""

__all__ = [
    "MAX_DEPTH",
    "MAX_JSON_BYTES",
    "MAX_NODES",
    "MAX_YAML_BYTES",
    "Mapping",
    "ParsedText",
    "Scalar",
    "Sequence",
    "Tree",
    "find_key_span",
    "find_span",
    "find_subtree",
    "get_max_bytes",
    "parse",
    "read_source",
    "to_plain",
]


def parse(text: str | bytes, file: str) -> Tree:
    """Return the tree of a text; `file` names it in errors, and `.json` at its end means JSON.

    Raises:
        UserError: holding every mistake that can be found: E0101 not text, E0102 syntax,
            E0103 a key twice, E0104 too large, E0105 too deep, E0106 no content,
            E0107 a feature of YAML that is not allowed.
    """
    return read_source(decode(text, file)).tree


@dataclass(frozen=True, slots=True)
class ParsedText:
    """The tree of a text and, where it was read as YAML, ruamel.yaml's events."""

    tree: Tree
    events: list[Any]


def read_source(source: SourceText) -> ParsedText:
    """Return the tree of a text, as `parse` does."""
    if source.file.endswith(".json"):
        return ParsedText(_build(read_json, source), [])
    # Flow style may be JSON, which is read much faster; what is none may still be YAML.
    if source.text.lstrip()[:1] in ("{", "[") and _can_be_json(source.text):
        try:
            return ParsedText(_build(read_json, source), [])
        except UserError as error:
            if error.diagnostics[-1].code != "E0102":
                raise
    _check_directives(source)
    events: list[Any] = []
    return ParsedText(_build(partial(read_yaml, consumed=events), source), events)


def _check_directives(source: SourceText) -> None:
    """Refuse many directives (YAML 1.2, 6.8), which the parser compares pairwise.

    Their lines begin with `%`, and hardly another does.
    """
    rows = [row for row, line in enumerate(source.lines) if line.startswith("%")]
    if len(rows) > MAX_DIRECTIVES:
        at = source.starts[rows[MAX_DIRECTIVES]]
        message = f"more than {MAX_DIRECTIVES} lines start with `%`, as YAML directives do"
        span = source.get_span(at, at + 1)
        raise fail("E0104", message, span, label="one too many", help="remove them")


def _can_be_json(text: str) -> bool:
    """Return False where a text is known to be no JSON, which Python's own reader soon tells."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # numbers and lists that are beyond its limits
        return True
    return True


def _build(read_events: Callable[[TreeBuilder], None], source: SourceText) -> Tree:
    builder = TreeBuilder(source)
    try:
        read_events(builder)
    except UserError as error:
        raise builder.create_error(*error.diagnostics) from None
    return builder.finish()
