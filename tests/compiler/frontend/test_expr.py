"""Expressions: values against Python, error locations, limits, and unknown values."""

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tcc.compiler.frontend.expr import (
    MAX_INT,
    MAX_LIST,
    MAX_NESTING,
    MAX_TEXT,
    UNKNOWN,
    ExpressionScope,
    evaluate,
    parse_expr,
)
from tcc.compiler.frontend.expr.operators import MAX_WORK, Budget, GraphValue
from tcc.compiler.frontend.yaml import find_span, parse
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError

NAMES = {
    "growth": 32,
    "layers": (4, 4, 4, 8),
    "width": 1.5,
    "C": 64,
    "act": "relu",
    "first": True,
    "last": False,
    "rows": ((1, 2), (3, 4)),
}
VALUES = {
    "skip": GraphValue("skip", TensorType((16, 56, 28))),
    "gate": GraphValue("gate", TensorType((10,))),
    "lost": GraphValue("", None),
    "outputs": tuple(GraphValue("", TensorType(s)) for s in ((4, 8, 8), (5, 7, 7), (5,))),
}
SCOPE = ExpressionScope(NAMES, VALUES)


def evaluate_text(text, scope=SCOPE):
    return evaluate(parse_expr(text, Span("s.yaml", 1, 1, text, len(text))), scope)


def read_error(text, scope=SCOPE, span=None):
    with pytest.raises(UserError) as caught:
        evaluate(parse_expr(text, span or Span("s.yaml", 1, 1, text, len(text))), scope)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def get_pointed_text(diagnostic):
    return diagnostic.at.text[
        diagnostic.at.column - 1 : diagnostic.at.column - 1 + diagnostic.at.width
    ]


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        (" 1 ", 1),
        ("1.5e-3", 0.0015),
        ("2.", 2.0),
        (".5", 0.5),
        ("0", 0),
        ("00", 0),
        ("true", True),
        ("false", False),
        ("'relu'", "relu"),
        ('"it\'s"', "it's"),
        ("''", ""),
        ("[]", ()),
        ("[1, [2, 'a'], true]", (1, (2, "a"), True)),
        ("[1, 2,]", (1, 2)),
        ("growth * 4", 128),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 - 3 - 4", -5),
        ("7 // 2 * 2", 6),
        ("7 / 2", 3.5),
        ("6 / 2", 3.0),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("--1", 1),
        ("+-1", -1),
        ("2**63", 2**63),
        ("1 < 2 < 3", True),
        ("3 > 2 > 2", False),
        ("1 < 0 < 1 / 0", False),
        ("1 == 1.0", True),
        ("act == 'relu'", True),
        ("act != 'none'", True),
        ("first == true", True),
        ("layers == [4, 4, 4, 8]", True),
        ("[true] == [1]", False),
        ("not first", False),
        ("not first == last", True),
        ("first and not last", True),
        ("last or first and last", False),
        ("first or 1 / 0 == 1", True),
        ("last and 1 / 0 == 1", False),
        ("1 if first else 2", 1),
        ("1 if last else 2 if last else 3", 3),
        ("1 / 0 if last else 5", 5),
        ("(1 if last else 2) + 1", 3),
        ("1 + 1 if last else 2 + 2", 4),
        ("layers[0]", 4),
        ("layers[-1]", 8),
        ("layers[:2]", (4, 4)),
        ("layers[2:]", (4, 8)),
        ("layers[:]", (4, 4, 4, 8)),
        ("layers[1:-1]", (4, 4)),
        ("layers[::2]", (4, 4)),
        ("layers[::-1]", (8, 4, 4, 4)),
        ("layers[-1:0:-2]", (8, 4)),
        ("layers[4:]", ()),
        ("layers[:0]", ()),
        ("layers[3:1]", ()),
        ("layers[-4:4:1]", (4, 4, 4, 8)),
        ("rows[:1][0][1:]", (2,)),
        ("[1, 2, 3][1 if first else 2:]", (2, 3)),
        ("sum(layers[:len(layers) - 1])", 12),
        ("layers[1:][0] + 1", 5),
        ("len(outputs)", 3),
        ("channels(outputs[-1]) + height(outputs[1])", 12),
        ("layers[:len(lost)]", UNKNOWN),
        ("channels(outputs[2 - 1])", 5),
        ("rows[1][0]", 3),
        ("[5, 6][1]", 6),
        ("layers[1 + 1] * 2", 8),
        ("[0] * 3 + [1]", (0, 0, 0, 1)),
        ("min(3, 1, 2)", 1),
        ("max(layers)", 8),
        ("max(1, 2.5)", 2.5),
        ("abs(-3)", 3),
        ("abs(-1.5)", 1.5),
        ("ceil(1.2)", 2),
        ("floor(-1.2)", -2),
        ("round(2.5)", 2),
        ("round(3.5)", 4),
        ("len(layers)", 4),
        ("len([])", 0),
        ("sum(layers)", 20),
        ("sum([])", 0),
        ("sum(range(1, 4))", 6),
        ("range(3)", (0, 1, 2)),
        ("range(3, 0, -1)", (3, 2, 1)),
        ("channels(skip)", 16),
        ("height(skip) // width(skip)", 2),
        ("channels(gate)", 10),
    ],
)
def test_expressions_have_the_expected_values(text, expected):
    actual = evaluate_text(text)
    assert actual == expected
    assert type(actual) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("divisible(32, 8)", 32),
        ("divisible(33, 8)", 32),
        ("divisible(36, 8)", 40),
        ("divisible(3, 8)", 8),
        ("divisible(0, 8)", 8),
        ("divisible(10, 8)", 16),
        ("divisible(32 * 1.4, 8)", 48),
        ("divisible(32 * 0.35, 8)", 16),
        ("divisible(96 * 0.75, 8)", 72),
    ],
)
def test_channel_counts_are_rounded_as_usual(text, expected):
    assert evaluate_text(text) == expected


@given(st.integers(0, 5000) | st.floats(0, 5000), st.integers(1, 64))
def test_properties_of_divisible(number, by):
    multiple = evaluate_text("divisible(v, by)", ExpressionScope({"v": number, "by": by}))
    assert multiple % by == 0
    assert multiple >= by
    assert multiple >= 0.9 * number
    nearest_multiple = max(by, int(number + by / 2) // by * by)
    assert multiple == (
        nearest_multiple + by if nearest_multiple < 0.9 * number else nearest_multiple
    )


LEAVES = st.sampled_from(["0", "1", "2", "3", "7", "1.5", "0.25", "growth", "width", "layers[1]"])


def join_operands(inner, signs):
    """Return texts of operands joined by signs, with or without parentheses and spaces."""
    part = st.one_of(inner, inner.map("({})".format))
    sign = st.sampled_from(signs)
    tail = st.lists(st.tuples(sign, part), min_size=1, max_size=3)
    space = st.sampled_from(["", " "])
    return st.builds(
        lambda gap, head, tail: head + "".join(gap + s + gap + p for s, p in tail),
        space,
        part,
        tail,
    )


def create_arithmetic(inner):
    return st.one_of(
        join_operands(inner, ["+", "-", "*", "/", "//", "%"]),
        st.tuples(inner, st.sampled_from(["2", "-1", "0.5"])).map("({0[0]}) ** {0[1]}".format),
        inner.map("-{}".format),
        inner.map("abs({})".format),
        inner.map("floor({})".format),
        inner.map("round({})".format),
        st.tuples(inner, inner).map("max({0[0]}, {0[1]})".format),
        st.tuples(inner, inner).map("sum([{0[0]}, {0[1]}])".format),
        st.tuples(inner, inner).map("[{0[0]}, {0[1]}][-1]".format),
        st.tuples(inner, inner).map("({0[0]} if {0[1]} > 1 else {0[1]})".format),
    )


NUMBERS = st.recursive(LEAVES, create_arithmetic, max_leaves=8)
COMPARISONS = join_operands(NUMBERS, ["<", "<=", ">", ">=", "==", "!="])
TRUTHS = st.recursive(
    st.sampled_from(["true", "false", "first", "last"]) | COMPARISONS.map("({})".format),
    lambda inner: join_operands(inner, [" and ", " or "]) | inner.map("not {}".format),
    max_leaves=6,
)
ORACLE = {
    "__builtins__": {},
    "true": True,
    "false": False,
    **{name: getattr(math, name) for name in ("ceil", "floor")},
    **{f.__name__: f for f in (abs, round, max, min, sum, len)},
    **NAMES,
}


def evaluate_in_python(text):
    """Return the Python value of a generated text, or the type of its error."""
    try:
        answer = eval(text, dict(ORACLE))  # noqa: S307 - the text is ours
    except (ZeroDivisionError, OverflowError) as raised:
        return type(raised).__name__
    except TypeError as raised:  # from a function or comparison that takes no complex number
        if "complex" not in str(raised):
            raise
        return "complex"
    return "complex" if isinstance(answer, complex) else answer


def evaluate_or_explain(text):
    """Return the value of an expression, or its error message."""
    try:
        return evaluate_text(text)
    except UserError as raised:
        return raised.diagnostics[0].message


MESSAGES = {
    "division by zero": "ZeroDivisionError",
    "a negative number has no fractional power": "complex",
}


@given(NUMBERS | COMPARISONS | TRUTHS)
@example("-2 ** 2")
@example("not first == last or last")
@example("1 - 2 - 3 // 2 * 4 % 3")
@example("abs(floor((-1) ** 0.5))")
@example("1 < (-1) ** 0.5")
def test_values_agree_with_python(text):
    actual, expected = evaluate_or_explain(text), evaluate_in_python(text)
    assume(not str(actual).startswith("the result is too large"))
    if isinstance(actual, str):
        # An intermediate complex number is an error here immediately.
        assert expected == MESSAGES[actual] or "** 0.5" in text
    else:
        assert actual == expected
        assert type(actual) is type(expected)


# --- errors ---------------------------------------------------------------------------------


def test_text_of_an_unknown_name_error():
    tree = parse("graph:\n  - conv: {filters: growht * 4}\n", "net.yaml")
    span = find_span(tree, ["graph", 0, "conv", "filters"])
    assert str(read_error("growht * 4", ExpressionScope({"growth": 32, "C": 3}), span)) == (
        "error[E0221]: unknown name `growht`\n"
        " --> net.yaml:2:21\n"
        "  |\n"
        "2 |   - conv: {filters: growht * 4}\n"
        "  |                     ^^^^^^\n"
        "   = in scope: C, growth\n"
        "   = help: did you mean `growth`?"
    )


@pytest.mark.parametrize(
    ("line", "text", "column"),
    [
        ("k: 1 + x", "1 + x", 8),
        ("k: '1 + x'", "1 + x", 9),
        ('k: "1 + x"', "1 + x", 9),
        ("k: {a: 1 + x}", "1 + x", 12),
        ("k: |\n  1 + x", "1 + x\n", 4),
        ("k: 'a == ''b'' + x'", "a == 'b' + x", 4),
        ("k: 1 +\n  x", "1 + x", 4),
    ],
)
def test_the_error_column_is_inside_the_scalar(line, text, column):
    tree = parse(line, "t.yaml")
    path = ["k", "a"] if "{" in line else ["k"]
    assert read_error(text, ExpressionScope({"a": "b"}), find_span(tree, path)).at.column == column


@pytest.mark.parametrize(
    ("text", "marked_text", "message", "help"),
    [
        ("", "", "expected a value, found the end of the expression", ""),
        ("1 +", "", "expected a value, found the end of the expression", ""),
        ("1 2", "2", "expected an operator or the end, found `2`", ""),
        ("a b", "b", "expected an operator or the end, found `b`", ""),
        ("(1", "", "expected `)`, found the end of the expression", ""),
        ("[1, 2", "", "expected `]`, found the end of the expression", ""),
        ("1)", ")", "expected an operator or the end, found `)`", ""),
        ("* 2", "*", "expected a value, found `*`", ""),
        ("1 if 2", "", "expected `else`, found the end of the expression", ""),
        ("if 1", "if", "expected a value, found `if`", ""),
        ("1 + not first", "not", "expected a value, found `not`", "put `not ...` in parentheses"),
        ("2x", "2x", "`2x` is not a number", "write `2 * x`"),
        ("1.2.3", "1.2.3", "`1.2.3` is not a number", ""),
        ("007", "007", "`007` starts with 0", "write 7"),
        ("a.b", ".", "`.` is not allowed in an expression", "there are no attributes"),
        ("a = 1", "=", "`=` is not allowed in an expression", "write `==`"),
        ("a && b", "&&", "`&&` is not allowed in an expression", "write `and`"),
        ("!a", "!", "`!` is not allowed in an expression", "write `not`"),
        ("2 ^ 3", "^", "`^` is not allowed in an expression", "write `**`"),
        ("a ? 1 : 2", "?", "`?` is not allowed in an expression", "write `a if c else b`"),
        ("True", "True", "`True` is not a keyword", "write `true`"),
        ("'abc", "'abc", "this quote is never closed", ""),
        ("ü + 1", "ü", "`ü` is not allowed in an expression", ""),
        ("1 + \x07", "\x07", "`U+0007` is not allowed in an expression", ""),
        ("round(1, 2)", "round(1, 2)", "`round` does not take 2 arguments", "write round(x)"),
        ("min()", "min()", "`min` does not take 0 arguments", "write min(a, b, ...) or min(list)"),
        ("height(1 + 2)", "height(1 + 2)", "`height` takes the name of one value", "write height"),
        ("a[]", "]", "expected a value, found `]`", ""),
        ("a[", "", "expected a value, found the end of the expression", ""),
        ("a[1:2", "", "expected `]`, found the end of the expression", ""),
        ("a[1:2:3:4]", ":", "expected `]`, found `:`", "`:` is only for slices"),
        ("a[1 2]", "2", "expected `]`, found `2`", ""),
        ("a[1, 2]", ",", "expected `]`, found `,`", ""),
        ("a : b", ":", "expected an operator or the end, found `:`", "`:` is only for slices"),
        (
            "[1:2]",
            ":",
            "expected `]`, found `:`",
            "`:` is only for slices, as in `list[1:]`; write a choice as `a if c else b`",
        ),
    ],
)
def test_invalid_expressions_are_refused(text, marked_text, message, help):
    diagnostic = read_error(text)
    assert (diagnostic.code, diagnostic.message) == ("E0220", message)
    assert diagnostic.help.startswith(help)
    assert get_pointed_text(diagnostic) == marked_text


@pytest.mark.parametrize(
    ("text", "marked_text", "message", "help"),
    [
        ("1 + growht", "growht", "unknown name `growht`", "did you mean `growth`?"),
        ("xyz", "xyz", "unknown name `xyz`", ""),
        ("H * 2", "H", "unknown name `H`", "only a feature map has a height and a width"),
        (
            "skip + 1",
            "skip",
            "unknown name `skip`",
            "it names a value; write one of its sizes, such as channels(skip",
        ),
        ("sum", "sum", "unknown name `sum`", "it is a function: sum(list)"),
        ("squm(layers)", "squm", "no function is called `squm`", "did you mean `sum`?"),
        (
            "__import__('os')",
            "__import__",
            "no function is called `__import__`",
            "functions are min",
        ),
        ("channels(skp)", "skp", "no value is named `skp` here", "did you mean `skip`?"),
        (
            "channels(q)",
            "q",
            "no value is named `q` here",
            "name the result of a step with `as: name`",
        ),
    ],
)
def test_unknown_names_are_refused(text, marked_text, message, help):
    diagnostic = read_error(text)
    assert (diagnostic.code, diagnostic.message) == ("E0221", message)
    assert diagnostic.help.startswith(help)
    assert get_pointed_text(diagnostic) == marked_text


def test_a_few_names_in_scope_are_listed():
    assert read_error("x", ExpressionScope({"b": 1, "a": 2})).notes == ("in scope: a, b",)
    assert read_error("x", ExpressionScope({})).notes == ("in scope: nothing",)
    assert read_error("x", ExpressionScope({f"name_{i}": i for i in range(50)})).notes == ()


@pytest.mark.parametrize(
    ("text", "marked_text", "message"),
    [
        ("1 + true", "true", "`+` needs numbers, found a Boolean: true"),
        ("(growth + act) * 2", "act", "`+` needs numbers, found a string: 'relu'"),
        ("'a' + 'b'", "'a'", "`+` needs numbers, found a string: 'a'"),
        ("2 * 3 * act", "act", "`*` needs numbers, found a string: 'relu'"),
        ("layers - 1", "layers", "`-` needs numbers, found a list: [4, 4, 4, 8]"),
        ("-layers", "layers", "`-` needs numbers, found a list: [4, 4, 4, 8]"),
        ("-true", "true", "`-` needs numbers, found a Boolean: true"),
        ("1 / 0", "0", "division by zero"),
        ("5 // (2 - 2)", "(2 - 2)", "division by zero"),
        ("1.5 % 0", "0", "division by zero"),
        ("0 ** -1", "-1", "division by zero"),
        ("(-8) ** 0.5", "0.5", "a negative number has no fractional power"),
        ("act == 1", "1", "a string is compared with a number: 1"),
        ("1 == true", "true", "a number is compared with a Boolean: true"),
        ("act < 'x'", "act", "`<` needs numbers, found a string: 'relu'"),
        ("layers < [1]", "layers", "`<` needs numbers, found a list: [4, 4, 4, 8]"),
        ("1 if growth else 2", "growth", "`if` needs true or false, found a number: 32"),
        ("first and 1", "1", "`and` needs true or false, found a number: 1"),
        ("not act", "act", "`not` needs true or false, found a string: 'relu'"),
        ("layers[4]", "4", "index 4 is outside a list of 4"),
        ("layers[-5]", "-5", "index -5 is outside a list of 4"),
        ("layers[5:]", "5", "5 is outside a list of 4"),
        ("layers[:-5]", "-5", "-5 is outside a list of 4"),
        ("layers[1:width]", "width", "a slice needs integers, found 1.5"),
        ("layers[::0]", "0", "the step of a slice is zero"),
        ("act[1:]", "act", "a slice needs a list, found a string: 'relu'"),
        ("C[1:]", "C", "a slice needs a list, found a number: 64"),
        ("channels(outputs)", "outputs", "`outputs` is a list of values"),
        ("channels(outputs[3])", "3", "index 3 is outside a list of 3"),
        ("channels(skip[0])", "skip[0])", "`skip` is one value, not a list"),
        ("len(skip)", "skip", "`skip` is one value, not a list, so it has no length"),
        ("layers[1.0]", "1.0", "an index needs integers, found 1.0"),
        ("layers[true]", "true", "an index needs integers, found true"),
        ("act[0]", "act", "an index needs a list, found a string: 'relu'"),
        ("len(act)", "act", "`len` needs a list, found a string: 'relu'"),
        ("max(1, act)", "act", "`max` needs numbers, found a string: 'relu'"),
        ("max(growth)", "growth", "`max` needs a list, found a number: 32"),
        ("min([])", "[]", "`min` of an empty list"),
        ("sum(['a'])", "['a']", "`sum` needs numbers, found a string: 'a'"),
        ("range(1.5)", "1.5", "`range` needs integers, found 1.5"),
        ("range(1, 2, 0)", "0", "the step of `range` is zero"),
        ("divisible(8, 0)", "0", "the divisor must be at least 1"),
        ("divisible(8, 2.0)", "2.0", "`divisible` needs integers, found 2.0"),
        ("height(gate)", "gate", "`gate` is a vector of 10 and has no height"),
    ],
)
def test_values_of_a_wrong_type_are_refused(text, marked_text, message):
    diagnostic = read_error(text)
    assert (diagnostic.code, diagnostic.message) == ("E0222", message)
    assert get_pointed_text(diagnostic) == marked_text


def test_infinite_variables_are_refused():
    scope = ExpressionScope({"x": float("inf"), "y": float("nan")})
    assert read_error("x + 1", scope).message == "`+` needs finite numbers, found inf"
    assert read_error("floor(y)", scope).message == "`floor` needs finite numbers, found nan"


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "marked_text", "message"),
    [
        ("9 ** 9 ** 9", "9 ** 9 ** 9", "the result is too large"),
        ("2 ** 64", "2 ** 64", "the result is too large"),
        ("2 ** 63 + 1", "2 ** 63 + 1", "the result is too large for 64 bits"),
        ("10.0 ** 400", "10.0 ** 400", "the result is too large"),
        ("1e308 * 10", "1e308 * 10", "the result is too large"),
        ("1e999", "1e999", "the number is too large for 64 bits"),
        ("1 + 9223372036854775809", "9223372036854775809", "the number is too large for 64 bits"),
        ("9" * 900, "9" * 900, "the number is too large for 64 bits"),
        ("range(4097)", "range(4097)", "the list has more than 4096 entries"),
        ("range(-2**63, 2**63)", "range(-2**63, 2**63)", "the list has more than 4096 entries"),
        ("[0] * 4097", "[0] * 4097", "the list has more than 4096 entries"),
        ("[0] * 2**62", "[0] * 2**62", "the list has more than 4096 entries"),
        ("[[0] * 64] * 64", "[[0] * 64] * 64", "the list has more than 4096 entries"),
        (
            "range(4000) + range(97)",
            "range(4000) + range(97)",
            "the list has more than 4096 entries",
        ),
    ],
)
def test_results_are_bounded(text, marked_text, message):
    diagnostic = read_error(text)
    assert (diagnostic.code, diagnostic.message) == ("E0223", message)
    assert get_pointed_text(diagnostic) == marked_text


def test_results_within_the_bounds_are_computed():
    assert evaluate_text("-2 ** 63") == -MAX_INT
    assert len(evaluate_text("range(4096)")) == MAX_LIST
    assert evaluate_text("len([0] * 4096)") == MAX_LIST


def test_doubling_lists_stays_bounded():
    rows = (0,) * 4000
    scope = ExpressionScope({"rows": rows})
    assert read_error("[rows, rows]", scope).code == "E0223"
    assert read_error("[rows] * 1000", scope).code == "E0223"


@pytest.mark.parametrize(
    ("text", "max_cost"),
    [
        ("[[1]] * 2048", 4147), ("len([[1]] * 2048)", 8264), ("[[]] * 4096", 4141),
        ("([[1, 2], [3]] * 99)[1:]", 1091), ("[[[1]]] * 100 + [[2]]", 695),
        ("[[1]] * 9 == [[1]] * 9", 211), ("[[]] * 9 == [[]] * 9", 172), ("[1, 2] == [1, 2]", 70),
    ],
)  # fmt: skip
def test_evaluation_costs_do_not_grow(text, max_cost):
    """A spec at the budget limit, in letters and list entries, is refused if costs grow."""
    budget = Budget()
    evaluate_text(text, ExpressionScope(budget=budget))
    assert 0 < MAX_WORK - budget.remaining <= max_cost


def test_text_length_is_bounded():
    diagnostic = read_error("1" + " + 1" * 1000)
    assert diagnostic.code == "E0223"
    assert diagnostic.message == f"the expression has 4,001 characters; the limit is {MAX_TEXT:,}"
    assert evaluate_text("1" + "+1" * 499) == 500


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("1 ** ", ""), ("abs(", ")"), ("1+(", ")")],
)
def test_nesting_is_bounded(opening, closing):
    count = MAX_TEXT // max(1, len(opening + closing)) - 2
    diagnostic = read_error(opening * count + "1" + closing * count)
    assert (diagnostic.code, diagnostic.message) == (
        "E0223",
        "the expression is nested more than 64 deep",
    )
    count = MAX_NESTING // 2 - 2
    middle = "true" if opening == "not " else "1"
    assert evaluate_text(opening * count + middle + closing * count) is not None


def test_nested_conditions_and_indices_are_bounded():
    assert read_error("1 if last else " * 65 + "2").code == "E0223"
    assert read_error("layers" + "[0]" * 70).code == "E0223"
    assert evaluate_text("1 if last else " * 20 + "2") == 2


# --- unknown values -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "u",
        "-u",
        "u + 1",
        "1 + 2 * u",
        "u == 1",
        "1 < u < 0",
        "not u",
        "first and u",
        "u or first",
        "1 if u else 2",
        "u if first else 2",
        "[1, u]",
        "layers[u]",
        "u[0]",
        "max(1, u)",
        "len(u)",
        "channels(lost)",
        "height(lost) * 2",
    ],
)
def test_expressions_of_unknown_values_are_unknown(text):
    scope = ExpressionScope({**NAMES, "u": UNKNOWN}, VALUES)
    assert evaluate_text(text, scope) is UNKNOWN


def test_expressions_independent_of_unknown_values_are_known():
    scope = ExpressionScope({**NAMES, "u": UNKNOWN})
    assert evaluate_text("first or u", scope) is True
    assert evaluate_text("1 if first else u", scope) == 1
    assert read_error("u + 1 / 0", scope).message == "division by zero"
    assert repr(UNKNOWN) == "unknown"


# --- random input ---------------------------------------------------------------------------

SOUP = st.lists(
    st.sampled_from(
        [
            *("1", "0", "2.5", "1e9", "growth", "layers", "act", "skip", "u", "x", "'s'", '"', "'"),
            *("+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "!=", "(", ")", "[", "]", ","),
            *("and", "or", "not", "if", "else", "true", "false", "min", "max(", "range(", "len("),
            *("divisible(", "channels(", "height(", ".", "=", "!", " ", "\n", "\0", "é", "[0] *"),
        ]
    ),
    max_size=25,
).map(" ".join)


def check(text):
    """Evaluate a text. Only a located user error is allowed."""
    scope = ExpressionScope({**NAMES, "u": UNKNOWN}, VALUES)
    line = f"k: \N{LEFT DOUBLE QUOTATION MARK}{text}"
    for at_column, source in ((1, text), (4, line)):
        try:
            outcome = evaluate(parse_expr(text, Span("t", 1, at_column, source)), scope)
        except UserError as raised:
            outcome = raised.diagnostics[0]
        if isinstance(outcome, Diagnostic):
            first_column = at_column + (at_column > 1 and bool(text))
            assert outcome.code in ("E0220", "E0221", "E0222", "E0223")
            assert first_column <= outcome.at.column <= first_column + len(text)
            assert outcome.at.column + outcome.at.width <= first_column + max(len(text), 1) + 1
        else:
            assert outcome is UNKNOWN or isinstance(outcome, int | float | str | tuple)


@given(SOUP)
@example("((((1")
@example("1 ** 2 ** -u")
@example("range(0 - 2 ** 63, 2 ** 63)")
@example("layers[2 ** 63]")
def test_random_tokens_evaluate_or_are_refused(text):
    check(text)


@given(st.text(max_size=60))
def test_random_text_evaluates_or_is_refused(text):
    check(text)


@given(NUMBERS | TRUTHS, st.data())
def test_a_mutated_expression_evaluates_or_is_refused(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    check(text[:start] + data.draw(SOUP.map(lambda soup: soup[:4])) + text[end:])
