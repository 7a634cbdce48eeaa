"""Reader of YAML 1.2 and JSON text into a tree with locations.

Values follow the core schema of YAML 1.2: `yes` and `on` are text, `0o17` is a number. Anchors and
aliases are allowed within limits. Merge keys, tags outside the core schema, several documents in a
file and keys that are not text are errors. JSON follows RFC 8259 and gives the same kind of tree.

ruamel.yaml parses YAML and finds its syntax errors.
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
"""Most lines with YAML directives; a spec needs none."""

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
    """Return the tree of a text; `file` is its name in errors, and `.json` at its end means JSON.

    Raises:
        UserError: All errors that were found: E0101 not text, E0102 syntax, E0103 a repeated key,
            E0104 too large, E0105 too deep, E0106 no content, E0107 an unsupported feature of
            YAML.
    """
    return read_source(decode(text, file)).tree


@dataclass(frozen=True, slots=True)
class ParsedText:
    """The tree of a text and, if it was parsed as YAML, the events of ruamel.yaml."""

    tree: Tree
    events: list[Any]


def read_source(source: SourceText) -> ParsedText:
    """Return the tree of a text; raises as `parse` does."""
    if source.file.endswith(".json"):
        return ParsedText(_build(read_json, source), [])
    # Text in flow style may be JSON, which is parsed much faster; otherwise it may be YAML.
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

    Directives start with `%`; other lines rarely do.
    """
    rows = [row for row, line in enumerate(source.lines) if line.startswith("%")]
    if len(rows) > MAX_DIRECTIVES:
        at = source.starts[rows[MAX_DIRECTIVES]]
        message = f"more than {MAX_DIRECTIVES} lines start with `%`, as YAML directives do"
        span = source.get_span(at, at + 1)
        raise fail("E0104", message, span, label="one too many", help="remove them")


def _can_be_json(text: str) -> bool:
    """Return False if a text is certainly not JSON; the parser of Python is fast."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # numbers and lists beyond the limits of Python
        return True
    return True


def _build(read_events: Callable[[TreeBuilder], None], source: SourceText) -> Tree:
    builder = TreeBuilder(source)
    try:
        read_events(builder)
    except UserError as error:
        raise builder.create_error(*error.diagnostics) from None
    return builder.finish()
