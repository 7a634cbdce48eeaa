"""Expressions of extreme operands: each gives a value or an error."""

import pytest

from tcc.compiler.frontend.expr import MAX_INT, UNKNOWN, ExpressionScope, evaluate, parse_expr
from tcc.compiler.frontend.expr.functions import AXES, FUNCTIONS
from tcc.compiler.support.diagnostics import Span, UserError

HOSTILE = (
    "0", "(-0.0)", "1", "(-1)", "0.5", "5e-324", "1e308", "(-1e308)", "1.7976931348623157e308",
    "9223372036854775807", "(-9223372036854775807)", "1e19", "true", "'8'", "[]", "[1e308, 1e308]",
    "[9223372036854775807] * 2", "[[1], 2.5]", "big", "tiny", "lost", "nothing",
)  # fmt: skip
EXTREMES = {"big": float("inf"), "tiny": -0.0, "lost": float("nan"), "nothing": UNKNOWN}
SIGNS = ("+", "-", "*", "/", "//", "%", "**", "<", ">=", "==", "!=", "and", "or")
CALLS = tuple(name for name in FUNCTIONS) + tuple(AXES)


def assert_answered(text: str) -> None:
    """Check that an expression gives a value within the limits, or an error with a location."""
    try:
        answer = evaluate(parse_expr(text, Span("x", 1, 1, text)), ExpressionScope(EXTREMES))
    except UserError as error:
        codes = {d.code for d in error.diagnostics}
    else:
        codes = {"E0222"}
        check(text, answer)
    assert codes <= {"E0220", "E0221", "E0222", "E0223"}, text


def check(text: str, answer: object) -> None:
    if isinstance(answer, float) and not (text in EXTREMES or "nothing" in text):
        assert abs(answer) < float("inf") or any(name in text for name in ("big", "lost")), text
    assert not isinstance(answer, int) or abs(answer) <= MAX_INT, text
    assert not isinstance(answer, complex), text


@pytest.mark.parametrize("operand", HOSTILE)
def test_extreme_operands_give_a_value_or_an_error(operand: str) -> None:
    assert_answered(f"-{operand}")
    assert_answered(f"not {operand}")
    assert_answered(f"{operand}[{operand}]")
    for stop in HOSTILE:
        assert_answered(f"[1, 2][{operand}:{stop}]")
        for sign in SIGNS:
            assert_answered(f"{operand} {sign} {stop}")
        for name in CALLS:
            assert_answered(f"{name}({operand}, {stop})")
    for name in CALLS:
        assert_answered(f"{name}({operand})")
        assert_answered(f"{name}({operand}, 1, {operand})")


def test_a_result_beyond_the_float_range_is_refused() -> None:
    text = "divisible(1e308, 8)"
    with pytest.raises(UserError) as caught:
        evaluate(parse_expr(text, Span("x", 1, 1, text)), ExpressionScope())
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message, diagnostic.at.column) == (
        "E0223",
        "the result is too large",
        1,
    )
