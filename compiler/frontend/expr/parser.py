"""Parser of expressions, by operator precedence."""

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
from tcc.compiler.support.diagnostics import find_nearest_name

# One pattern that includes the blanks before a token, to avoid a second search. Only ASCII digits,
# because `\d` matches digits of all scripts.
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<string>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>\*\*|//|==|!=|<=|>=|[-+*/%<>()\[\],:])"
    r"|(?P<end>\Z))"
)
KEYWORDS = frozenset({"and", "or", "not", "if", "else", "true", "false"})
"""Words that cannot be names."""
TOKEN_REPLACEMENTS = {
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
"""Tokens of other languages, and their replacements."""
_STRAY_PATTERN = re.compile(r"&&|\|\||.", re.DOTALL)


class Token(NamedTuple):
    """A token of an expression; `text` is empty at its end. A tuple, because there are many."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def display_text(self) -> str:
        """The token for messages."""
        return f"`{self.text}`" if self.text else "the end of the expression"


def scan_tokens(text: str) -> list[Token]:
    """Return the tokens of an expression; the last one is its end.

    Raises:
        ExpressionError: A character does not start a token.
    """
    scanned: list[Token] = []
    index, kind = 0, ""
    while kind != "end":
        # Linear: all alternatives start with different characters, so there is no backtracking.
        match = _TOKEN.match(text, index)
        if match is None:
            raise _create_stray_error(text, index)
        kind = match.lastgroup or ""
        token_text = match[kind]
        start, index = match.span(kind)
        scanned.append(Token("word" if token_text in KEYWORDS else kind, token_text, start, index))
    return scanned


def explain_percentage(consumed: list[Token]) -> str:
    """Return the help if the last tokens are a percentage such as `50%`; empty otherwise."""
    match consumed[-3:]:
        case [number, Token(text="%"), Token(kind="end")]:
            return f"a percentage is a fraction: write {number.text} / 100"
    return ""


def _create_stray_error(text: str, index: int) -> ExpressionError:
    # The pattern failed before the blanks that it would have skipped.
    index += len(text[index:]) - len(text[index:].lstrip())
    stray_match = _STRAY_PATTERN.match(text, index)
    stray_text = stray_match.group() if stray_match else ""
    hint = f"write `{TOKEN_REPLACEMENTS[stray_text]}`" if stray_text in TOKEN_REPLACEMENTS else ""
    if stray_text in ("'", '"'):
        return ExpressionError("E0220", "this quote is never closed", index, len(text), hint)
    if stray_text == ".":
        hint = "there are no attributes; values come from names, `C`, `H`, `W` and functions"
    display_text = stray_text if stray_text.isprintable() else f"U+{ord(stray_text):04X}"
    return ExpressionError(
        "E0220",
        f"`{display_text}` is not allowed in an expression",
        index,
        index + len(stray_text),
        hint,
    )


def explain_number(number: str, next_token: Token) -> str:
    """Return how to write a number that is joined to the next token."""
    sizes = f"{number}{next_token.text}".split("x")
    if len(sizes) > 1 and all(s.isdigit() for s in sizes):
        return f"write sizes as [{', '.join(sizes)}]"
    if next_token.text.replace("_", "").isdigit():
        return f"write {number}{next_token.text.replace('_', '')}"
    return f"write `{number} * {next_token.text}`" if next_token.kind == "name" else ""


MAX_TEXT, MAX_NESTING = 1000, 64
"""Longest expression, in characters, and deepest nesting of operations and brackets. Both are ten
times what people write; each level takes a few Python stack frames to parse and evaluate."""

_CONSTANTS = {"true": True, "false": False}
_RANKS: dict[str, int] = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and",), 2),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 4),
    **dict.fromkeys(("+", "-"), 5),
    **dict.fromkeys(("*", "/", "//", "%"), 6),
    **dict.fromkeys(("**",), 8),
}
"""As in Python; `not` is between `and` and comparisons, and a sign is below a power."""
_NOT, _COMPARE, _SIGN, _POWER = 3, 4, 7, 8


class Parser:
    """Parses one expression; operators of a higher rank bind tighter."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            message = f"the expression has {len(text):,} characters; the limit is {MAX_TEXT:,}"
            help = "name parts of it with `let`"
            raise ExpressionError("E0223", message, 0, len(text), help)
        self.tokens = scan_tokens(text)
        self.position = self.depth = 0
        self.next = self.tokens[0]

    def parse(self) -> Expression:
        """Parse the text as one expression."""
        node = self.parse_expression()
        if self.next.kind == "end":
            return node
        raise self.create_error("an operator or the end")

    def parse_expression(self) -> Expression:
        """Parse `a if c else b`, or an operation."""
        then = self.parse_operation(0)
        if not self.accept("if"):
            return then
        condition = self.parse_operation(0)
        self.expect("else")
        otherwise = self.parse_nested(self.parse_expression)
        return Conditional(then.start, otherwise.end, then, condition, otherwise)

    def parse_operation(self, floor: int) -> Expression:
        """Parse an operand and the operators after it with a rank of at least `floor`."""
        return self.parse_nested(self._parse_operators, floor)

    def _parse_operators(self, floor: int) -> Expression:
        lhs = self.parse_prefix(floor)
        # Precedence climbing: an operand takes all following operators that bind at least as tight
        # as the one before it.
        while (rank := self.get_rank()) >= max(floor, 1):
            lhs = self.parse_power(lhs) if rank == _POWER else self.parse_chain(lhs, rank)
        return lhs

    def parse_chain(self, first_operand: Expression, rank: int) -> Expression:
        """Parse the operators of one rank after an operand, left to right."""
        operations: list[tuple[str, Expression]] = []
        while self.get_rank() == rank:
            sign = self.pop_token().text
            # One rank higher, so that operators of the same rank stay in this chain, left to right.
            operations.append((sign, self.parse_operation(rank + 1)))
        end = operations[-1][1].end
        if rank < _NOT:
            parts = (first_operand, *(part for _, part in operations))
            return BooleanOperation(first_operand.start, end, operations[0][0], parts)
        kind = Comparison if rank == _COMPARE else ArithmeticChain
        return kind(first_operand.start, end, first_operand, tuple(operations))

    def parse_power(self, base: Expression) -> Expression:
        """Parse `base ** exponent`; the exponent may have a sign and further powers."""
        self.pop_token()
        # As in Python: powers are right-associative, and the exponent may have a sign.
        exponent = self.parse_operation(_SIGN)
        return ArithmeticChain(base.start, exponent.end, base, (("**", exponent),))

    def parse_prefix(self, floor: int) -> Expression:
        """Parse an operand with a `not` or sign before it."""
        token = self.next
        if token.text == "not":
            # `a == not b` is refused, as in Python: `not` binds weaker than a comparison.
            if floor > _NOT:
                raise self.create_error("a value", "put `not ...` in parentheses")
            self.pop_token()
            operand = self.parse_operation(_NOT)
            return Not(token.start, operand.end, operand)
        if token.text in ("+", "-"):
            self.pop_token()
            # A sign binds weaker than a power (`-2 ** 2` is -4) and tighter than a product.
            operand = self.parse_operation(_SIGN)
            return UnarySign(token.start, operand.end, token.text, operand)
        return self.parse_postfix()

    def parse_postfix(self) -> Expression:
        """Parse an operand and the indices after it."""
        node = self.parse_atom()
        count = 0
        while self.next.text == "[":
            count += 1
            # `a[0][0][0]...` nests without nested brackets.
            self.check_nesting(self.depth + count)
            node = self.parse_subscript(node)
        return node

    def parse_subscript(self, operand: Expression) -> Expression:
        """Parse `operand[index]` or `operand[start:stop:step]`; each bound is optional."""
        self.pop_token()
        bounds: list[Expression | None] = [None]
        while self.next.text != "]":
            if self.next.text == ":" and len(bounds) < 3:
                self.pop_token()
                bounds.append(None)
            elif bounds[-1] is None:
                bounds[-1] = self.parse_expression()
            else:
                break
        if bounds == [None]:
            raise self.create_error("a value")
        end = self.expect("]").end
        if len(bounds) == 1 and bounds[0] is not None:
            return IndexOf(operand.start, end, operand, bounds[0])
        return SliceOf(operand.start, end, operand, tuple(bounds))

    def parse_atom(self) -> Expression:
        """Parse a literal, name, call, list, or expression in parentheses."""
        token = self.next
        if token.kind in ("end", "word") and token.text not in _CONSTANTS:
            raise self.create_error("a value")
        self.pop_token()
        if token.kind == "number":
            return self.parse_number(token)
        if token.kind == "string":
            return Literal(token.start, token.end, token.text[1:-1])
        if token.text in _CONSTANTS:
            return Literal(token.start, token.end, _CONSTANTS[token.text])
        if token.kind == "name":
            return self.parse_name(token)
        if token.text == "[":
            elements = self.parse_list("]")
            return ListLiteral(token.start, self.tokens[self.position - 1].end, elements)
        if token.text == "(":
            node = self.parse_expression()
            # Includes the parentheses, so that an error underlines all of it.
            return replace(node, start=token.start, end=self.expect(")").end)
        message = f"expected a value, found {token.display_text}"
        raise ExpressionError("E0220", message, token.start, token.end)

    def parse_number(self, token: Token) -> Expression:
        """Return the number of a token."""
        next_token = self.next
        if next_token.kind in ("name", "number") and next_token.start == token.end:
            message = f"`{token.text}{next_token.text}` is not a number"
            hint = explain_number(token.text, next_token)
            raise ExpressionError("E0220", message, token.start, next_token.end, hint)
        is_integer = token.text.isdigit()
        # Octal in some languages and decimal in others.
        if is_integer and len(token.text) > 1 and token.text[0] == "0" and token.text.strip("0"):
            hint = f"write {token.text.lstrip('0')}"
            message = f"`{token.text}` starts with 0"
            raise ExpressionError("E0220", message, token.start, token.end, hint)
        # int() refuses thousands of digits; numbers with 30 digits are always too large.
        integer = (int(token.text) if len(token.text) < 30 else MAX_INT * 2) if is_integer else None
        number = float(token.text) if integer is None else integer
        if abs(number) > MAX_INT and (is_integer or number == float("inf")):
            raise ExpressionError(
                "E0223", "the number is too large for 64 bits", token.start, token.end
            )
        return Literal(token.start, token.end, number)

    def parse_name(self, token: Token) -> Expression:
        """Parse the rest of a name or a function call."""
        if self.next.text != "(":
            if token.text in TOKEN_REPLACEMENTS:
                hint = f"write `{TOKEN_REPLACEMENTS[token.text]}`"
                raise ExpressionError(
                    "E0220", f"`{token.text}` is not a keyword", token.start, token.end, hint
                )
            return NameReference(token.start, token.end, token.text)
        self.pop_token()
        args = self.parse_list(")")
        end = self.tokens[self.position - 1].end
        if token.text in AXES:
            return self.parse_size(token, args, end)
        match token.text, args:
            case "len", (NameReference() as list_name,):
                return LengthOf(token.start, end, list_name)
        function = FUNCTIONS.get(token.text)
        if function is None:
            known_names = [*FUNCTIONS, *AXES]
            nearest_name = find_nearest_name(token.text, known_names)
            hint = (
                f"did you mean `{nearest_name}`?"
                if nearest_name
                else "functions are " + ", ".join(known_names)
            )
            if token.text == "int":
                hint = "`//` divides to an integer; `round`, `ceil` and `floor` return one"
            message = f"no function is called `{token.text}`"
            raise ExpressionError("E0221", message, token.start, token.end, hint)
        if not function.min_args <= len(args) <= function.max_args:
            message = f"`{token.text}` does not take {len(args)} arguments"
            raise ExpressionError("E0220", message, token.start, end, f"write {function.usage}")
        return FunctionCall(token.start, end, function, args)

    def parse_size(self, token: Token, args: tuple[Expression, ...], end: int) -> Expression:
        """Return the expression for the size of a named value."""
        match args:
            case (NameReference() as name,):
                return SizeOf(token.start, end, token.text, name)
            case (IndexOf(value=NameReference() as name, index=index),):
                return SizeOf(token.start, end, token.text, name, index)
        message = f"`{token.text}` takes the name of one value"
        raise ExpressionError("E0220", message, token.start, end, f"write {token.text}(name)")

    def parse_list(self, closing: str) -> tuple[Expression, ...]:
        """Parse expressions between commas, and the closing bracket."""
        elements: list[Expression] = []
        while self.next.text != closing:
            elements.append(self.parse_expression())
            if not self.accept(","):
                break
        self.expect(closing)
        return tuple(elements)

    def get_rank(self) -> int:
        """Return the rank of the next token as an operator, or 0."""
        return _RANKS.get(self.next.text, 0)

    def parse_nested(self, parse: Callable[..., Expression], *floor: int) -> Expression:
        """Call a parse method one nesting level deeper."""
        self.depth += 1
        self.check_nesting(self.depth)
        node = parse(*floor)
        self.depth -= 1
        return node

    def check_nesting(self, depth: int) -> None:
        """Refuse nesting that is too deep."""
        if depth > MAX_NESTING:
            at = self.next
            hint = "name parts of it with `let`"
            message = f"the expression is nested more than {MAX_NESTING} deep"
            raise ExpressionError("E0223", message, at.start, at.end, hint)

    def pop_token(self) -> Token:
        """Return the next token and advance; the end token stays."""
        token = self.next
        if token.kind != "end":
            self.position += 1
            self.next = self.tokens[self.position]
        return token

    def accept(self, text: str) -> bool:
        """Advance if the next token has the given text; return whether it has."""
        if self.next.text != text:
            return False
        self.pop_token()
        return True

    def expect(self, text: str) -> Token:
        """Return the next token, which must have the given text, and advance."""
        if self.next.text != text:
            raise self.create_error(f"`{text}`")
        return self.pop_token()

    def create_error(self, expected: str, help: str = "") -> ExpressionError:
        """Return the error for an unexpected token."""
        token = self.next
        if token.text == ":":
            help = "`:` is only for slices, as in `list[1:]`; write a choice as `a if c else b`"
        help = help or explain_percentage(self.tokens[: self.position + 1])
        message = f"expected {expected}, found {token.display_text}"
        return ExpressionError("E0220", message, token.start, token.end, help)
