"""Finds the comments of a text and attaches each to its entry."""

import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from tcc.compiler.frontend.formatter.layout import (
    Comment,
    LayoutBranch,
    LayoutEntry,
    iterate_branches,
    list_leaves,
)
from tcc.compiler.frontend.yaml.source_text import SourceText

# A `#` in a tag, anchor, alias or directive does not start a comment; these are matched first and
# skipped.
_COMMENT = re.compile(r"!<[^>\s]*>|[&*!%][^\s,\[\]{}]*|(#[^\r\n]*)")
_LEAD = re.compile("[ ?-]*")
_HEADER = re.compile(r"[|>][-+0-9]*[ \t]+(#[^\r\n]*)")


@dataclass(slots=True)
class _LocatedComment:
    """A comment at an index of the text; `on_own_line` if nothing precedes it on its line."""

    index: int
    comment: Comment
    on_own_line: bool


_NestedEntry = tuple[LayoutEntry, tuple[LayoutBranch, ...]]
"""An entry, and the branches that contain it, outer ones first."""


def attach_comments(source: SourceText, root: LayoutBranch) -> list[str]:
    """Attach the comments and empty lines of a text to its layout; return all comments.

    A comment at the end of a line belongs to the last entry that starts before it. A comment on
    its own line belongs to the next entry. If it is indented like a list or mapping that ends
    there, it belongs to the foot of that. A list or mapping in brackets with comments cannot stay
    on one line.
    """
    comments = list(_find_comments(source, root))
    _open_brackets(root, comments)
    _CommentAttacher(source, root, _flatten_entries(root)).attach_all(comments)
    return [comment.comment.text for comment in comments]


def _find_comments(source: SourceText, root: LayoutBranch) -> Iterator[_LocatedComment]:
    position = 0
    # A `#` inside a scalar is text, so only the gaps between scalars are searched.
    for leaf in (*list_leaves(root), None):
        until = leaf.start if leaf else len(source.text)
        for match in _COMMENT.finditer(source.text, position, until):
            if match[1]:
                yield _locate_comment(source, match.start(1), match[1])
        if leaf:
            position = max(position, leaf.end)
            # The only comment inside the range of a scalar is after the `|` or `>`.
            header = _HEADER.match(source.text, leaf.start) if leaf.style in ("|", ">") else None
            if header:
                yield _locate_comment(source, header.start(1), header[1])


def _locate_comment(source: SourceText, index: int, text: str) -> _LocatedComment:
    row = source.find_row(index)
    column = index - source.starts[row]
    on_own_line = not source.lines[row][:column].strip()
    blank = on_own_line and _has_blank_above(source, row)
    return _LocatedComment(index, Comment(text.rstrip(), column, blank), on_own_line)


def _has_blank_above(source: SourceText, row: int) -> bool:
    return row > 0 and not source.lines[row - 1].strip()


def _open_brackets(root: LayoutBranch, comments: list[_LocatedComment]) -> None:
    indices = [comment.index for comment in comments]
    for branch in iterate_branches(root):
        # Two binary searches per branch, instead of a walk through all comments.
        if bisect(indices, branch.start) < bisect(indices, branch.end):
            branch.inline = False


def _flatten_entries(root: LayoutBranch) -> list[_NestedEntry]:
    """Return the entries with their own lines, in order, with the branches that contain them."""
    nested_entries: list[_NestedEntry] = []
    # Without recursion and with each entry once, so it takes linear time.
    pending: list[_NestedEntry] = [(entry, (root,)) for entry in reversed(root.entries)]
    while pending:
        entry, outer_branches = pending.pop()
        nested_entries.append((entry, outer_branches))
        if isinstance(entry.node, LayoutBranch) and not entry.node.inline:
            inner_branches = (*outer_branches, entry.node)
            pending += [(inner, inner_branches) for inner in reversed(entry.node.entries)]
    return nested_entries


class _CommentAttacher:
    """Walks comments and entries in text order."""

    def __init__(
        self, source: SourceText, root: LayoutBranch, nested_entries: list[_NestedEntry]
    ) -> None:
        self.source = source
        self.root = root
        self.nested_entries = nested_entries
        self.holders = {id(entry.node): entry for entry, _ in nested_entries}
        self.next = 0
        self.limit = 0
        self.open: list[LayoutBranch] = []
        self.ended_branches: list[LayoutBranch] = []

    def attach_all(self, comments: list[_LocatedComment]) -> None:
        """Attach all comments, then mark the empty lines before entries."""
        if not self.nested_entries:
            self.root.foot += [comment.comment for comment in comments]
            return
        self.update_open_branches()
        for comment in comments:
            position = self.next
            while (
                self.next < len(self.nested_entries)
                and self.nested_entries[self.next][0].start < comment.index
            ):
                self.next += 1
            if self.next != position or not comment.on_own_line:
                self.update_open_branches()
            if comment.on_own_line:
                self.attach_standalone(comment)
            else:
                self.attach_trailing(comment)
        self.mark_blank_lines()

    def mark_blank_lines(self) -> None:
        """Mark the entries that are first on their line, below an empty line."""
        previous_row, lead = -1, 0
        for entry, _ in self.nested_entries:
            row = self.source.find_row(entry.start)
            if row != previous_row:
                previous_row, lead_match = (
                    row,
                    _LEAD.match(self.source.text, self.source.starts[row]),
                )
                lead = lead_match.end() if lead_match else 0
            entry.blank = entry.start <= lead and _has_blank_above(self.source, row)

    def update_open_branches(self) -> None:
        """Update the open and ended branches when the next entry is reached."""
        # No comment since the last entry: all columns are left of this.
        self.limit = 1 << 30
        current_branches, next_branches = self._get_surrounding_branches()
        shared = sum(
            b is next_branch
            for b, next_branch in zip(current_branches, next_branches, strict=False)
        )
        self.open = list(current_branches)
        self.ended_branches = [b for b in current_branches[shared:] if not b.flow]

    def _get_surrounding_branches(
        self,
    ) -> tuple[tuple[LayoutBranch, ...], tuple[LayoutBranch, ...]]:
        """Return the branches around the previous entry, and those around the next one."""
        current_branches = self.nested_entries[self.next - 1][1] if self.next else ()
        next_branches = (
            self.nested_entries[self.next][1] if self.next < len(self.nested_entries) else ()
        )
        return current_branches, next_branches

    def close_brackets(self, index: int) -> LayoutBranch | None:
        """Remove brackets that end before an index; return the outermost of them."""
        closed_branch = None
        while self.open and self.open[-1].flow and self.open[-1].end <= index:
            closed_branch = self.open.pop()
        return closed_branch

    def attach_trailing(self, comment: _LocatedComment) -> None:
        """Attach a comment at the end of a line."""
        closed_branch = self.close_brackets(comment.index)
        owner = self.nested_entries[self.next - 1][0] if self.next else None
        if closed_branch is not None:
            owner = self.holders.get(id(closed_branch))
        if owner is None:
            owner = self.nested_entries[0][0]
            owner.head.append(comment.comment)
        # A line has one end: further comments of an expanded value go above it.
        elif owner.tail is None:
            owner.tail = comment.comment
        else:
            owner.head.append(comment.comment)

    def attach_standalone(self, comment: _LocatedComment) -> None:
        """Attach a comment on its own line."""
        self.limit = min(self.limit, comment.comment.column)
        branch = self.find_foot_branch(comment)
        if branch is not None:
            branch.foot.append(comment.comment)
        else:
            self.nested_entries[self.next][0].head.append(comment.comment)

    def find_foot_branch(self, comment: _LocatedComment) -> LayoutBranch | None:
        """Return the branch with this comment at its foot, or None if the next entry has it."""
        self.close_brackets(comment.index)
        _, next_branches = self._get_surrounding_branches()
        if self.open and self.open[-1].flow:
            inner = self.open[-1]
            level = len(self.open) - 1
            return None if level < len(next_branches) and next_branches[level] is inner else inner
        # The comment belongs to the innermost ended list that is not indented further than any
        # comment since.
        while self.ended_branches and self.ended_branches[-1].column > self.limit:
            self.ended_branches.pop()
        if self.ended_branches:
            return self.ended_branches[-1]
        return None if next_branches else self.root
