"""Canonical form of specs.

Indentation is two spaces, and lists are indented below their keys. Top-level keys are in the order
of the language, with an empty line between sections. Parts in brackets stay so if they fit on the
line. Quotes are only used where needed. Comments and the line breaks of long texts are kept. The
canonical form of a canonical text is the same text.
"""

import json

from tcc.compiler.frontend.formatter.comment_placement import attach_comments
from tcc.compiler.frontend.formatter.layout import LayoutBranch, LayoutEntry, list_leaves
from tcc.compiler.frontend.formatter.layout import build_layout as read_layout
from tcc.compiler.frontend.formatter.writer import write_layout
from tcc.compiler.frontend.size_limits import raise_recursion_limit
from tcc.compiler.frontend.yaml import Mapping, Tree, read_source, to_plain
from tcc.compiler.frontend.yaml.source_text import SourceText, decode
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

KEY_ORDER = (
    "tcc",
    "name",
    "doc",
    "params",
    "use",
    "input",
    "blocks",
    "graph",
    "output",
    "accuracy",
    "allow",
    "tests",
)
"""The top-level keys of a spec; other keys follow in text order."""


def format_spec(text: str | bytes, file: str) -> str:
    """Return the canonical form of a spec; JSON stays JSON.

    Raises:
        UserError: The text cannot be parsed (as `parse` does), or it cannot be rewritten without
            changing its meaning (E0108).
    """
    with raise_recursion_limit():
        return _format_text(decode(text, file))


def _format_text(source: SourceText) -> str:
    parsed = read_source(source)
    if _is_json(source):
        return json.dumps(_order_keys(parsed.tree), indent=2, ensure_ascii=False) + "\n"
    layout = read_layout(source, parsed)
    comments = attach_comments(source, layout)
    canonical = write_layout(layout, _order_entries(layout))
    # Parse the result and compare values and comments: `fmt` must never change the meaning of a
    # spec, even if this code has a defect.
    if not _has_same_content(canonical, parsed.tree, comments, source.file):
        raise fail(
            "E0108",
            "the file cannot be formatted without changing its meaning",
            make_file_span(source.file),
            help="simplify its anchors, quotes and line breaks",
        )
    return canonical


def _is_json(source: SourceText) -> bool:
    if source.file.endswith(".json"):
        return True
    try:
        # Python accepts NaN and Infinity, which are not JSON.
        json.loads(source.text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _get_key_rank(key: str) -> int:
    return KEY_ORDER.index(key) if key in KEY_ORDER else len(KEY_ORDER)


def _order_keys(tree: Tree) -> object:
    if isinstance(tree, Mapping):
        values = {str(key.value): to_plain(value) for key, value in tree.items}
        return dict(sorted(values.items(), key=lambda item: _get_key_rank(item[0])))
    return to_plain(tree)


def _order_entries(root: LayoutBranch) -> list[LayoutEntry]:
    """Return the top-level entries in order, or unchanged if aliases depend on their order."""
    keys = [entry.key for entry in root.entries if entry.key is not None]
    # An alias must follow its anchor.
    if len(keys) < len(root.entries) or any(leaf.style == "*" for leaf in list_leaves(root)):
        return root.entries
    return sorted(
        root.entries, key=lambda entry: _get_key_rank(entry.key.value if entry.key else "")
    )


def _has_same_content(text: str, tree: Tree, comments: list[str], file: str) -> bool:
    """Return whether a text has the same values as a tree, and the same comments."""
    try:
        source = decode(text, file)
        reread = read_source(source)
    except UserError:
        return False
    # Sorted, because sections move with their comments.
    if sorted(comments) != sorted(attach_comments(source, read_layout(source, reread))):
        return False
    return json.dumps(to_plain(reread.tree), sort_keys=True) == json.dumps(
        to_plain(tree), sort_keys=True
    )
