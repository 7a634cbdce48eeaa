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

_COMMENT = re.compile(r"!<[^>\s]*>|[&*!%][^\s,\[\]{}]*|(#[^\r\n]*)")
_HEADER = re.compile(r"[|>][-+0-9]*[ \t]+(#[^\r\n]*)")


@dataclass(slots=True)
class _Found:
    """A comment at an index of the text; `alone` where nothing stands before it on its line."""

    index: int
    comment: Comment
    alone: bool


def fasten(source: SourceText, root: LayoutBranch) -> list[str]:
    """Fasten the comments and empty lines of a text to its layout; return all the comments.

    A comment at the end of a line belongs to the entry that begins last before it; one on a
    line of its own to the entry after it, or, where it is indented like the list or mapping
    that ends there, to its foot. A list or mapping in brackets that holds comments cannot stay
    on one line.
    """
    found = list(_comments(source, root))
    _open_brackets(root, found)
    _Fastener(source, root, list(_flat(root, ()))).fasten(found)
    return [comment.comment.text for comment in found]


def _comments(source: SourceText, root: LayoutBranch) -> Iterator[_Found]:
    before = 0
    for leaf in (*leaves(root), None):
        until = leaf.start if leaf else len(source.text)
        for match in _COMMENT.finditer(source.text, before, until):
            if match[1]:
                yield _found(source, match.start(1), match[1])
        if leaf:
            before = max(before, leaf.end)
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
        if bisect(places, branch.start) < bisect(places, branch.end):
            branch.inline = False


def _flat(
    branch: LayoutBranch, above: tuple[LayoutBranch, ...]
) -> Iterator[tuple[LayoutEntry, tuple[LayoutBranch, ...]]]:
    """Yield the entries that get lines of their own, in order, with the branches they are in."""
    inside = (*above, branch)
    for entry in branch.entries:
        yield entry, inside
        if isinstance(entry.node, LayoutBranch) and not entry.node.inline:
            yield from _flat(entry.node, inside)


class _Fastener:
    """Goes through comments and entries in the text's order."""

    def __init__(
        self,
        source: SourceText,
        root: LayoutBranch,
        flat: list[tuple[LayoutEntry, tuple[LayoutBranch, ...]]],
    ) -> None:
        self.source = source
        self.root = root
        self.flat = flat
        self.next = 0
        self.limit = 0

    def fasten(self, found: list[_Found]) -> None:
        """Fasten all comments, then note the empty lines before entries."""
        if not self.flat:
            self.root.foot += [comment.comment for comment in found]
            return
        for comment in found:
            place = self.next
            while self.next < len(self.flat) and self.flat[self.next][0].start < comment.index:
                self.next += 1
            if self.next != place or not comment.alone:
                self.limit = 1 << 30
            if comment.alone:
                self.alone(comment)
            else:
                self.behind(comment)
        for entry, _ in self.flat:
            row = self.source.line(entry.start)
            before = self.source.lines[row][: entry.start - self.source.starts[row]]
            entry.blank = not before.strip(" -?") and _blank_above(self.source, row)

    def behind(self, found: _Found) -> None:
        """Fasten a comment at the end of a line."""
        owner = None
        for entry, inside in reversed(self.flat[: self.next]):
            if not any(b.flow and b.end <= found.index for b in inside):
                owner = entry
                break
        if owner is None:
            owner = self.flat[0][0]
            owner.head.append(found.comment)
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
        here = self.flat[self.next - 1][1] if self.next else ()
        after = self.flat[self.next][1] if self.next < len(self.flat) else ()
        brackets = [b for b in here if b.flow and b.start < found.index < b.end]
        if brackets:
            return None if any(b is brackets[-1] for b in after) else brackets[-1]
        ends = [b for b in here if not b.flow and not any(b is other for other in after)]
        fitting = [b for b in ends if b.column <= self.limit]
        if fitting:
            return fitting[-1]
        return None if after else self.root
