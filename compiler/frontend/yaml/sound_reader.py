"""Texts without fault, read by libyaml in C; of others it says no more than that they are.

libyaml reads YAML 1.1, ruamel.yaml 1.2. Of what both take nearly all means the same; what does not
is looked for here. Such a text is left to the reader in Python, as is each that libyaml refuses, so
that the meaning of every text, and what is said of a broken one, is ruamel.yaml's.
"""

import re
from collections.abc import Iterator
from typing import Any

from tcc.compiler.frontend.yaml.reader import EventReader, after_properties, missing_at, resolve
from tcc.compiler.frontend.yaml.tree import Scalar
from tcc.compiler.frontend.yaml.tree_builder import MAX_DEPTH, TreeBuilder
from tcc.compiler.support.diagnostics import Span, UserError

_TRIED = (0, 2, 5)
"""The version of libyaml, of 2020, that was compared with ruamel.yaml."""
_READ_OTHERWISE = re.compile(
    r"""
    (?:^|[\s,:?\[\]{}-]) \? (?!\w)           # `? key`: a missing one has another place
    | [\]}][ \t]*:(?![ \r\n]|$)              # `[[]:b]`: an error to one of the two
    | ["'](?:[ \t]+:(?![ \r\n]|$)|:[\t:])    # `{"a"::b}`, `{"a" :b}`: likewise
    """,
    re.VERBOSE,
)
_GLUED = re.compile(r"""["'](:)(?![ \t\r\n:]|$)""")
"""A colon that makes a key in braces, of JSON that is YAML; elsewhere the two differ."""
_LETTER = r"[0-9A-Za-z_\xa1-\u2027\u202f-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff-]"
_OTHER_NAME = rf"(?<=[&*])[0-9A-Za-z_-]*+[^\x00-\x7f]{_LETTER}*+"
"""What may be an anchor's name of letters that libyaml takes for none, and ruamel.yaml does."""
_ALIAS = rf"[&*](?P<name>{_LETTER}+)(?=[ \r\n,\]}}]|$)"
"""An anchor or alias; further letters belong to it for one of the two alone."""
_TAG = r"(?:!!(?:str|int|float|bool|null|seq|map)|!)(?=[ \r\n]|$)"
_TAGGED = rf"(?P<tag>{_TAG})(?:\ +(?P<mark>&(?P<name>{_LETTER}+)(?=[ \r\n]|$)))?"
_MARKED = rf"(?P<mark>&(?P<name>{_LETTER}+))(?:(?=[ \r\n,\]}}]|$)(?:\ +(?P<tag>{_TAG}))?)"
"""A tag and an anchor, of the core schema, which both read alike.

Patterns of so many letters take milliseconds to compile: `re` keeps them once a text needs them.
"""
_BLOCK_TEXT = re.compile(r"[|>][-+]?(?:\r\n|\r|\n) +[^ \r\n]")
"""How a block of text begins; the two differ where a comment or a number follows its mark."""
_DEEPER = {
    "SequenceStartEvent": 1,
    "MappingStartEvent": 1,
    "SequenceEndEvent": -1,
    "MappingEndEvent": -1,
}
_AHEAD_EVENTS, _AHEAD_LETTERS = 8, 2048
"""How far beyond a broken limit a fault is looked for: further than ruamel.yaml would have read to
know whether a value is a key, which has 1,024 letters at most."""


class DoubtError(Exception):
    """The text is broken, or perhaps read in another way by ruamel.yaml; not before an index."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(at)
        self.at = at


def read_sound(builder: TreeBuilder) -> None:
    """Hand the builder all that its text holds, if that is without fault.

    Raises:
        DoubtError: where it may not be; what the builder holds then is worth nothing.
        UserError: where a limit is broken before any fault.
    """
    text = builder.source.text
    doubtful = [found.start() for found in (_READ_OTHERWISE.search(text),) if found]
    doubtful += [at for at in (_fault(_readable(text)),) if at is not None]
    if doubtful:
        raise DoubtError(min(doubtful))
    reader = SoundReader(builder)
    take(reader, sound_events(text))
    if reader.glued:
        raise DoubtError(min(reader.glued))


def sound_events(text: str) -> Iterator[Any]:
    """Return libyaml's events of a text, of which it may not be the right reader.

    Their anchors are worth nothing where they are of other letters than ASCII's.

    Raises:
        DoubtError: where there is no libyaml, or another version than the one compared.
    """
    return iter(_parser(_readable(text)).get_event, None)


def _readable(text: str) -> str:
    """Return a text with anchors that libyaml can read in place of those that it cannot."""
    if text.isascii():
        return text
    # Of the same length, so that every index stays.
    return re.sub(_OTHER_NAME, lambda found: "a" * len(found.group()), text)


def _parser(text: str) -> Any:
    try:
        from yaml._yaml import CParser, get_version
    except ImportError:  # PyYAML was built without libyaml
        raise DoubtError from None
    if get_version() != _TRIED:
        raise DoubtError
    return CParser(text)


def _fault(text: str) -> int | None:
    """Return the index at which what libyaml cannot read begins; None if limits come first."""
    parser = _parser(text)
    from yaml import MarkedYAMLError, YAMLError
    from yaml.scanner import ScannerError

    try:
        _read_through(parser, text)
    except MarkedYAMLError as error:
        # A piece of text is broken from its start on, a list or mapping from the piece on.
        pieces = isinstance(error, ScannerError)
        marks = (error.context_mark if pieces else None, error.problem_mark)
        return min((mark.index for mark in marks if mark), default=0)
    except (YAMLError, ValueError):
        return 0
    return None


def _read_through(parser: Any, text: str) -> None:
    """Let libyaml read a text, up to where it is too deep.

    At each word libyaml looks at all brackets that are open: 100,000 of them would take a minute.
    It needs no events to tell faults, and is ten times as fast without them.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        parser.raw_parse()
        return
    depth = 0
    for event in iter(parser.get_event, None):
        depth += _DEEPER.get(type(event).__name__, 0)
        if depth > MAX_DEPTH:
            return


def take(reader: "SoundReader", events: Iterator[Any]) -> None:
    """Pass events on, up to the last or to a limit that is broken.

    Raises:
        DoubtError: where they are not ruamel.yaml's.
        UserError: where a limit is broken before any fault.
    """
    try:
        _take(reader, events)
    except (UserError, DoubtError):
        raise
    except Exception as error:  # YAMLError, which is known where it is raised, ValueError
        raise DoubtError from error


def _take(reader: "SoundReader", events: Iterator[Any]) -> None:
    takes, event = reader.takes, None
    try:
        for event in events:
            takes[type(event).__name__](event)
    except UserError:
        # ruamel.yaml reads ahead of what it hands on: a fault just behind the limit is what it
        # would tell instead.
        last = event.end_mark.index + _AHEAD_LETTERS if event else 0
        reader.builder = _Nowhere(reader.source)
        for number, event in enumerate(events):
            takes[type(event).__name__](event)
            if number >= _AHEAD_EVENTS and event.start_mark.index > last:
                break
        if any(at <= last for at in reader.glued):
            raise DoubtError from None
        raise


class _Nowhere(TreeBuilder):
    """Takes what follows a broken limit, and keeps none of it."""

    awaits_value = False

    def scalar(self, scalar: Scalar, anchor: str | None = None) -> None:
        """Take a value or key."""

    def open(self, start: int, *, mapping: bool, anchor: str | None = None) -> None:
        """Take the start of a mapping or list."""

    def close(self, end: int | None = None) -> None:
        """Take the end of what was opened last."""

    def alias(self, name: str, span: Span) -> None:
        """Take a reference."""


class SoundReader(EventReader):
    """Reads what libyaml says, and doubts what ruamel.yaml may say otherwise."""

    def __init__(self, builder: TreeBuilder) -> None:
        super().__init__(builder)
        self.text = builder.source.text
        self.readable = _readable(self.text)
        self.renamed = self.readable != self.text
        self.glued = {found.start(1) for found in _GLUED.finditer(self.text)}

    def document(self, event: Any) -> None:
        """Doubt whatever a document begins with."""
        self.documents += 1
        if self.documents > 1 or event.version or event.tags:
            raise DoubtError(event.start_mark.index)

    def scalar(self, event: Any) -> None:
        """Pass a value on."""
        mark = event.start_mark
        begin = start = mark.index
        end, anchor, quoted = event.end_mark.index, event.anchor, event.style != ""
        if anchor or event.tag is not None:
            begin, start, anchor = self._properties(event, end)
            span = self.source.span(start, end)
        elif start == end:
            if self.builder.awaits_value:
                start = end = missing_at(self.text, self.key, start)
            span = self.source.span(start, end)
        else:
            span = self.source.span_in(mark.line, start, end)
        self.key = end
        self.last = (end if quoted else start, end)
        self._check_text(event, start, end)
        value = event.value if quoted else resolve(event.value)
        if event.tag is not None:
            value = self.tagged(event.tag, event.value, begin, end)
        self.builder.scalar(Scalar(value, span, quoted), anchor)

    def mapping(self, event: Any) -> None:
        """Pass a mapping's start on."""
        self._open(event, "map")

    def sequence(self, event: Any) -> None:
        """Pass a list's start on."""
        self._open(event, "seq")

    def alias(self, event: Any) -> None:
        """Pass a reference on."""
        start, self.key = event.start_mark.index, event.end_mark.index
        found = re.compile(_ALIAS).match(self.text, start)
        if found is None:
            raise DoubtError(start)
        self.builder.alias(found["name"], self.source.span(start, self.key))

    def _open(self, event: Any, kind: str) -> None:
        start, anchor = event.start_mark.index, event.anchor
        if anchor or event.tag is not None:
            begin, start, anchor = self._properties(event, len(self.text))
            if event.tag is not None:
                self.check_tag(event.tag, begin, kind)
        self.key = start
        self.builder.open(start, mapping=kind == "map", anchor=anchor)

    def _check_text(self, event: Any, start: int, end: int) -> None:
        """Doubt a value that is not what the text says."""
        if event.style in ("|", ">") and not _BLOCK_TEXT.match(self.text, start):
            raise DoubtError(start)
        if self.renamed and self.text[start:end] != self.readable[start:end]:
            raise DoubtError(start)
        if end in self.glued and event.style in ("'", '"') and self.builder.awaits_key_in_braces:
            self.glued.discard(end)

    def _properties(self, event: Any, end: int) -> tuple[int, int, str | None]:
        """Return where an event starts, where its content does, and its anchor.

        ruamel.yaml takes an anchor after a tag for the start.
        """
        start = event.start_mark.index
        marked, tagged = re.compile(_MARKED), re.compile(_TAGGED)
        found = marked.match(self.text, start) or tagged.match(self.text, start)
        if (
            found is None
            or (found["tag"] is None) != (event.tag is None)
            or (found["name"] is None) != (event.anchor is None)
        ):
            raise DoubtError(start)
        begin = found.start("mark") if found["mark"] else start
        return begin, after_properties(self.text, start, end), found["name"]
