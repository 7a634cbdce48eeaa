"""Writes a layout in canonical form."""

import json
import re
from collections.abc import Iterator

from tcc.compiler.frontend.formatter.layout import (
    Comment,
    LayoutBranch,
    LayoutEntry,
    LayoutLeaf,
    LayoutNode,
)
from tcc.compiler.frontend.yaml.reader import resolve

# Narrower than plain scalars of YAML: text that no version of YAML and no reader can confuse.
_ANYWHERE = re.compile(r"[A-Za-z_](?:[\w./+*%()=<>!?'\"$@^~;|&-]| (?=[^ #]))*")
_IN_BLOCKS = re.compile(r"[A-Za-z_](?:[\w./+*%()=<>!?'\"$@^~;|&,\[\]{}-]| (?=[^ #]))*")
# YAML 1.1 reads these as Booleans, and other tools still use it for specs.
_YAML_1_1 = re.compile("y|n|yes|no|on|off", re.IGNORECASE)
_SPECIAL = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")
_HEADER = re.compile(r"([|>])([-+0-9]*)[^\r\n]*(?:\r\n|\r|\n)?")
_BREAK = re.compile(r"\r\n|\r|\n")


def format_inline(leaf: LayoutLeaf, *, block: bool = False) -> str:
    """Return a scalar as one line; `block` if it is not in brackets."""
    if leaf.style == "*":
        return leaf.raw
    if leaf.style is None and not _BREAK.search(leaf.raw):
        text = leaf.raw
    else:
        text = _quote(leaf.value, block=block)
    return f"{leaf.mark} {text}".strip()


def format_lines(leaf: LayoutLeaf) -> list[str]:
    """Return the lines of a scalar outside brackets; all but the first lack indentation."""
    if leaf.style in ("|", ">"):
        return _format_block_scalar(leaf)
    raw = _BREAK.split(leaf.raw)
    if len(raw) == 1:
        return [format_inline(leaf, block=True)]
    first_line = f"{leaf.mark} {raw[0].strip()}".strip()
    keep = leaf.style == '"'
    return [first_line, *(line.lstrip(" \t") if keep else line.strip(" \t") for line in raw[1:])]


def _quote(value: str, *, block: bool) -> str:
    is_plain = (_IN_BLOCKS if block else _ANYWHERE).fullmatch(value)
    if is_plain and resolve(value) == value and not _YAML_1_1.fullmatch(value):
        return value
    # Single quotes if they avoid escapes.
    if ('"' in value or "\\" in value) and value.isprintable() and "'" not in value:
        return f"'{value}'"
    text = json.dumps(value, ensure_ascii=False)
    # JSON does not escape these characters; in YAML they are line breaks or invisible.
    return _SPECIAL.sub(lambda special_match: f"\\u{ord(special_match.group()):04x}", text)


def _format_block_scalar(leaf: LayoutLeaf) -> list[str]:
    """Return the lines of a `|` or `>` scalar without their indentation in the text.

    An empty scalar, or one with empty lines at its end, is written in quotes.
    """
    header = _HEADER.match(leaf.raw)
    breaks = len(leaf.value) - len(leaf.value.rstrip("\n"))
    if header is None or breaks > 1 or not leaf.value.strip(" \n"):
        return [f"{leaf.mark} {_quote(leaf.value, block=True)}".strip()]
    rows = _BREAK.split(leaf.raw[header.end() :])
    digits = header[2].strip("+-")
    start = next(row for row in rows if row.strip(" "))
    indent = leaf.column + int(digits) if digits else len(start) - len(start.lstrip(" "))
    # Keep the indentation within a block, because it is part of its text.
    rows = [row[indent:] for row in rows]
    # Empty lines at the end have no meaning here: blocks that keep them are quoted above.
    while not rows[-1]:
        rows.pop()
    # Leading spaces of the first line would be read as indentation.
    explicit = "2" if start[indent:].startswith(" ") else ""
    chomp = "" if breaks else "-"
    return [f"{leaf.mark} {header[1]}{explicit}{chomp}".strip(), *rows]


WIDTH = 100
"""Longest line for a list or mapping in brackets."""
INDENT = 2


def write_layout(root: LayoutBranch, order: list[LayoutEntry]) -> str:
    """Return the text of a layout with its top-level entries in the given order.

    Comments at the top of the text stay there, except those directly above its first entry that
    an empty line separates from the others.
    """
    if not root.entries:
        return (
            "\n".join([*_format_comments(root.foot, 0, is_first=True), _format_flow(root)]) + "\n"
        )
    _expand_long_branches(root, 0)
    _raise_comments(root)
    header, spaced = _split_header(root.entries[0])
    rows = _format_comments(header, 0, is_first=True)
    previous: LayoutEntry | None = None
    for entry in order:
        if (
            _needs_blank_line(previous, entry)
            if previous
            else bool(header and (spaced or entry.head))
        ):
            rows.append("")
        rows += _format_comments(entry.head, 0, is_first=True)
        if entry.head and entry.blank:
            rows.append("")
        rows += _format_entry(entry, 0)
        previous = entry
    rows += _format_comments(root.foot, 0, is_first=False)
    return "\n".join(rows) + "\n"


def _split_header(first_entry: LayoutEntry) -> tuple[list[Comment], bool]:
    """Take the comments of the file from its first entry; also return if a line separates them."""
    parted = [index for index, comment in enumerate(first_entry.head) if comment.blank and index]
    end = parted[-1] if parted and not first_entry.blank else len(first_entry.head)
    header, first_entry.head = first_entry.head[:end], first_entry.head[end:]
    return header, first_entry.blank


def _needs_blank_line(previous: LayoutEntry, entry: LayoutEntry) -> bool:
    """Return whether two top-level entries are separated: all are, except short ones."""
    if isinstance(previous.node, LayoutLeaf) and isinstance(entry.node, LayoutLeaf):
        return entry.head[0].blank if entry.head else entry.blank
    return True


def _expand_long_branches(branch: LayoutBranch, indent: int) -> None:
    """Expand branches that do not fit on their line, and steps with one key in a list."""
    for entry in branch.entries:
        node = entry.node
        if isinstance(node, LayoutBranch):
            # `- conv: {...}` instead of `- {conv: {...}}`, the usual form in specs.
            if _is_step(entry) or _is_too_long(entry, node, indent):
                node.inline = False
            if not node.inline:
                _expand_long_branches(node, indent + INDENT)


def _is_step(entry: LayoutEntry) -> bool:
    """Return whether a list item is a mapping with one key, which needs no braces."""
    node = entry.node
    if entry.key is not None or isinstance(node, LayoutLeaf):
        return False
    return node.mapping and len(node.entries) == 1 and not node.mark


def _is_too_long(entry: LayoutEntry, node: LayoutBranch, indent: int) -> bool:
    return node.inline and len(_format_lead(entry, indent)) + 1 + len(_format_flow(node)) > WIDTH


def _raise_comments(branch: LayoutBranch) -> None:
    """Move comments between a dash and the first entry next to it.

    A comment at the end of the dash's line moves to the end of the entry's line, others move up.
    """
    for entry in branch.entries:
        if not isinstance(entry.node, LayoutBranch) or entry.node.inline:
            continue
        inner = entry.node.entries[0] if _is_beside_dash(entry) else None
        # `- # why` has no separate line once the next entry moves up to the dash.
        if inner and not inner.tail:
            inner.tail, entry.tail = entry.tail, None
        _raise_comments(entry.node)
        if inner:
            moved_comments = [*([entry.tail] if entry.tail else []), *inner.head]
            entry.tail, inner.head = None, []
            if moved_comments:
                moved_comments[0].blank, entry.blank = entry.blank, False
                entry.head += moved_comments


def _is_beside_dash(entry: LayoutEntry) -> bool:
    """Return whether the entries of a list item start on the line of its dash."""
    node = entry.node
    if entry.key is not None or isinstance(node, LayoutLeaf):
        return False
    return bool(node.entries) and not node.inline and not node.mark


def _format_block(branch: LayoutBranch, indent: int) -> Iterator[str]:
    """Yield the lines of the entries of a list or mapping."""
    for entry in branch.entries:
        is_first = entry is branch.entries[0]
        yield from _format_comments(entry.head, indent, is_first=is_first)
        if entry.blank and (entry.head or not is_first):
            yield ""
        yield from _format_entry(entry, indent)
    yield from _format_comments(branch.foot, indent, is_first=False)


def _format_comments(comments: list[Comment], indent: int, *, is_first: bool) -> list[str]:
    rows: list[str] = []
    for comment in comments:
        if comment.blank and (rows or not is_first):
            rows.append("")
        rows.append(" " * indent + comment.text)
    return rows


def _format_entry(entry: LayoutEntry, indent: int) -> list[str]:
    """Return the lines of an entry with its end-of-line comment."""
    lead, node = _format_lead(entry, indent), entry.node
    comment_row = 0
    if isinstance(node, LayoutLeaf):
        first_line, *continuation = format_lines(node)
        margin = " " * (indent + INDENT)
        rows = [
            f"{lead} {first_line}".rstrip(),
            *(margin + row if row else "" for row in continuation),
        ]
        comment_row = 0 if node.style in ("|", ">") else -1
    elif node.inline or not node.entries:
        rows = [f"{lead} {_format_flow(node)}"]
    elif _is_beside_dash(entry):
        first_line, *continuation = _format_block(node, indent + INDENT)
        rows = [f"{lead} {first_line.lstrip()}", *continuation]
    else:
        rows = [f"{lead} {node.mark}".rstrip(), *_format_block(node, indent + INDENT)]
    if entry.tail:
        # Keeps the column of the comment if possible, so that aligned comments stay aligned.
        space = max(2, entry.tail.column - len(rows[comment_row]))
        rows[comment_row] += " " * space + entry.tail.text
    return rows


def _format_lead(entry: LayoutEntry, indent: int) -> str:
    return " " * indent + ("-" if entry.key is None else _format_key(entry.key))


def _format_key(key: LayoutLeaf) -> str:
    return format_inline(key) + (" :" if key.style == "*" or not key.raw else ":")


def _format_flow(node: LayoutNode) -> str:
    """Return a value in brackets on one line; only its start if it is too long."""
    if isinstance(node, LayoutLeaf):
        return format_inline(node)
    if not node.line:
        inner = ", ".join(
            map(_format_flow_entry, node.entries)
        )  # a separate function would add a stack frame for each of up to 256 levels
        line = f"{node.mark} {{{inner}}}" if node.mapping else f"{node.mark} [{inner}]"
        # Truncated once it is too long: joining nested brackets again at each level would take
        # quadratic time.
        node.line = line.lstrip()[: WIDTH + 1 if inner else None]
    return node.line


def _format_flow_entry(entry: LayoutEntry) -> str:
    """Return an entry of a value in brackets; a step with one key in a list needs no braces."""
    node = entry.node
    if entry.key is not None:
        return f"{_format_key(entry.key)} {_format_flow(node)}"
    if isinstance(node, LayoutBranch) and _is_step(entry):
        return _format_flow_entry(node.entries[0])
    return _format_flow(node)
