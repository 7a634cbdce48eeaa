"""Reading an expression, by the rank of its operators."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tcc.compiler.frontend.expr.functions import AXES, FUNCTIONS
from tcc.compiler.frontend.expr.operators import MAX_INT, ExpressionError
from tcc.compiler.frontend.expr.size_queries import LengthOf, SizeOf
from tcc.compiler.frontend.expr.syntax_tree import (
    ArithmeticChain,
    BooleanOperation,
    Comparison,
    Conditional,
    Expression,
    FunctionCall,
    IndexOf,
    ListLiteral,
    Literal,
    NameReference,
    Not,
    SliceOf,
    UnarySign,
)
from tcc.compiler.support.diagnostics import nearest

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


MAX_TEXT, MAX_NESTING = 1000, 64
"""Longest expression, in characters, and most operations and brackets within one another: ten times
what people write, and each level is a few frames of Python's stack, in reading and evaluating."""

_CONSTANTS = {"true": True, "false": False}
_RANKS: dict[str, int] = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and",), 2),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 4),
    **dict.fromkeys(("+", "-"), 5),
    **dict.fromkeys(("*", "/", "//", "%"), 6),
    **dict.fromkeys(("**",), 8),
}
"""As in Python; `not` stands between `and` and the comparisons, a sign below a power."""
_NOT, _COMPARE, _SIGN, _POWER = 3, 4, 7, 8


class Parser:
    """Reads one expression; operators of a higher rank bind closer."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            message = f"an expression of {len(text):,} characters; at most {MAX_TEXT:,} are read"
            help = "give parts of it names with `let`"
            raise ExpressionError("E0223", message, 0, len(text), help)
        self.tokens = tokens(text)
        self.place = self.depth = 0
        self.next = self.tokens[0]

    def whole(self) -> Expression:
        """Return the whole text as one expression."""
        node = self.expression()
        if self.next.kind == "end":
            return node
        raise self.wrong("an operator or the end")

    def expression(self) -> Expression:
        """Return `a if c else b`, or what binds closer."""
        then = self.operation(0)
        if not self.accept("if"):
            return then
        condition = self.operation(0)
        self.expect("else")
        otherwise = self.nested(self.expression)
        return Conditional(then.start, otherwise.end, then, condition, otherwise)

    def operation(self, floor: int) -> Expression:
        """Return an operand with the operators after it whose rank is at least `floor`."""
        return self.nested(self._operation, floor)

    def _operation(self, floor: int) -> Expression:
        left = self.prefix(floor)
        # Precedence climbing: an operand takes all operators behind it that bind at least as
        # closely as the one before it.
        while (rank := self.rank()) >= max(floor, 1):
            left = self.power(left) if rank == _POWER else self.chain(left, rank)
        return left

    def chain(self, first: Expression, rank: int) -> Expression:
        """Return an operand with all the operators of one rank that follow, left to right."""
        rest: list[tuple[str, Expression]] = []
        while self.rank() == rank:
            sign = self.take().text
            # One more than the own rank: operators of the same one stay in this chain, from left to
            # right.
            rest.append((sign, self.operation(rank + 1)))
        end = rest[-1][1].end
        if rank < _NOT:
            parts = (first, *(part for _, part in rest))
            return BooleanOperation(first.start, end, rest[0][0], parts)
        kind = Comparison if rank == _COMPARE else ArithmeticChain
        return kind(first.start, end, first, tuple(rest))

    def power(self, base: Expression) -> Expression:
        """Return `base ** exponent`; the exponent may hold a sign and further powers."""
        self.take()
        # As in Python: powers go from right to left, and a sign may stand before the exponent.
        exponent = self.operation(_SIGN)
        return ArithmeticChain(base.start, exponent.end, base, (("**", exponent),))

    def prefix(self, floor: int) -> Expression:
        """Return an operand with the `not` or sign before it."""
        token = self.next
        if token.text == "not":
            # `a == not b` is refused, as in Python: `not` binds less closely than a comparison.
            if floor > _NOT:
                raise self.wrong("a value", "put `not ...` in parentheses")
            self.take()
            operand = self.operation(_NOT)
            return Not(token.start, operand.end, operand)
        if token.text in ("+", "-"):
            self.take()
            # A sign binds less closely than a power, `-2 ** 2` being -4, and more than a product.
            operand = self.operation(_SIGN)
            return UnarySign(token.start, operand.end, token.text, operand)
        return self.postfix()

    def postfix(self) -> Expression:
        """Return an operand with the indices after it."""
        node = self.atom()
        count = 0
        while self.next.text == "[":
            count += 1
            # `a[0][0][0]...` nests without any bracket inside another.
            self.limit(self.depth + count)
            node = self.subscript(node)
        return node

    def subscript(self, value: Expression) -> Expression:
        """Return `value[index]` or `value[start:stop:step]`, of which each bound may be missing."""
        self.take()
        bounds: list[Expression | None] = [None]
        while self.next.text != "]":
            if self.next.text == ":" and len(bounds) < 3:
                self.take()
                bounds.append(None)
            elif bounds[-1] is None:
                bounds[-1] = self.expression()
            else:
                break
        if bounds == [None]:
            raise self.wrong("a value")
        end = self.expect("]").end
        if len(bounds) == 1 and bounds[0] is not None:
            return IndexOf(value.start, end, value, bounds[0])
        return SliceOf(value.start, end, value, tuple(bounds))

    def atom(self) -> Expression:
        """Return a literal, name, call, list, or expression in parentheses."""
        token = self.next
        if token.kind in ("end", "word") and token.text not in _CONSTANTS:
            raise self.wrong("a value")
        self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return Literal(token.start, token.end, token.text[1:-1])
        if token.text in _CONSTANTS:
            return Literal(token.start, token.end, _CONSTANTS[token.text])
        if token.kind == "name":
            return self.named(token)
        if token.text == "[":
            items = self.listed("]")
            return ListLiteral(token.start, self.tokens[self.place - 1].end, items)
        if token.text == "(":
            node = self.expression()
            # With its parentheses, so that a mistake underlines what was written.
            return replace(node, start=token.start, end=self.expect(")").end)
        message = f"expected a value, found {token.shown}"
        raise ExpressionError("E0220", message, token.start, token.end)

    def number(self, token: Token) -> Expression:
        """Return the number that a token writes."""
        after = self.next
        if after.kind in ("name", "number") and after.start == token.end:
            message = f"`{token.text}{after.text}` is no number"
            hint = number_meant(token.text, after)
            raise ExpressionError("E0220", message, token.start, after.end, hint)
        whole = token.text.isdigit()
        # Octal to some readers and decimal to others.
        if whole and len(token.text) > 1 and token.text[0] == "0" and token.text.strip("0"):
            hint = f"write {token.text.lstrip('0')}"
            raise ExpressionError("E0220", "a number starts with 0", token.start, token.end, hint)
        # int() refuses thousands of digits; of thirty any number is too large.
        value = (int(token.text) if len(token.text) < 30 else MAX_INT * 2) if whole else None
        found = float(token.text) if value is None else value
        if abs(found) > MAX_INT and (whole or found == float("inf")):
            raise ExpressionError(
                "E0223", "the number is too large for 64 bits", token.start, token.end
            )
        return Literal(token.start, token.end, found)

    def named(self, token: Token) -> Expression:
        """Return a name, or the call of a function."""
        if self.next.text != "(":
            if token.text in FOREIGN:
                hint = f"write `{FOREIGN[token.text]}`"
                raise ExpressionError(
                    "E0220", f"`{token.text}` is no word", token.start, token.end, hint
                )
            return NameReference(token.start, token.end, token.text)
        self.take()
        args = self.listed(")")
        end = self.tokens[self.place - 1].end
        if token.text in AXES:
            return self.size(token, args, end)
        match token.text, args:
            case "len", (NameReference() as listed,):
                return LengthOf(token.start, end, listed)
        function = FUNCTIONS.get(token.text)
        if function is None:
            known = [*FUNCTIONS, *AXES]
            close = nearest(token.text, known)
            hint = f"did you mean `{close}`?" if close else "there are " + ", ".join(known)
            if token.text == "int":
                hint = "`//` divides to a whole number; `round`, `ceil` and `floor` make one"
            message = f"no function is called `{token.text}`"
            raise ExpressionError("E0221", message, token.start, token.end, hint)
        if not function.least <= len(args) <= function.most:
            message = f"`{token.text}` does not take {len(args)} arguments"
            raise ExpressionError("E0220", message, token.start, end, f"write {function.usage}")
        return FunctionCall(token.start, end, function, args)

    def size(self, token: Token, args: tuple[Expression, ...], end: int) -> Expression:
        """Return the size of a named value."""
        match args:
            case (NameReference() as name,):
                return SizeOf(token.start, end, token.text, name)
            case (IndexOf(value=NameReference() as name, index=index),):
                return SizeOf(token.start, end, token.text, name, index)
        message = f"`{token.text}` takes the name of one value"
        raise ExpressionError("E0220", message, token.start, end, f"write {token.text}(name)")

    def listed(self, closing: str) -> tuple[Expression, ...]:
        """Return expressions between commas up to a closing bracket, which is taken."""
        items: list[Expression] = []
        while self.next.text != closing:
            items.append(self.expression())
            if not self.accept(","):
                break
        self.expect(closing)
        return tuple(items)

    def rank(self) -> int:
        """Return the rank of the operator that comes next; 0 where none does."""
        return _RANKS.get(self.next.text, 0)

    def nested(self, read: Callable[..., Expression], *floor: int) -> Expression:
        """Return what a method reads, one level deeper."""
        self.depth += 1
        self.limit(self.depth)
        node = read(*floor)
        self.depth -= 1
        return node

    def limit(self, depth: int) -> None:
        """Refuse nesting that is too deep."""
        if depth > MAX_NESTING:
            at = self.next
            hint = "give parts of it names with `let`"
            raise ExpressionError("E0223", "an expression nested too deep", at.start, at.end, hint)

    def take(self) -> Token:
        """Return the next token and go on to the one after it; the last one stays."""
        token = self.next
        if token.kind != "end":
            self.place += 1
            self.next = self.tokens[self.place]
        return token

    def accept(self, text: str) -> bool:
        """Take the next token where it is a given one; returns whether it was."""
        if self.next.text != text:
            return False
        self.take()
        return True

    def expect(self, text: str) -> Token:
        """Take the next token, which must be a given one."""
        if self.next.text != text:
            raise self.wrong(f"`{text}`")
        return self.take()

    def wrong(self, expected: str, help: str = "") -> ExpressionError:
        """Return the fault of a token that does not belong here."""
        found = self.next
        if found.text == ":":
            help = "`:` stands in slices alone, as in `list[1:]`; a choice is `a if c else b`"
        help = help or percentage(self.tokens[: self.place + 1])
        message = f"expected {expected}, found {found.shown}"
        return ExpressionError("E0220", message, found.start, found.end, help)
