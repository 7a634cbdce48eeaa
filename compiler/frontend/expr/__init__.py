"""Expressions: what a spec computes its arguments with (section 3 of the language).

Numbers, truth values, 'strings', lists; names; `+ - * / // % **`, comparisons, `and or not`,
`a if c else b`, indices and slices, and the functions of `functions.FUNCTIONS` with `channels`,
`height` and `width` of a named value. Nothing else evaluates, and every expression is bounded in
length, nesting, size of numbers and length of lists.
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
"""What it costs to evaluate a letter of an expression, measured in entries of lists."""


@dataclass(frozen=True, slots=True)
class ParsedExpression:
    """An expression that was read, and the place of its text."""

    text: str
    span: Span
    root: Expression


def parse_expr(text: str, span: Span) -> ParsedExpression:
    """Return the expression that a text writes; `span` is that of its scalar, quotes included.

    Raises:
        UserError: E0220 for what is no expression, E0223 for one that is too large.
    """
    try:
        return ParsedExpression(text, span, _parse(text))
    except ExpressionError as fault:
        raise _locate_error(fault, text, span) from None


def evaluate(expr: ParsedExpression, scope: ExpressionScope) -> ExpressionValue:
    """Return the value of an expression; `UNKNOWN` where it rests on one that is unknown.

    Raises:
        UserError: E0221 for a name that is not in scope, E0222 for values of a wrong kind,
            E0223 for a result over the limits.
    """
    return evaluate_text(expr.text, expr.span, scope)


def evaluate_text(text: str, span: Span, scope: ExpressionScope) -> ExpressionValue:
    """Return the value of the expression that a text writes.

    Raises:
        UserError: as `parse_expr` and `evaluate` do.
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
    """Return which entries of a named list of values `name[index]` or `name[start:stop]` takes.

    Raises:
        UserError: as `evaluate` does; E0220 where the text is neither.
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
    """Return the place of text[start:end]; the whole scalar's where its text spans lines."""
    for quote in (0, 1):
        if span.text.startswith(text, span.column - 1 + quote):
            return span._replace(column=span.column + quote + start, width=max(1, end - start))
    return span
