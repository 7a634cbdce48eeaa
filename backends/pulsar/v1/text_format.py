"""The text form of protocol buffers, as far as Pulsar's configuration uses it.

A text is fields: `name: value`, or `name { fields }`; a value is a quoted string, a number, a word
(of an enumeration, or true or false) or a list of values in brackets; `#` begins a comment.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

DEEPEST = 20
"""Messages in messages."""
_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n]+|#[^\n]*)"
    r'|(?P<string>"(?:[^"\\\n]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*")'
    r"|(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z_.]))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>[{}\[\]:,])"
)


class ConfigError(ValueError):
    """A configuration is wrong at a line and column, which count from 1."""

    def __init__(self, at: "TextPlace", what: str) -> None:
        super().__init__(f"{at.line}:{at.column}: {what}")
        self.at, self.what = at, what


@dataclass(frozen=True, slots=True)
class TextPlace:
    """A line and a column."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word of an enumeration, or `true` or `false`."""

    text: str


FieldValue = str | float | int | Word


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its value, or its values where these stand in brackets."""

    name: str
    value: "FieldValue | tuple[FieldValue, ...] | Message"
    at: TextPlace = TextPlace(0, 0)


Message = list[Field]


def write(message: Message, depth: int = 0) -> str:
    """Return the text of a message, a field a line."""
    return "".join(_lines(message, "  " * depth, depth))


def _lines(message: Message, indent: str, depth: int) -> Iterator[str]:
    for field in message:
        match field.value:
            case list() as inner:
                yield f"{indent}{field.name} {{\n{write(inner, depth + 1)}{indent}}}\n"
            case tuple() as values:
                yield f"{indent}{field.name}: [{', '.join(map(_spelled, values))}]\n"
            case value:
                yield f"{indent}{field.name}: {_spelled(value)}\n"


def _spelled(value: FieldValue) -> str:
    match value:
        case Word(text):
            return text
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            # Nine digits tell every float32 from its neighbours; protocol buffers keep no more.
            return f"{value:.9g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: TextPlace


def parse(text: str) -> Message:
    """Return the fields of a text.

    Raises:
        ConfigError: It is not of this form.
    """
    return _Parser(list(_tokens(text))).fields("end", 0)


def _tokens(text: str) -> Iterator[_Token]:
    line, start, position = 1, 0, 0
    while position < len(text):
        at = TextPlace(line, position - start + 1)
        found = _TOKEN.match(text, position)
        if not found:
            raise ConfigError(at, f"`{text[position]}` begins nothing that is known")
        kind, word = found.lastgroup or "", found[0]
        if kind != "blank":
            yield _Token(kind, word, at)
        if "\n" in word:
            line += word.count("\n")
            start = position + word.rindex("\n") + 1
        position = found.end()
    yield _Token("end", "the end", TextPlace(line, position - start + 1))


@dataclass(slots=True)
class _Parser:
    tokens: list[_Token]
    next: int = 0

    def take(self) -> _Token:
        """Return the next token; the end comes again and again."""
        token = self.tokens[min(self.next, len(self.tokens) - 1)]
        self.next += 1
        return token

    def peek(self) -> _Token:
        """Return the next token, which stays."""
        return self.tokens[min(self.next, len(self.tokens) - 1)]

    def fields(self, close: str, depth: int) -> Message:
        """Return the fields up to a token of a kind or text, which is taken."""
        found: Message = []
        if depth > DEEPEST:
            raise ConfigError(self.peek().at, f"more than {DEEPEST} messages in each other")
        while (token := self.take()).text != close and token.kind != close:
            if token.kind != "word":
                raise ConfigError(token.at, f"{token.text} stands where a field's name is due")
            found.append(self.field(token, depth))
        return found

    def field(self, name: _Token, depth: int) -> Field:
        """Return the field of a name that was taken."""
        mark = self.take()
        # Both `name: {` and `name {` are the text form of a message.
        if mark.text == ":" and self.peek().text == "{":
            mark = self.take()
        match mark.text:
            case "{":
                return Field(name.text, self.fields("}", depth + 1), name.at)
            case ":" if self.peek().text == "[":
                return Field(name.text, self.several(), name.at)
            case ":":
                return Field(name.text, self.scalar(), name.at)
            case _:
                raise ConfigError(mark.at, f"after `{name.text}` comes `:` or `{{`")

    def several(self) -> tuple[FieldValue, ...]:
        """Return the values in brackets."""
        self.take()
        found = [self.scalar()]
        while (token := self.take()).text == ",":
            found.append(self.scalar())
        if token.text != "]":
            raise ConfigError(token.at, "after a value of a list comes `,` or `]`")
        return tuple(found)

    def scalar(self) -> FieldValue:
        """Return one value."""
        token = self.take()
        match token.kind:
            case "string":
                text: str = json.loads(token.text)
                return text
            case "number":
                plain = re.fullmatch(r"[+-]?[0-9]+", token.text)
                return int(token.text) if plain else float(token.text)
            case "word":
                return Word(token.text)
            case _:
                raise ConfigError(token.at, f"{token.text} stands where a value is due")
