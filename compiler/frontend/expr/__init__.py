"""Expressions, which compute the arguments in a spec (section 3 of the language).

Expressions contain numbers, Booleans, 'strings', lists and names; `+ - * / // % **`, comparisons,
`and or not` and `a if c else b`; indices and slices; the functions of `functions.FUNCTIONS`; and
`channels`, `height` and `width` of a named value. The length and nesting of an expression, the size
of numbers and the length of lists are bounded.
"""

from dataclasses import dataclass
from functools import lru_cache

from tcc.compiler.frontend.expr.operators import (
    MAX_INT,
    MAX_LIST,
    UNKNOWN,
    ExpressionError,
    ExpressionScope,
    ExpressionValue,
    Unknown,
)
from tcc.compiler.frontend.expr.parser import MAX_NESTING, MAX_TEXT, Parser
from tcc.compiler.frontend.expr.size_queries import check_names, evaluate_indices
from tcc.compiler.frontend.expr.syntax_tree import (
    Expression,
    IndexOf,
    NameReference,
    SliceOf,
    use_budget,
)
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail

__all__ = [
    "MAX_INT",
    "MAX_LIST",
    "MAX_NESTING",
    "MAX_TEXT",
    "UNKNOWN",
    "ExpressionScope",
    "ParsedExpression",
    "Unknown",
    "evaluate",
    "evaluate_text",
    "parse_expr",
    "select_entries",
]


LETTER_COST = 4
"""Cost of evaluating a letter of an expression, in entries of lists."""


@dataclass(frozen=True, slots=True)
class ParsedExpression:
    """A parsed expression and the location of its text."""

    text: str
    span: Span
    root: Expression


def parse_expr(text: str, span: Span) -> ParsedExpression:
    """Parse an expression; `span` is that of its scalar, including quotes.

    Raises:
        UserError: The text is not an expression (E0220), or it is too large (E0223).
    """
    try:
        return ParsedExpression(text, span, _parse(text))
    except ExpressionError as fault:
        raise _locate_error(fault, text, span) from None


def evaluate(expr: ParsedExpression, scope: ExpressionScope) -> ExpressionValue:
    """Return the value of an expression; `UNKNOWN` if it depends on an unknown value.

    Raises:
        UserError: A name is not in scope (E0221), a value has the wrong kind (E0222), or a result
            exceeds the limits (E0223).
    """
    return evaluate_text(expr.text, expr.span, scope)


def evaluate_text(text: str, span: Span, scope: ExpressionScope) -> ExpressionValue:
    """Parse an expression and return its value.

    Raises:
        UserError: As `parse_expr` and `evaluate` do.
    """
    try:
        root = _parse(text)
        use_budget(root, scope, LETTER_COST * len(text))
        expression_value = root.evaluate(scope)
        if isinstance(expression_value, Unknown):
            check_names(root, scope)
    except ExpressionError as fault:
        raise _locate_error(fault, text, span) from None
    else:
        return expression_value


def select_entries(expr: ParsedExpression, count: int, scope: ExpressionScope) -> ExpressionValue:
    """Return the entries of a named list that `name[index]` or `name[start:stop]` selects.

    Raises:
        UserError: As `evaluate` does; E0220 if the text has another form.
    """
    if not isinstance(expr.root, IndexOf | SliceOf) or not isinstance(
        expr.root.value, NameReference
    ):
        hint = "write a value as its name, an entry of a list as name[0], several as name[1:]"
        raise fail("E0220", "this is not the name of a value", expr.span, help=hint)
    try:
        return evaluate_indices(expr.root, count, scope)
    except ExpressionError as fault:
        raise _locate_error(fault, expr.text, expr.span) from None


@lru_cache(maxsize=1 << 16)
def _parse(text: str) -> Expression:
    return Parser(text).parse()


def _locate_error(fault: ExpressionError, text: str, span: Span) -> UserError:
    at = _find_span(span, text, fault.start, fault.end)
    return UserError(
        (Diagnostic(fault.code, fault.message, at, notes=fault.notes, help=fault.help),)
    )


def _find_span(span: Span, text: str, start: int, end: int) -> Span:
    """Return the span of text[start:end], or of the scalar if its text has several lines."""
    for quote in (0, 1):
        if span.text.startswith(text, span.column - 1 + quote):
            return span._replace(column=span.column + quote + start, width=max(1, end - start))
    return span
