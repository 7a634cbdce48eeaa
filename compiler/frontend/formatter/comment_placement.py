"""Finding the comments of a text and fastening each to the entry that it belongs to."""

import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from tcc.compiler.frontend.formatter.layout import (
    Comment,
    LayoutBranch,
    LayoutEntry,
    branches,
    leaves,
)
from tcc.compiler.frontend.yaml.source_text import SourceText

# Tags, anchors, aliases and directives may hold a `#`, which begins no comment there: they are
# matched first, and not taken.
_COMMENT = re.compile(r"!<[^>\s]*>|[&*!%][^\s,\[\]{}]*|(#[^\r\n]*)")
_LEAD = re.compile("[ ?-]*")
_HEADER = re.compile(r"[|>][-+0-9]*[ \t]+(#[^\r\n]*)")


@dataclass(slots=True)
class _Found:
    """A comment at an index of the text; `alone` where nothing stands before it on its line."""

    index: int
    comment: Comment
    alone: bool


_Placed = tuple[LayoutEntry, tuple[LayoutBranch, ...]]
"""An entry, and the branches that it is in, outer ones first."""


def fasten(source: SourceText, root: LayoutBranch) -> list[str]:
    """Fasten the comments and empty lines of a text to its layout; return all the comments.

    A comment at the end of a line belongs to the entry that begins last before it; one on a
    line of its own to the entry after it, or, where it is indented like the list or mapping
    that ends there, to its foot. A list or mapping in brackets that holds comments cannot stay
    on one line.
    """
    found = list(_comments(source, root))
    _open_brackets(root, found)
    _Fastener(source, root, _flat(root)).fasten(found)
    return [comment.comment.text for comment in found]


def _comments(source: SourceText, root: LayoutBranch) -> Iterator[_Found]:
    before = 0
    # Only between scalars is a `#` looked for: within them it is text.
    for leaf in (*leaves(root), None):
        until = leaf.start if leaf else len(source.text)
        for match in _COMMENT.finditer(source.text, before, until):
            if match[1]:
                yield _found(source, match.start(1), match[1])
        if leaf:
            before = max(before, leaf.end)
            # The one comment inside a scalar's stretch: behind the `|` or `>`.
            header = _HEADER.match(source.text, leaf.start) if leaf.style in ("|", ">") else None
            if header:
                yield _found(source, header.start(1), header[1])


def _found(source: SourceText, index: int, text: str) -> _Found:
    row = source.line(index)
    column = index - source.starts[row]
    alone = not source.lines[row][:column].strip()
    blank = alone and _blank_above(source, row)
    return _Found(index, Comment(text.rstrip(), column, blank), alone)


def _blank_above(source: SourceText, row: int) -> bool:
    return row > 0 and not source.lines[row - 1].strip()


def _open_brackets(root: LayoutBranch, found: list[_Found]) -> None:
    places = [comment.index for comment in found]
    for branch in branches(root):
        # Two searches a branch among sorted places, and no walk through all comments for each.
        if bisect(places, branch.start) < bisect(places, branch.end):
            branch.inline = False


def _flat(root: LayoutBranch) -> list[_Placed]:
    """Return the entries that get lines of their own, in order, with the branches they are in."""
    found: list[_Placed] = []
    # Without recursion, and every entry once: linear in the text.
    pending: list[_Placed] = [(entry, (root,)) for entry in reversed(root.entries)]
    while pending:
        entry, inside = pending.pop()
        found.append((entry, inside))
        if isinstance(entry.node, LayoutBranch) and not entry.node.inline:
            within = (*inside, entry.node)
            pending += [(inner, within) for inner in reversed(entry.node.entries)]
    return found


class _Fastener:
    """Goes through comments and entries in the text's order."""

    def __init__(self, source: SourceText, root: LayoutBranch, flat: list[_Placed]) -> None:
        self.source = source
        self.root = root
        self.flat = flat
        self.holders = {id(entry.node): entry for entry, _ in flat}
        self.next = 0
        self.limit = 0
        self.open: list[LayoutBranch] = []
        self.ends: list[LayoutBranch] = []

    def fasten(self, found: list[_Found]) -> None:
        """Fasten all comments, then note the empty lines before entries."""
        if not self.flat:
            self.root.foot += [comment.comment for comment in found]
            return
        self.go_on()
        for comment in found:
            place = self.next
            while self.next < len(self.flat) and self.flat[self.next][0].start < comment.index:
                self.next += 1
            if self.next != place or not comment.alone:
                self.go_on()
            if comment.alone:
                self.alone(comment)
            else:
                self.behind(comment)
        self.note_blanks()

    def note_blanks(self) -> None:
        """Note which entries are the first of their line, below an empty one."""
        last, lead = -1, 0
        for entry, _ in self.flat:
            row = self.source.line(entry.start)
            if row != last:
                last, begun = row, _LEAD.match(self.source.text, self.source.starts[row])
                lead = begun.end() if begun else 0
            entry.blank = entry.start <= lead and _blank_above(self.source, row)

    def go_on(self) -> None:
        """Take note of what is open, and of what ends, where another entry is reached."""
        # No comment was met yet since the last entry: any column is left of this.
        self.limit = 1 << 30
        here, after = self._around()
        shared = sum(b is other for b, other in zip(here, after, strict=False))
        self.open = list(here)
        self.ends = [b for b in here[shared:] if not b.flow]

    def _around(self) -> tuple[tuple[LayoutBranch, ...], tuple[LayoutBranch, ...]]:
        """Return the branches around the entry before the one that is next, and around that."""
        here = self.flat[self.next - 1][1] if self.next else ()
        after = self.flat[self.next][1] if self.next < len(self.flat) else ()
        return here, after

    def close(self, index: int) -> LayoutBranch | None:
        """Forget brackets that end before an index; return the outermost of them."""
        ended = None
        while self.open and self.open[-1].flow and self.open[-1].end <= index:
            ended = self.open.pop()
        return ended

    def behind(self, found: _Found) -> None:
        """Fasten a comment at the end of a line."""
        ended = self.close(found.index)
        owner = self.flat[self.next - 1][0] if self.next else None
        if ended is not None:
            owner = self.holders.get(id(ended))
        if owner is None:
            owner = self.flat[0][0]
            owner.head.append(found.comment)
        # A line has one end: of a value that was taken apart, further comments go above it.
        elif owner.tail is None:
            owner.tail = found.comment
        else:
            owner.head.append(found.comment)

    def alone(self, found: _Found) -> None:
        """Fasten a comment on a line of its own."""
        self.limit = min(self.limit, found.comment.column)
        branch = self.ending(found)
        if branch is not None:
            branch.foot.append(found.comment)
        else:
            self.flat[self.next][0].head.append(found.comment)

    def ending(self, found: _Found) -> LayoutBranch | None:
        """Return the branch to whose foot a comment belongs, None where it leads the next entry."""
        self.close(found.index)
        _, after = self._around()
        if self.open and self.open[-1].flow:
            inner = self.open[-1]
            level = len(self.open) - 1
            return None if level < len(after) and after[level] is inner else inner
        # A comment belongs to the innermost ended list that is no further right than any comment
        # since: what was written to the left stays outside.
        while self.ends and self.ends[-1].column > self.limit:
            self.ends.pop()
        if self.ends:
            return self.ends[-1]
        return None if after else self.root
