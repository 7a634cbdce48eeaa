"""JSON reader (RFC 8259) with exact locations for the tree builder."""

import json
import re
from collections.abc import Callable
from math import isinf

from tcc.compiler.frontend.yaml.tree_builder import Scalar, TreeBuilder, parse_digits
from tcc.compiler.support.diagnostics import UserError, fail

# Possessive quantifiers: no text causes backtracking.
_SPACE = re.compile(r"[ \t\r\n]*+")
_TOKEN = re.compile(
    r'(?P<mark>[{}\[\],:])|(?P<text>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?(?![\w.+-]))"
    r"|(?P<word>(?:true|false|null)(?!\w))"
)
_STRAY = re.compile(r"[\w.+-]{1,40}|.", re.DOTALL)
_LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_PAIRS = {"{": "}", "[": "]"}
_HINTS = {
    "'": "JSON text needs double quotes",
    "/": "JSON has no comments; a spec in YAML may have them",
    "#": "JSON has no comments; a spec in YAML may have them",
    '"': "close the quotes on the same line; write a line break inside them as \\n",
}


def read_json(builder: TreeBuilder) -> None:
    """Pass the contents of a JSON text to its builder.

    Raises:
        UserError: The text is not valid JSON (E0102).
    """
    reader = _Reader(builder)
    while reader.read_token():
        pass


class _Reader:
    """A state machine over tokens; `expects` handles the next one."""

    def __init__(self, builder: TreeBuilder) -> None:
        self.builder = builder
        self.source = builder.source
        self.open: list[tuple[str, int]] = []
        self.expects: Callable[[str, str], None] = self.read_value
        self.start = 0
        self.end = 0

    def read_token(self) -> bool:
        """Handle one token; return whether there was one."""
        text = self.source.text
        space = _SPACE.match(text, self.end)
        self.start = space.end() if space else self.end
        if self.start == len(text):
            self.finish()
            return False
        token_match = _TOKEN.match(text, self.start)
        if token_match is None:
            raise self.create_stray_error()
        self.end = token_match.end()
        self.expects(str(token_match.lastgroup), token_match.group())
        return True

    def read_value(self, kind: str, token: str) -> None:
        """Handle a value, or the opening bracket of one."""
        if token in _PAIRS:
            self.open.append((token, self.start))
            self.builder.open_branch(self.start, mapping=token == "{")
            self.expects = self.read_first_key if token == "{" else self.read_first_item
        elif kind == "mark":
            raise self.create_unexpected_error("a value", token)
        else:
            self.emit_scalar(kind, token)
            self.expects = self.read_separator

    def read_first_item(self, kind: str, token: str) -> None:
        """Handle the first value of a list, or its end."""
        if token == "]":
            self.close_branch()
        else:
            self.read_value(kind, token)

    def read_first_key(self, kind: str, token: str) -> None:
        """Handle the first key of a mapping, or its end."""
        if token == "}":
            self.close_branch()
        else:
            self.read_key(kind, token)

    def read_key(self, kind: str, token: str) -> None:
        """Handle a key."""
        if kind != "text":
            raise self.create_unexpected_error("a key in double quotes", token)
        self.emit_scalar(kind, token)
        self.expects = self.read_colon

    def read_colon(self, _: str, token: str) -> None:
        """Handle the colon between key and value."""
        if token != ":":
            raise self.create_unexpected_error("`:` after the key", token)
        self.expects = self.read_value

    def read_separator(self, _: str, token: str) -> None:
        """Handle the token after a value."""
        if not self.open:
            raise self.create_unexpected_error("the end of the file", token)
        bracket, start = self.open[-1]
        if token == ",":
            self.expects = self.read_key if bracket == "{" else self.read_value
        elif token == _PAIRS[bracket]:
            self.close_branch()
        else:
            error = self.create_unexpected_error(f"`,` or `{_PAIRS[bracket]}`", token)
            opened = f"`{bracket}` opened at {self.source.get_span(start, start + 1)}"
            raise UserError((error.diagnostics[0].add_notes(opened),))

    def close_branch(self) -> None:
        """Close the innermost list or mapping."""
        self.open.pop()
        self.builder.close_branch(self.end)
        self.expects = self.read_separator

    def emit_scalar(self, kind: str, token: str) -> None:
        """Pass a text, number or literal to the builder."""
        value: str | int | float | bool | None
        if kind == "text":
            value = self.decode_text(token)
        elif kind == "word":
            value = _LITERALS[token]
        else:
            # `int` refuses thousands of digits with an error that has no location.
            value = parse_digits(token) if token.lstrip("-").isdigit() else float(token)
        span = self.source.get_span(self.start, self.end)
        if isinstance(value, float) and isinf(value):
            self.builder.add_error("E0104", "the number is too large for 64 bits", span)
        self.builder.add_scalar(Scalar(value, span, quoted=kind == "text"))

    def decode_text(self, token: str) -> str:
        """Return the text of a token in quotes."""
        try:
            return str(json.loads(token))
        except json.JSONDecodeError as error:
            start = self.start + error.pos
            span = self.source.get_span(start, start + 2)
            hint = "write a backslash as \\\\"
            raise fail("E0102", "JSON has no such escape", span, help=hint) from None

    def finish(self) -> None:
        """Check that no bracket is open at the end of the text."""
        if self.open:
            bracket, start = self.open[-1]
            at = self.source.get_span(start, start + 1)
            hint = f"the file ends before a `{_PAIRS[bracket]}` closes it"
            raise fail("E0102", f"this `{bracket}` is never closed", at, help=hint)
        if self.expects == self.read_value:
            raise fail(
                "E0106", "the file is empty", self.source.get_end_span(), label="expected `{`"
            )

    def create_unexpected_error(self, expected: str, token: str) -> UserError:
        """Return the error for a token that is not expected."""
        span = self.source.get_span(self.start, self.end)
        display_text = token if len(token) <= 40 else token[:37] + "..."
        previous_char = self.source.text[: self.start].rstrip()[-1:]
        hint = (
            f"remove the comma before `{token}`" if previous_char == "," and token in "}]," else ""
        )
        return fail("E0102", f"expected {expected}, found `{display_text}`", span, help=hint)

    def create_stray_error(self) -> UserError:
        """Return the error for characters that are not a JSON token."""
        stray_match = _STRAY.match(self.source.text, self.start)
        token = stray_match.group() if stray_match else ""
        span = self.source.get_span(self.start, self.start + len(token))
        hint = _HINTS.get(token, "")
        if token[0].isalpha():
            hint = "names and text need double quotes"
        if token == '"':
            message = "this quote is not closed on its line"
        else:
            message = f"`{token}` is not JSON"
        return fail("E0102", message, span, help=hint)
