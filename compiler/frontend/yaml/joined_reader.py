"""Long texts with a doubtful place, read by libyaml to some way before it, and on by ruamel.yaml.

Most of a text that is broken near its end is without fault. ruamel.yaml is given the rest with the
keys, dashes and brackets that lead to it, and white space in place of all that is done with, so
that what it says has the places of the whole text.
"""

import re
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any

from tcc.compiler.frontend.yaml.reader import YamlReader
from tcc.compiler.frontend.yaml.sound_reader import DoubtError, SoundReader, sound_events, take
from tcc.compiler.frontend.yaml.tree import Scalar, Tree
from tcc.compiler.frontend.yaml.tree_builder import OpenBranch, TreeBuilder

_WINDOW = 1 << 16
"""Letters before the doubtful place from which on ruamel.yaml may begin."""
_NEAR = 4096
"""Letters that it reads at least before that place: more than it looks ahead, which is 1,024."""
_COLON = re.compile(r"[ \t]*:")


def read_joined(builder: TreeBuilder, kept: list[Any], doubt: int) -> None:
    """Hand the builder all that its text holds; `kept` takes the events of both libraries.

    `doubt` is the index before which no fault is.

    Raises:
        DoubtError: where ruamel.yaml must read the whole text; what the builder holds then is
            worth nothing.
        UserError: E0102 where the text is no YAML.
    """
    # ruamel.yaml might begin at the text's start, and so has to read all of it.
    if doubt <= _WINDOW:
        raise DoubtError
    head = _Head(builder)
    first = head.read(kept, doubt)
    rest = YamlReader(builder)
    rest.follow(head)
    rest.read(_events(_Lead(head, first)), kept)


class _Head(SoundReader):
    """Reads what libyaml says up to an entry at which ruamel.yaml may begin."""

    def __init__(self, builder: TreeBuilder) -> None:
        super().__init__(builder)
        self.own = builder
        self.flow: list[bool] = []
        self.first: Any = None

    def read(self, kept: list[Any], doubt: int) -> Any:
        """Pass on all events before some entry; return its event."""
        take(self, self._before(kept, doubt))
        first = self.first
        if first is None or first.start_mark.index > doubt - _NEAR:
            raise DoubtError
        # Colons that are left stand where the two libraries differ (`_GLUED`).
        if any(at < first.start_mark.index for at in self.glued):
            raise DoubtError
        self.reached = kept[-1].start_mark.index
        return first

    def mapping(self, event: Any) -> None:
        """Pass a mapping's start on."""
        self.flow.append(bool(event.flow_style))
        super().mapping(event)

    def sequence(self, event: Any) -> None:
        """Pass a list's start on."""
        self.flow.append(bool(event.flow_style))
        super().sequence(event)

    def close(self, event: Any) -> None:
        """Pass the end of a list or mapping on."""
        self.flow.pop()
        super().close(event)

    def _before(self, kept: list[Any], doubt: int) -> Iterator[Any]:
        for event in sound_events(self.text):
            late = event.start_mark.index >= doubt - _WINDOW and self.builder is self.own
            if late and self._may_begin(event):
                self.first = event
                return
            kept.append(event)
            yield event

    def _may_begin(self, event: Any) -> bool:
        """Return whether an event is that of an entry in brackets, or the first of its line."""
        opened = self.builder.opened
        # Ends have no anchor. With a tag before the anchor the two libraries name different starts.
        if not opened or not hasattr(event, "anchor") or (event.anchor and _tag(event)):
            return False
        if any(level.mapping and len(level.children) % 2 == 0 for level in opened[:-1]):
            return False  # within a key
        inner, start = opened[-1], event.start_mark.index
        # A value, which cannot begin without its key.
        if inner.mapping and len(inner.children) % 2:
            return False
        if self.flow[-1]:
            # The mapping in `[a: b]` has no bracket of its own.
            return self.text[inner.start] in "[{"
        before = self.text[start - event.start_mark.column : start].strip(" ")
        return before == ("" if inner.mapping else "-")


class _Lead:
    """What of a text leads to an entry: pieces that are kept, and the events that they make."""

    def __init__(self, head: _Head, first: Any) -> None:
        self.source, self.text, self.first = head.source, head.text, first
        self.pieces: list[tuple[int, int]] = []
        self.events: list[tuple[str, int | None]] = []
        opened = head.builder.opened
        for level, flow, inner in zip(opened, head.flow, (*opened[1:], None), strict=True):
            self._note("MappingStartEvent" if level.mapping else "SequenceStartEvent", level.start)
            if flow:
                self._brackets(level, inner)
            elif level.mapping:
                self._keys(level, inner)
            else:
                self._dashes(level, inner)

    def rest(self) -> str:
        """Return the text with white space in place of all before the entry that is not kept."""
        start = self.first.start_mark.index
        row = start - self.first.start_mark.column
        begin = row if self.text[row:start].strip(" ") in ("", "-") else start
        ends = [0, *chain.from_iterable(self.pieces), begin]
        if any(start > end for start, end in pairwise(ends)):
            raise DoubtError
        kept = [self.text[start:end] for start, end in self.pieces]
        blank = [_blank(self.text[start:end]) for start, end in zip(*[iter(ends)] * 2, strict=True)]
        joined = chain.from_iterable(zip(blank, [*kept, self.text[begin:]], strict=True))
        return "".join(joined)

    def _note(self, kind: str, start: int | None) -> None:
        self.events.append((kind, start))

    def _brackets(self, level: OpenBranch, inner: OpenBranch | None) -> None:
        if self.text[level.start] in "[{":
            self.pieces.append((level.start, level.start + 1))
        if level.mapping and inner:
            self._key(level.children[-1])

    def _keys(self, level: OpenBranch, inner: OpenBranch | None) -> None:
        """Keep the first key, from which messages know the mapping, and the one that is open."""
        keys = level.children[:1]
        if inner and len(level.children) > 1:
            keys = [keys[0], level.children[-1]]
        for number, key in enumerate(keys, 1):
            self._key(key)
            if number < len(keys) or not inner:
                self._note("ScalarEvent", None)

    def _key(self, key: Tree) -> None:
        if not isinstance(key, Scalar):
            raise DoubtError
        start = self.source.starts[key.span.line - 1] + key.span.column - 1
        colon = _COLON.match(self.text, start + key.span.width)
        if colon is None:
            raise DoubtError
        self.pieces.append((start, colon.end()))
        self._note("ScalarEvent", start)

    def _dashes(self, level: OpenBranch, inner: OpenBranch | None) -> None:
        """Keep the first dash and the one whose entry is open."""
        if level.children:
            self.pieces.append((level.start, level.start + 1))
            self._note("ScalarEvent", None)
        if inner:
            dash = self._dash(level.start, inner.start)
            self.pieces.append((dash, dash + 1))

    def _dash(self, first: int, below: int) -> int:
        """Return the index of the last dash of a list before what stands in its entry."""
        top = self.source.line(first)
        column = first - self.source.starts[top]
        for row in range(self.source.line(below), top - 1, -1):
            index, line = self.source.starts[row] + column, self.source.lines[row]
            if index < below and line[column : column + 1] == "-" and "#" not in line[:column]:
                return index
        raise DoubtError


def _events(lead: _Lead) -> Iterator[Any]:
    """Return ruamel.yaml's events from the first entry on."""
    from tcc.compiler.frontend.yaml.events import events

    found = events(lead.rest())
    try:
        # First come the starts of the stream and of the document.
        begun = [next(found) for _ in range(2 + len(lead.events))][2:]
        first = next(found)
    except Exception as error:  # as the library's own slips come in many types
        raise DoubtError from error
    same = _kind(first) == _kind(lead.first)
    same &= first.start_mark.index == lead.first.start_mark.index
    for event, (kind, start) in zip(begun, lead.events, strict=True):
        same &= _kind(event) == kind and start in (None, event.start_mark.index)
    if not same:
        raise DoubtError
    return chain((first,), found)


def _kind(event: Any) -> str:
    return type(event).__name__


def _tag(event: Any) -> Any:
    return getattr(event, "tag", None)


def _blank(piece: str) -> str:
    """Return white space as long as a piece of text, with the last of its line ends."""
    # Columns say what belongs to what: the line end before the next piece has to stay. Lines are
    # told from the index, for which the others need not.
    last = max(piece.rfind("\n"), piece.rfind("\r"))
    if last < 0:
        return " " * len(piece)
    return " " * last + "\n" + " " * (len(piece) - last - 1)
