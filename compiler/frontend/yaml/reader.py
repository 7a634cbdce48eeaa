"""YAML's events, from ruamel.yaml, handed to the builder of the tree."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from tcc.compiler.frontend.yaml.syntax_errors import explain_error
from tcc.compiler.frontend.yaml.tree_builder import Scalar, TreeBuilder, parse_digits
from tcc.compiler.support.diagnostics import UserError, fail

_LITERALS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# YAML 1.2's core schema (10.3.2): 0o7 and 0x1f, and neither 1_000 nor 0777, which 1.1 reads.
_NUMBER = re.compile(
    r"(?P<int>[-+]?[0-9]+)|0o(?P<octal>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<inf>[-+]?\.(?:inf|Inf|INF))|(?P<nan>\.(?:nan|NaN|NAN))"
)
_NUMBER_PARSERS: dict[str, Callable[[str], int | float]] = {
    "int": parse_digits,
    "octal": lambda text: int(text, 8),
    "hex": lambda text: int(text, 16),
    "float": float,
    "inf": lambda text: float(text.replace(".", "")),
    "nan": lambda _: float("nan"),
}
# Possessive, so that no text of many marks is tried in two ways.
_PROPERTIES = re.compile(r"(?:(?:!<[^>\s]*+>|[&!][^\s,\[\]{}]*+)(?:\s|#[^\r\n]*+)*)*")
_COLON = re.compile(r"[ \t]*:?")
_CORE = "tag:yaml.org,2002:"
_KINDS = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}


def read_yaml(builder: TreeBuilder, consumed: list[Any]) -> None:
    """Hand the builder all that its text holds, read as YAML; `consumed` takes the events.

    Raises:
        UserError: E0102 where the text is no YAML.
    """
    from tcc.compiler.frontend.yaml.events import parse_events  # ruamel.yaml takes long to load

    YamlReader(builder).read_events(parse_events(builder.source.text), consumed)


def resolve(text: str) -> str | int | float | bool | None:
    """Return what a word without quotes stands for in the core schema."""
    if text in _LITERALS:
        return _LITERALS[text]
    # Most words begin as no number does, and cost no match.
    if text[0] in "+-.0123456789" and (number_match := _NUMBER.fullmatch(text)):
        kind = str(number_match.lastgroup)
        return _NUMBER_PARSERS[kind](number_match[kind])
    return text


def skip_properties(text: str, start: int, end: int) -> int:
    """Return the index after the anchor and tag that stand at `start`, and the space after them."""
    properties_match = _PROPERTIES.match(text, start, end)
    return properties_match.end() if properties_match else start


def find_missing_value(text: str, key: int, mark: int) -> int:
    """Return the index at which a key's missing value would start; `key` is that of its end.

    The library's own mark is sometimes that of the next token.
    """
    colon_match = _COLON.match(text, key)
    return min(mark, colon_match.end() if colon_match else mark)


def _skip(_event: Any) -> None:
    """Let an event without content pass."""


class YamlReader:
    """Reads ruamel.yaml's events, one method for each kind, and refuses what specs may not have."""

    def __init__(self, builder: TreeBuilder) -> None:
        self.builder = builder
        self.source = builder.source
        self.key = 0
        self.reached = 0
        self.last_scalar = (0, 0)
        self.document_count = 0
        self.handlers: dict[str, Callable[[Any], None]] = {
            "StreamStartEvent": _skip,
            "StreamEndEvent": _skip,
            "DocumentStartEvent": self.read_document,
            "DocumentEndEvent": _skip,
            "ScalarEvent": self.read_scalar,
            "MappingStartEvent": self.open_mapping,
            "MappingEndEvent": self.close_branch,
            "SequenceStartEvent": self.open_sequence,
            "SequenceEndEvent": self.close_branch,
            "AliasEvent": self.read_alias,
        }

    def read_events(self, events: Iterable[Any], consumed: list[Any]) -> None:
        """Pass all events on; `consumed` takes them.

        Raises:
            UserError: E0102 where the text is no YAML.
        """
        try:
            for event in events:
                consumed.append(event)
                self.reached = event.start_mark.index
                self.handlers[type(event).__name__](event)
        except UserError:
            raise
        except Exception as error:  # the library's own slips on hostile text come in many types
            at = (self.reached, self.last_scalar, self.builder.bracket)
            raise explain_error(error, self.source, *at) from None

    def read_document(self, event: Any) -> None:
        """Refuse a second document, and a version that is not 1.2."""
        self.document_count += 1
        span = self.source.get_span(event.start_mark.index, event.end_mark.index)
        if self.document_count > 1:
            raise fail(
                "E0107", "a second document starts here", span, help="use one file per document"
            )
        # 1.1 would make `on` a truth value and `0777` another number: the file means what it says
        # elsewhere, so that it is not read by other rules here.
        if event.version not in (None, (1, 2)):
            version = ".".join(map(str, event.version))
            raise fail("E0107", f"the file needs YAML {version}, but only 1.2 is supported", span)

    def read_scalar(self, event: Any) -> None:
        """Pass a value on."""
        start, end = event.start_mark.index, event.end_mark.index
        if event.anchor or event.ctag is not None:
            start = skip_properties(self.source.text, start, end)
        elif start == end and self.builder.awaits_value:
            start = end = find_missing_value(self.source.text, self.key, start)
        self.key = end
        span = self.source.get_span(start, end)
        quoted = event.style is not None
        self.last_scalar = (end if quoted else start, end)
        value = event.value if quoted else resolve(event.value)
        if event.ctag is not None:
            value = self.convert_tagged(str(event.ctag), event.value, event.start_mark.index, end)
        self.builder.add_scalar(Scalar(value, span, quoted), event.anchor)

    def open_mapping(self, event: Any) -> None:
        """Pass a mapping's start on."""
        self._open_branch(event, "map")

    def open_sequence(self, event: Any) -> None:
        """Pass a list's start on."""
        self._open_branch(event, "seq")

    def close_branch(self, event: Any) -> None:
        """Pass the end of a list or mapping on."""
        start, end = event.start_mark.index, event.end_mark.index
        # A block's end has no length: it is where the next thing begins.
        self.key = max(self.key, end if end > start else 0)
        self.builder.close_branch(end if end > start else None)

    def read_alias(self, event: Any) -> None:
        """Pass a reference on."""
        start, self.key = event.start_mark.index, event.end_mark.index
        self.builder.add_alias(event.anchor, self.source.get_span(start, self.key))

    def _open_branch(self, event: Any, kind: str) -> None:
        start = event.start_mark.index
        if event.ctag is not None:
            self.check_tag(str(event.ctag), start, kind)
        if event.anchor or event.ctag is not None:
            start = skip_properties(self.source.text, start, len(self.source.text))
        self.key = start
        self.builder.open_branch(start, mapping=kind == "map", anchor=event.anchor)

    def check_tag(self, tag: str, start: int, *allowed: str) -> str | None:
        """Return the core tag that one stands for, `str` for `!`; a wrong one is an error."""
        name = tag.removeprefix(_CORE) if tag.startswith(_CORE) else {"!": "str"}.get(tag)
        if name in allowed:
            return name
        message = f"the tag `{tag.replace(_CORE, '!!')[:40]}` is not allowed here"
        hint = "remove the tag; put text that starts with `!` in quotes, and write `not x` for `!x`"
        self.builder.add_error("E0107", message, self.source.get_span(start, start + 1), help=hint)
        return None

    def convert_tagged(self, tag: str, text: str, start: int, end: int) -> Any:
        """Return a scalar's value under its tag."""
        name = self.check_tag(tag, start, *_KINDS)
        if name == "str":
            return text
        value = resolve(text)
        # `!!float 1` is a float written without a point.
        if name == "float" and type(value) is int:
            return float(value)
        if name is not None and type(value) is not _KINDS[name]:
            span = self.source.get_span(start, end)
            self.builder.add_error("E0107", f"the text `{text[:40]}` is not a valid !!{name}", span)
        return value
