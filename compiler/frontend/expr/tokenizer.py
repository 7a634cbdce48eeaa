"""Cutting an expression into words."""

import re
from typing import NamedTuple

from tcc.compiler.frontend.expr.scope import ExpressionError

# One pattern with the blanks before a token in it: no second search for them. Digits are ASCII
# alone, as `\d` would take those of every script.
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<string>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>\*\*|//|==|!=|<=|>=|[-+*/%<>()\[\],:])"
    r"|(?P<end>\Z))"
)
KEYWORDS = frozenset({"and", "or", "not", "if", "else", "true", "false"})
"""Words that no name can be."""
FOREIGN = {
    "True": "true",
    "False": "false",
    "&": "and",
    "&&": "and",
    "|": "or",
    "||": "or",
    "!": "not",
    "^": "**",
    "=": "==",
    "?": "a if c else b",
    ":": "a if c else b",
    "\u00d7": "*",
    "\u00b7": "*",
    "\u00f7": "/",
    "\u2212": "-",
    "\u2013": "-",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2260": "!=",
    **dict.fromkeys("\u201c\u201d\u2018\u2019", "'"),
}
"""What other languages write, and what to write for it."""
_STRAY = re.compile(r"&&|\|\||.", re.DOTALL)


class Token(NamedTuple):
    """A word of an expression; `text` is empty at its end. A tuple, since a text has very many."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def shown(self) -> str:
        """The token in the words of messages."""
        return f"`{self.text}`" if self.text else "the end of the expression"


def tokens(text: str) -> list[Token]:
    """Return the tokens of an expression; the last one is its end.

    Raises:
        ExpressionError: for characters that start none.
    """
    found: list[Token] = []
    index, kind = 0, ""
    while kind != "end":
        # Linear: every alternative begins with other characters, so that nothing is tried twice.
        match = _TOKEN.match(text, index)
        if match is None:
            raise _stray(text, index)
        kind = match.lastgroup or ""
        word = match[kind]
        start, index = match.span(kind)
        found.append(Token("word" if word in KEYWORDS else kind, word, start, index))
    return found


def percentage(read: list[Token]) -> str:
    """Return the help where the tokens read so far end as `50%` does, empty elsewhere."""
    match read[-3:]:
        case [before, Token(text="%"), Token(kind="end")]:
            return f"a percentage is a fraction: write {before.text} / 100"
    return ""


def _stray(text: str, index: int) -> ExpressionError:
    # The pattern failed before the blanks that it would have skipped.
    index += len(text[index:]) - len(text[index:].lstrip())
    found = _STRAY.match(text, index)
    word = found.group() if found else ""
    hint = f"write `{FOREIGN[word]}`" if word in FOREIGN else ""
    if word in ("'", '"'):
        return ExpressionError("E0220", "this quote is never closed", index, len(text), hint)
    if word == ".":
        hint = "there are no attributes; values come from names, `C`, `H`, `W` and functions"
    shown = word if word.isprintable() else f"U+{ord(word):04X}"
    return ExpressionError(
        "E0220", f"`{shown}` is not part of expressions", index, index + len(word), hint
    )


def number_meant(number: str, after: Token) -> str:
    """Return how to write a number that runs into what follows it."""
    sizes = f"{number}{after.text}".split("x")
    if len(sizes) > 1 and all(s.isdigit() for s in sizes):
        return f"sizes are written [{', '.join(sizes)}]"
    if after.text.replace("_", "").isdigit():
        return f"write {number}{after.text.replace('_', '')}"
    return f"write `{number} * {after.text}`" if after.kind == "name" else ""
