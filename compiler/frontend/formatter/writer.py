"""Writing a layout in canonical form."""

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

# Narrower than YAML's plain scalars: what no version of YAML and no eye takes for something else.
_ANYWHERE = re.compile(r"[A-Za-z_](?:[\w./+*%()=<>!?'\"$@^~;|&-]| (?=[^ #]))*")
_IN_BLOCKS = re.compile(r"[A-Za-z_](?:[\w./+*%()=<>!?'\"$@^~;|&,\[\]{}-]| (?=[^ #]))*")
# Words that YAML 1.1 reads as true or false: other tools still read specs by it.
_YAML_1_1 = re.compile("y|n|yes|no|on|off", re.IGNORECASE)
_SPECIAL = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")
_HEADER = re.compile(r"([|>])([-+0-9]*)[^\r\n]*(?:\r\n|\r|\n)?")
_BREAK = re.compile(r"\r\n|\r|\n")


def on_one_line(leaf: LayoutLeaf, *, block: bool = False) -> str:
    """Return a scalar as one line; `block` where no bracket surrounds it."""
    if leaf.style == "*":
        return leaf.raw
    if leaf.style is None and not _BREAK.search(leaf.raw):
        text = leaf.raw
    else:
        text = _quoted(leaf.value, block=block)
    return f"{leaf.mark} {text}".strip()


def lines(leaf: LayoutLeaf) -> list[str]:
    """Return a scalar's lines outside of brackets; all but the first are yet to be indented."""
    if leaf.style in ("|", ">"):
        return _block_scalar(leaf)
    raw = _BREAK.split(leaf.raw)
    if len(raw) == 1:
        return [on_one_line(leaf, block=True)]
    first = f"{leaf.mark} {raw[0].strip()}".strip()
    keep = leaf.style == '"'
    return [first, *(line.lstrip(" \t") if keep else line.strip(" \t") for line in raw[1:])]


def _quoted(value: str, *, block: bool) -> str:
    plain = (_IN_BLOCKS if block else _ANYWHERE).fullmatch(value)
    if plain and resolve(value) == value and not _YAML_1_1.fullmatch(value):
        return value
    # Single quotes where they spare escapes.
    if ('"' in value or "\\" in value) and value.isprintable() and "'" not in value:
        return f"'{value}'"
    text = json.dumps(value, ensure_ascii=False)
    # JSON leaves these as they are; they are line breaks to YAML, or not to be seen.
    return _SPECIAL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _block_scalar(leaf: LayoutLeaf) -> list[str]:
    """Return the lines of a `|` or `>` scalar, without the indentation they have in the text.

    One that is empty, or keeps empty lines at its end, goes into quotes.
    """
    header = _HEADER.match(leaf.raw)
    breaks = len(leaf.value) - len(leaf.value.rstrip("\n"))
    if header is None or breaks > 1 or not leaf.value.strip(" \n"):
        return [f"{leaf.mark} {_quoted(leaf.value, block=True)}".strip()]
    rows = _BREAK.split(leaf.raw[header.end() :])
    digits = header[2].strip("+-")
    start = next(row for row in rows if row.strip(" "))
    indent = leaf.column + int(digits) if digits else len(start) - len(start.lstrip(" "))
    # The lines as they are: indentation within a block is part of its text.
    rows = [row[indent:] for row in rows]
    # Empty lines at the end say nothing, as a block that keeps them was put into quotes above.
    while not rows[-1]:
        rows.pop()
    # A first line that begins with spaces would itself be taken for the indentation.
    explicit = "2" if start[indent:].startswith(" ") else ""
    chomp = "" if breaks else "-"
    return [f"{leaf.mark} {header[1]}{explicit}{chomp}".strip(), *rows]


WIDTH = 100
"""Longest line that a list or mapping in brackets may fill."""
INDENT = 2


def write(root: LayoutBranch, order: list[LayoutEntry]) -> str:
    """Return the text of a layout with its top-level entries in some order.

    The comments at the top of the text stay there, but for those right above its first entry
    that an empty line parts from others.
    """
    if not root.entries:
        return "\n".join([*_comments(root.foot, 0, first=True), _flow(root)]) + "\n"
    _break_long(root, 0)
    _raise_comments(root)
    header, spaced = _take_header(root.entries[0])
    rows = _comments(header, 0, first=True)
    before: LayoutEntry | None = None
    for entry in order:
        if _blank_between(before, entry) if before else bool(header and (spaced or entry.head)):
            rows.append("")
        rows += _comments(entry.head, 0, first=True)
        if entry.head and entry.blank:
            rows.append("")
        rows += _entry(entry, 0)
        before = entry
    rows += _comments(root.foot, 0, first=False)
    return "\n".join(rows) + "\n"


def _take_header(first: LayoutEntry) -> tuple[list[Comment], bool]:
    """Take the text's own comments from its first entry; also return if a line parts them."""
    parted = [place for place, comment in enumerate(first.head) if comment.blank and place]
    end = parted[-1] if parted and not first.blank else len(first.head)
    header, first.head = first.head[:end], first.head[end:]
    return header, first.blank


def _blank_between(before: LayoutEntry, entry: LayoutEntry) -> bool:
    """Return whether two top-level entries stand apart: all but short ones do."""
    if isinstance(before.node, LayoutLeaf) and isinstance(entry.node, LayoutLeaf):
        return entry.head[0].blank if entry.head else entry.blank
    return True


def _break_long(branch: LayoutBranch, indent: int) -> None:
    """Take out of brackets what does not fit on its line, and steps of one key in a list."""
    for entry in branch.entries:
        node = entry.node
        if isinstance(node, LayoutBranch):
            # `- conv: {...}` and not `- {conv: {...}}`, as every spec is written.
            if _is_step(entry) or _too_long(entry, node, indent):
                node.inline = False
            if not node.inline:
                _break_long(node, indent + INDENT)


def _is_step(entry: LayoutEntry) -> bool:
    """Return whether a list's item is a mapping of one key, which needs no braces."""
    node = entry.node
    if entry.key is not None or isinstance(node, LayoutLeaf):
        return False
    return node.mapping and len(node.entries) == 1 and not node.mark


def _too_long(entry: LayoutEntry, node: LayoutBranch, indent: int) -> bool:
    return node.inline and len(_lead(entry, indent)) + 1 + len(_flow(node)) > WIDTH


def _raise_comments(branch: LayoutBranch) -> None:
    """Move comments from between a dash and the first entry beside it.

    One at the end of the dash's line goes to the end of that of the entry, others up.
    """
    for entry in branch.entries:
        if not isinstance(entry.node, LayoutBranch) or entry.node.inline:
            continue
        inner = entry.node.entries[0] if _beside_dash(entry) else None
        # `- # why` has no line of its own once what follows moves up beside the dash.
        if inner and not inner.tail:
            inner.tail, entry.tail = entry.tail, None
        _raise_comments(entry.node)
        if inner:
            moved = [*([entry.tail] if entry.tail else []), *inner.head]
            entry.tail, inner.head = None, []
            if moved:
                moved[0].blank, entry.blank = entry.blank, False
                entry.head += moved


def _beside_dash(entry: LayoutEntry) -> bool:
    """Return whether the entries of a list's item start on the line of its dash."""
    node = entry.node
    if entry.key is not None or isinstance(node, LayoutLeaf):
        return False
    return bool(node.entries) and not node.inline and not node.mark


def _block(branch: LayoutBranch, indent: int) -> Iterator[str]:
    """Yield the lines of a list or mapping, one entry after the other."""
    for entry in branch.entries:
        first = entry is branch.entries[0]
        yield from _comments(entry.head, indent, first=first)
        if entry.blank and (entry.head or not first):
            yield ""
        yield from _entry(entry, indent)
    yield from _comments(branch.foot, indent, first=False)


def _comments(comments: list[Comment], indent: int, *, first: bool) -> list[str]:
    rows: list[str] = []
    for comment in comments:
        if comment.blank and (rows or not first):
            rows.append("")
        rows.append(" " * indent + comment.text)
    return rows


def _entry(entry: LayoutEntry, indent: int) -> list[str]:
    """Return the lines of an entry, the end-of-line comment in its place."""
    lead, node = _lead(entry, indent), entry.node
    place = 0
    if isinstance(node, LayoutLeaf):
        first, *rest = lines(node)
        margin = " " * (indent + INDENT)
        rows = [f"{lead} {first}".rstrip(), *(margin + row if row else "" for row in rest)]
        place = 0 if node.style in ("|", ">") else -1
    elif node.inline or not node.entries:
        rows = [f"{lead} {_flow(node)}"]
    elif _beside_dash(entry):
        first, *rest = _block(node, indent + INDENT)
        rows = [f"{lead} {first.lstrip()}", *rest]
    else:
        rows = [f"{lead} {node.mark}".rstrip(), *_block(node, indent + INDENT)]
    if entry.tail:
        # Its own column as far as that goes: comments below each other that were aligned stay so.
        space = max(2, entry.tail.column - len(rows[place]))
        rows[place] += " " * space + entry.tail.text
    return rows


def _lead(entry: LayoutEntry, indent: int) -> str:
    return " " * indent + ("-" if entry.key is None else _key(entry.key))


def _key(key: LayoutLeaf) -> str:
    return on_one_line(key) + (" :" if key.style == "*" or not key.raw else ":")


def _flow(node: LayoutNode) -> str:
    """Return a value in brackets, on one line; of one that is too long, its start."""
    if isinstance(node, LayoutLeaf):
        return on_one_line(node)
    if not node.line:
        inner = ", ".join(map(_flow_entry, node.entries))  # a frame less: 256 may lie in another
        line = f"{node.mark} {{{inner}}}" if node.mapping else f"{node.mark} [{inner}]"
        # Cut off where it is too long anyway: nested brackets would else be joined again at every
        # level, in quadratic time.
        node.line = line.lstrip()[: WIDTH + 1 if inner else None]
    return node.line


def _flow_entry(entry: LayoutEntry) -> str:
    """Return an entry of a value in brackets; a step of one key needs no braces in a list."""
    node = entry.node
    if entry.key is not None:
        return f"{_key(entry.key)} {_flow(node)}"
    if isinstance(node, LayoutBranch) and _is_step(entry):
        return _flow_entry(node.entries[0])
    return _flow(node)
