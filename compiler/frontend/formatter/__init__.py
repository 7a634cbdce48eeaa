"""Specs in canonical form.

Two spaces of indentation, lists indented below their keys, top-level keys in the language's
order with an empty line between sections, what is in brackets kept so where it fits in the
line and taken apart where not, quotes only where they are needed. Comments stay, and so do the
lines of longer texts. The canonical form of a canonical text is itself.
"""

import json

from tcc.compiler.frontend.formatter.comment_placement import fasten
from tcc.compiler.frontend.formatter.layout import LayoutBranch, LayoutEntry, leaves
from tcc.compiler.frontend.formatter.layout import read as read_layout
from tcc.compiler.frontend.formatter.writer import write
from tcc.compiler.frontend.size_limits import room_for_nesting
from tcc.compiler.frontend.yaml import Mapping, Tree, plain, read
from tcc.compiler.frontend.yaml.source_text import SourceText, decode
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

ORDER = (
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
"""The top-level keys of a spec; others follow in the text's order."""


def format_spec(text: str | bytes, file: str) -> str:
    """Return the canonical form of a spec; JSON stays JSON.

    Raises:
        UserError: where the text cannot be parsed (as `parse` does), or, E0108, where it cannot
            be rewritten without changing it.
    """
    with room_for_nesting():
        return _formatted(decode(text, file))


def _formatted(source: SourceText) -> str:
    known = read(source)
    if _is_json(source):
        return json.dumps(_ordered(known.tree), indent=2, ensure_ascii=False) + "\n"
    layout = read_layout(source, known)
    comments = fasten(source, layout)
    result = write(layout, _order(layout))
    # The result is read again and compared, values and comments: `fmt` must never change what a
    # spec says, whatever was overlooked here.
    if not _says(result, known.tree, comments, source.file):
        raise fail(
            "E0108",
            "the file cannot be put into canonical form without changing what it says",
            whole_file(source.file),
            help="simplify its anchors, quotes and line breaks",
        )
    return result


def _is_json(source: SourceText) -> bool:
    if source.file.endswith(".json"):
        return True
    try:
        # NaN and Infinity, which Python's reader would take, are no JSON.
        json.loads(source.text, parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _rank(key: str) -> int:
    return ORDER.index(key) if key in ORDER else len(ORDER)


def _ordered(tree: Tree) -> object:
    if isinstance(tree, Mapping):
        values = {str(key.value): plain(value) for key, value in tree.items}
        return dict(sorted(values.items(), key=lambda item: _rank(item[0])))
    return plain(tree)


def _order(root: LayoutBranch) -> list[LayoutEntry]:
    """Return the top-level entries in order; as they are where aliases depend on it."""
    keys = [entry.key for entry in root.entries if entry.key is not None]
    # An alias has to come after its anchor.
    if len(keys) < len(root.entries) or any(leaf.style == "*" for leaf in leaves(root)):
        return root.entries
    return sorted(root.entries, key=lambda entry: _rank(entry.key.value if entry.key else ""))


def _says(result: str, tree: Tree, comments: list[str], file: str) -> bool:
    """Return whether a text says what a tree does, and holds the same comments."""
    try:
        source = decode(result, file)
        again = read(source)
    except UserError:
        return False
    # Sorted, since sections move with their comments.
    if sorted(comments) != sorted(fasten(source, read_layout(source, again))):
        return False
    return json.dumps(plain(again.tree), sort_keys=True) == json.dumps(plain(tree), sort_keys=True)
