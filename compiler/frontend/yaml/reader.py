"""YAML reader: passes the events of ruamel.yaml to the tree builder."""

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
# Core schema of YAML 1.2 (10.3.2): 0o7 and 0x1f, but not 1_000 and 0777 as in YAML 1.1.
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
# Possessive, so that no text causes backtracking.
_PROPERTIES = re.compile(r"(?:(?:!<[^>\s]*+>|[&!][^\s,\[\]{}]*+)(?:\s|#[^\r\n]*+)*)*")
_COLON = re.compile(r"[ \t]*:?")
_CORE = "tag:yaml.org,2002:"
_KINDS = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}


def read_yaml(builder: TreeBuilder, consumed: list[Any]) -> None:
    """Pass the contents of a YAML text to its builder; `consumed` collects the events.

    Raises:
        UserError: The text is not valid YAML (E0102).
    """
    from tcc.compiler.frontend.yaml.events import parse_events  # ruamel.yaml loads slowly

    YamlReader(builder).read_events(parse_events(builder.source.text), consumed)


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar in the core schema."""
    if text in _LITERALS:
        return _LITERALS[text]
    # Most scalars start like no number, so they need no match.
    if text[0] in "+-.0123456789" and (number_match := _NUMBER.fullmatch(text)):
        kind = str(number_match.lastgroup)
        return _NUMBER_PARSERS[kind](number_match[kind])
    return text


def skip_properties(text: str, start: int, end: int) -> int:
    """Return the index after the anchor and tag at `start`, and after the space behind them."""
    properties_match = _PROPERTIES.match(text, start, end)
    return properties_match.end() if properties_match else start


def find_missing_value(text: str, key: int, mark: int) -> int:
    """Return the index where the missing value of a key would start; the key ends at `key`.

    The mark of the library is sometimes that of the next token.
    """
    colon_match = _COLON.match(text, key)
    return min(mark, colon_match.end() if colon_match else mark)


def _skip(_event: Any) -> None:
    """Ignore an event without content."""


class YamlReader:
    """Handles the events of ruamel.yaml by kind, and refuses what specs must not contain."""

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
        """Handle all events; `consumed` collects them.

        Raises:
            UserError: The text is not valid YAML (E0102).
        """
        try:
            for event in events:
                consumed.append(event)
                self.reached = event.start_mark.index
                self.handlers[type(event).__name__](event)
        except UserError:
            raise
        except Exception as error:  # the library raises many types on invalid text
            at = (self.reached, self.last_scalar, self.builder.bracket)
            raise explain_error(error, self.source, *at) from None

    def read_document(self, event: Any) -> None:
        """Refuse a second document, and a YAML version other than 1.2."""
        self.document_count += 1
        span = self.source.get_span(event.start_mark.index, event.end_mark.index)
        if self.document_count > 1:
            raise fail(
                "E0107", "a second document starts here", span, help="use one file per document"
            )
        # In YAML 1.1, `on` is a Boolean and `0777` is octal. Such a file must not be read with
        # other rules here.
        if event.version not in (None, (1, 2)):
            version = ".".join(map(str, event.version))
            message = f"the file needs YAML {version}, but only 1.2 is supported"
            raise fail("E0107", message, span, help="remove this line, or write `%YAML 1.2`")

    def read_scalar(self, event: Any) -> None:
        """Handle a scalar."""
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
        """Handle the start of a mapping."""
        self._open_branch(event, "map")

    def open_sequence(self, event: Any) -> None:
        """Handle the start of a list."""
        self._open_branch(event, "seq")

    def close_branch(self, event: Any) -> None:
        """Handle the end of a list or mapping."""
        start, end = event.start_mark.index, event.end_mark.index
        # The end of a block has no length: it is where the next item starts.
        self.key = max(self.key, end if end > start else 0)
        self.builder.close_branch(end if end > start else None)

    def read_alias(self, event: Any) -> None:
        """Handle an alias."""
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
        """Return the core name of a tag, `str` for `!`; report an error for other tags."""
        name = tag.removeprefix(_CORE) if tag.startswith(_CORE) else {"!": "str"}.get(tag)
        if name in allowed:
            return name
        message = f"the tag `{tag.replace(_CORE, '!!')[:40]}` is not allowed here"
        hint = "remove the tag; put text that starts with `!` in quotes, and write `not x` for `!x`"
        self.builder.add_error("E0107", message, self.source.get_span(start, start + 1), help=hint)
        return None

    def convert_tagged(self, tag: str, text: str, start: int, end: int) -> Any:
        """Return the value of a scalar with a tag."""
        name = self.check_tag(tag, start, *_KINDS)
        if name == "str":
            return text
        value = resolve(text)
        # `!!float 1` is a float without a decimal point.
        if name == "float" and type(value) is int:
            return float(value)
        if name is not None and type(value) is not _KINDS[name]:
            span = self.source.get_span(start, end)
            self.builder.add_error("E0107", f"the text `{text[:40]}` is not a valid !!{name}", span)
        return value
