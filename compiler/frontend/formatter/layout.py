"""Layout of a text: its tree with the original words, and its comments."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tcc.compiler.frontend.yaml import ParsedText
from tcc.compiler.frontend.yaml.reader import find_missing_value, skip_properties
from tcc.compiler.frontend.yaml.source_text import SourceText


@dataclass(slots=True)
class Comment:
    """A comment, including `#`; `blank` if there is an empty line before it."""

    text: str
    column: int
    blank: bool = False


@dataclass(slots=True)
class LayoutLeaf:
    """A scalar or alias, text[start:end]; `mark` contains its anchor and tag.

    `style` is its quote, `|` or `>`, `*` for an alias, or None. `column` is that of the enclosing
    list or mapping.
    """

    start: int
    end: int
    raw: str
    value: str
    style: str | None
    mark: str
    column: int


@dataclass(slots=True)
class LayoutEntry:
    """An item of a list, or a key with its value.

    `head` are the comments on lines before it, `tail` the one at the end of its first line;
    `blank` if there is an empty line directly before it.
    """

    start: int
    key: LayoutLeaf | None
    node: "LayoutLeaf | LayoutBranch"
    head: list[Comment] = field(default_factory=list)
    tail: Comment | None = None
    blank: bool = False


@dataclass(slots=True)
class LayoutBranch:
    """A list or mapping, text[start:end]; `foot` are the comments after its last entry.

    `flow` if it was written in brackets; `inline` if it may stay on one line. `line` is that line
    once it is computed, or the start of a line that is too long.
    """

    start: int
    end: int
    mapping: bool
    flow: bool
    mark: str
    column: int
    inline: bool
    entries: list[LayoutEntry] = field(default_factory=list)
    foot: list[Comment] = field(default_factory=list)
    line: str = ""


LayoutNode = LayoutLeaf | LayoutBranch


def build_layout(source: SourceText, parsed: ParsedText) -> LayoutBranch:
    """Return the layout of a valid text, without its comments."""
    from tcc.compiler.frontend.yaml.events import parse_events  # ruamel.yaml loads slowly

    return _LayoutBuilder(source, parsed.events or parse_events(source.text)).build_root()


def list_leaves(node: LayoutNode) -> list[LayoutLeaf]:
    """Return keys and scalars in text order."""
    leaf_nodes: list[LayoutLeaf] = []
    pending = [node]
    while pending:
        part = pending.pop()
        if isinstance(part, LayoutLeaf):
            leaf_nodes.append(part)
            continue
        for entry in reversed(part.entries):
            pending.append(entry.node)
            if entry.key is not None:
                pending.append(entry.key)
    return leaf_nodes


def iterate_branches(root: LayoutBranch) -> Iterator[LayoutBranch]:
    """Yield lists and mappings, outer ones first."""
    pending = [root]
    while pending:
        branch = pending.pop()
        yield branch
        pending += [e.node for e in branch.entries if isinstance(e.node, LayoutBranch)]


class _LayoutBuilder:
    """Builds the layout from events."""

    def __init__(self, source: SourceText, events: Iterable[Any]) -> None:
        self.source = source
        self.text = source.text
        self.events = (e for e in events if hasattr(e, "anchor") or _is_end_event(e))
        self.previous_end = 0

    def build_root(self) -> LayoutBranch:
        """Return the layout of the text."""
        node = self.build_node(next(self.events), None)
        if not isinstance(node, LayoutBranch):
            raise TypeError("a text that is a scalar has no layout")
        # The outermost mapping always has its own lines, even if it was written in braces.
        node.inline = False
        return node

    def build_node(self, event: Any, parent: LayoutBranch | None) -> LayoutNode:
        """Return the node that starts with an event."""
        kind = type(event).__name__
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            return self.build_branch(event, mapping=kind == "MappingStartEvent")
        start, end = event.start_mark.index, event.end_mark.index
        # A missing value is located after the colon or comma before it.
        if start == end and parent is not None and parent.mapping:
            start = end = find_missing_value(self.text, self.previous_end, start)
        if kind == "AliasEvent":
            self.previous_end = end
            return LayoutLeaf(start, end, self.text[start:end], "", "*", "", 0)
        inner, mark = self.read_properties(event, end)
        inner, self.previous_end = min(inner, end), end
        raw = self.text[inner:end] if event.value or event.style else ""
        if not raw and not mark and parent is not None and parent.flow:
            # A missing value in brackets would change its meaning when lines are joined.
            raw = "null"
        column = parent.column if parent else 0
        style = event.style or None
        return LayoutLeaf(inner, end, raw, event.value, style, mark, column)

    def build_branch(self, event: Any, *, mapping: bool) -> LayoutBranch:
        """Return the list or mapping that starts with an event."""
        start, mark = self.read_properties(event, len(self.text))
        row = self.source.find_row(start)
        column = start - self.source.starts[row]
        flow = bool(event.flow_style)
        branch = LayoutBranch(start, start, mapping, flow, mark, column, flow)
        while not _is_end_event(event := next(self.events)):
            branch.entries.append(self.build_entry(event, branch))
        closing = event.end_mark.index
        # Without brackets, the end is that of the last entry: the events report the start of the
        # next item.
        branch.end = closing if closing > event.start_mark.index else self.previous_end
        self.previous_end = branch.end
        return branch

    def build_entry(self, event: Any, parent: LayoutBranch) -> LayoutEntry:
        """Return the entry that starts with an event."""
        entry_start = self.previous_end
        node = self.build_node(event, parent)
        if not parent.mapping:
            start = (
                node.start
                if parent.flow
                else self.find_dash(entry_start, node.start, parent.column)
            )
            return LayoutEntry(start, None, node)
        key = node if isinstance(node, LayoutLeaf) else None
        value_node = self.build_node(next(self.events), parent)
        return LayoutEntry(node.start, key, value_node)

    def find_dash(self, entry_start: int, start: int, column: int) -> int:
        """Return the index of the dash of a list item whose content starts at `start`."""
        # Backwards from the content, because comments and empty lines may follow a dash.
        for row in range(self.source.find_row(start), self.source.find_row(entry_start) - 1, -1):
            index = self.source.starts[row] + column
            if entry_start <= index < start and self.text[index] == "-":
                return index
        return start

    def read_properties(self, event: Any, end: int) -> tuple[int, str]:
        """Return the start of an event's content, and the anchor and tag before it."""
        start = int(event.start_mark.index)
        if not event.anchor and event.tag is None:
            return start, ""
        if event.anchor and event.tag is not None:
            # ruamel.yaml reports the anchor after a tag as the start.
            tag = self.text.find("!", self.previous_end, start)
            start = start if tag < 0 else tag
        inner = skip_properties(self.text, start, end)
        marks = [w for w in self.text[start:inner].split() if w[0] in "&!"]
        return inner, " ".join(marks)


def _is_end_event(event: Any) -> bool:
    return type(event).__name__ in ("MappingEndEvent", "SequenceEndEvent")
