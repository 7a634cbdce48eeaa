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
from tcc.compiler.frontend.yaml.tree_builder import TreeBuilder
from tcc.compiler.support.diagnostics import Span, UserError

_TRIED = (0, 2, 5)
"""The version of libyaml, of 2020, that was compared with ruamel.yaml."""
_READ_OTHERWISE = re.compile(
    r"""
    (?:^|[\s,:?\[\]{}-]) \? (?!\w)  # `? key`: a missing one has another place
    | ["'\]}][ \t]*:(?![ \r\n]|$)        # `["a":b]`: two entries to the one, an error to the other
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"[&*][0-9A-Za-z_-]+(?=[ \r\n,\]}]|$)")
"""An anchor or alias; further letters belong to it for one of the two alone."""
_BLOCK_TEXT = re.compile(r"[|>][-+]?(?:\r\n|\r|\n) +[^ \r\n]")
"""How a block of text begins; the two differ where a comment or a number follows its mark."""
_AHEAD_EVENTS, _AHEAD_LETTERS = 8, 2048
"""How far beyond a broken limit a fault is looked for: further than ruamel.yaml would have read to
know whether a value is a key, which has 1,024 letters at most."""


class DoubtError(Exception):
    """The text is broken, beyond a limit, or perhaps read in another way by ruamel.yaml."""


def read_sound(builder: TreeBuilder) -> None:
    """Hand the builder all that its text holds, if that is without fault.

    Raises:
        DoubtError: where it may not be; what the builder holds then is worth nothing.
        UserError: where a limit is broken before any fault.
    """
    text = builder.source.text
    if _READ_OTHERWISE.search(text):
        raise DoubtError
    found = sound_events(text)
    from yaml import YAMLError

    try:
        _take(_Reader(builder), found)
    except (YAMLError, ValueError) as error:
        raise DoubtError from error


def sound_events(text: str) -> Iterator[Any]:
    """Return libyaml's events of a text, of which it may not be the right reader.

    Raises:
        DoubtError: where there is no libyaml, or another version than the one compared.
    """
    try:
        from yaml._yaml import CParser, get_version
    except ImportError:  # PyYAML was built without libyaml
        raise DoubtError from None
    if get_version() != _TRIED:
        raise DoubtError
    return iter(CParser(text).get_event, None)


def _take(reader: "_Reader", events: Iterator[Any]) -> None:
    """Pass events on, up to the last or to a limit that is broken."""
    takes, event = reader.takes, None
    try:
        for event in events:
            takes[type(event).__name__](event)
    except UserError:
        last = event.end_mark.index + _AHEAD_LETTERS if event else 0
        reader.builder = _Nowhere(reader.source)
        for number, event in enumerate(events):
            takes[type(event).__name__](event)
            if number >= _AHEAD_EVENTS and event.start_mark.index > last:
                break
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


class _Reader(EventReader):
    """Reads what libyaml says, and doubts what ruamel.yaml may say otherwise."""

    def __init__(self, builder: TreeBuilder) -> None:
        super().__init__(builder)
        self.text = builder.source.text

    def document(self, event: Any) -> None:
        """Doubt whatever a document begins with."""
        self.documents += 1
        if self.documents > 1 or event.version or event.tags:
            raise DoubtError

    def scalar(self, event: Any) -> None:
        """Pass a value on."""
        mark = event.start_mark
        start, end = mark.index, event.end_mark.index
        if event.anchor or event.tag is not None:
            start = self._after_anchor(event, end)
            span = self.source.span(start, end)
        elif start == end:
            if self.builder.awaits_value:
                start = end = missing_at(self.text, self.key, start)
            span = self.source.span(start, end)
        else:
            span = self.source.span_in(mark.line, start, end)
        self.key = end
        quoted = event.style != ""
        if event.style in ("|", ">") and not _BLOCK_TEXT.match(self.text, start):
            raise DoubtError
        value = event.value if quoted else resolve(event.value)
        self.builder.scalar(Scalar(value, span, quoted), event.anchor)

    def mapping(self, event: Any) -> None:
        """Pass a mapping's start on."""
        self._open(event, mapping=True)

    def sequence(self, event: Any) -> None:
        """Pass a list's start on."""
        self._open(event, mapping=False)

    def alias(self, event: Any) -> None:
        """Pass a reference on."""
        start, self.key = event.start_mark.index, event.end_mark.index
        self._check_name(start)
        self.builder.alias(event.anchor, self.source.span(start, self.key))

    def _open(self, event: Any, *, mapping: bool) -> None:
        start = event.start_mark.index
        if event.anchor or event.tag is not None:
            start = self._after_anchor(event, len(self.text))
        self.key = start
        self.builder.open(start, mapping=mapping, anchor=event.anchor)

    def _after_anchor(self, event: Any, end: int) -> int:
        start: int = event.start_mark.index
        if event.tag is not None:
            raise DoubtError
        self._check_name(start)
        return after_properties(self.text, start, end)

    def _check_name(self, start: int) -> None:
        if not _NAME.match(self.text, start):
            raise DoubtError
