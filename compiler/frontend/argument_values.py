"""Evaluation of the arguments of a call."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tcc.compiler.frontend.expr import UNKNOWN, ExpressionScope, Unknown, evaluate_text
from tcc.compiler.frontend.expr.operators import (
    GraphValue,
    OperandError,
    collect_types,
    explain_integer,
    is_finite,
)
from tcc.compiler.frontend.framework_aliases import match_value as match_framework_value
from tcc.compiler.frontend.yaml import Mapping, Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import ArgumentValue, Kind, Parameter, Required
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, find_nearest_name

ArgumentValues = dict[str, Any]
"""Values by parameter name; `UNKNOWN` for a value that an earlier error hides."""

# (2 - 2^-23) * 2^127, and the smallest normal number. NEON of ARMv7 always flushes subnormal
# numbers to zero.
MAX_FLOAT32, MIN_NORMAL_FLOAT32 = 3.4028234663852886e38, 2.0**-126
"""Limits of normal float32 numbers. Some vector units flush smaller ones to zero."""
ENTRY_COST = 10
"""Cost of an entry of a written list, in entries of computed lists."""
MAX_PROBLEMS = 1000
"""Most errors that are collected for the arguments and defaults of one call."""
_LITERAL_KINDS = frozenset((Kind.STRING, Kind.PADDING, Kind.BOOL, Kind.NAMES))
"""Kinds with literal names as values, or with values that look like literal names."""
OPTIONS = ("as", "from", "id", "doc")
"""Keys next to the keyword of a step."""


def bind_arguments(
    params: tuple[Parameter, ...],
    args: Tree | None,
    caller: ExpressionScope,
    make_scope: Callable[[ArgumentValues], ExpressionScope],
) -> tuple[ArgumentValues, list[Diagnostic]]:
    """Return the arguments of a call, `UNKNOWN` for those with an error, and the errors.

    Arguments are expressions in the scope of the caller. Defaults are expressions of the
    parameters before them; `make_scope` creates their scope. At most `MAX_PROBLEMS` errors are
    collected.
    """
    bound: ArgumentValues = {}
    defaults: ExpressionScope | None = None  # sees all bound parameters, also later ones
    problems: list[Diagnostic] = []
    trees = {k.value: v for k, v in args.items} if isinstance(args, Mapping) else {}
    for p in params:
        if len(problems) >= MAX_PROBLEMS:
            bound[p.name] = UNKNOWN
            continue
        try:
            if p.name in trees:
                bound[p.name] = evaluate_argument(p, trees[p.name], caller)
            elif isinstance(p.default, (Scalar, Sequence, Mapping)):
                defaults = defaults or make_scope(bound)
                bound[p.name] = evaluate_argument(p, p.default, defaults)
            else:
                bound[p.name] = UNKNOWN if isinstance(p.default, Required) else p.default
        except UserError as error:
            bound[p.name] = UNKNOWN
            problems += error.diagnostics
    return bound, problems


def evaluate_argument(p: Parameter, tree: Tree, scope: ExpressionScope) -> Any:
    """Return the value of one argument, checked against its type, choices and range.

    `UNKNOWN` if an earlier error hides the value.
    """
    if p.kind is Kind.INT and isinstance(tree, Scalar) and type(tree.value) is int:  # most are
        _check_range(p, tree.value, tree.span)
        return tree.value
    value = _read_literal(p, tree, scope) if p.choices or p.kind in _LITERAL_KINDS else None
    if value is None:
        try:
            value = evaluate_tree(tree, scope)
        except UserError as error:
            raise _add_quoting_help(p, error) from None
    value_types = collect_types(value)
    if Unknown in value_types:
        return UNKNOWN
    # No conversions between types: 1.0 is not an integer and `true` is not 1, because the author
    # meant something else.
    converted: Any = _CONVERTERS[p.kind](value)
    if converted is None or (p.choices and p.kind is Kind.ENUM and converted not in p.choices):
        raise _create_mismatch_error(p, value, tree.span)
    # Checked only if there is a float: most long lists contain only integers.
    if float in value_types and not is_finite(converted):
        raise fail("E0214", f"`{p.name}` must be finite", tree.span)
    if p.single:
        check_single(p.name, converted, tree.span)
    _check_range(p, converted, tree.span)
    return converted


def check_single(name: str, value: Any, at: Span) -> None:
    """Refuse floats that are too large or too small for float32, the type of the devices.

    Raises:
        UserError: E0214.
    """
    for number in value if isinstance(value, tuple) else (value,):
        size = abs(number) if isinstance(number, float) else 0.0
        if size > MAX_FLOAT32:
            help = "write a smaller number: the largest float32 is 3.4e38"
            label = f"{number:g} is infinite in float32"
            raise fail("E0214", f"`{name}` is too large", at, label=label, help=help)
        if 0 < size < MIN_NORMAL_FLOAT32:
            zero = "" if name == "std" else "0 or "
            help = f"write {zero}a larger number: the smallest normal float32 is 1.2e-38"
            label = f"{number:g} is 0 in float32 on many devices"
            raise fail("E0214", f"`{name}` is too small", at, label=label, help=help)


def _add_quoting_help(p: Parameter, error: UserError) -> UserError:
    """Add a help on quoting text to the error of an unknown name."""
    if p.kind is not Kind.LIST:
        return error
    # A bare word is a name in a list of expressions, and text in a list of names.
    help = "put text in an expression into its own quotes: \"'text'\""
    return UserError(
        tuple(
            replace(d, help=help) if d.code == "E0221" and not d.help else d
            for d in error.diagnostics
        )
    )


def _read_literal(p: Parameter, tree: Tree, scope: ExpressionScope) -> ArgumentValue | None:
    """Return the value of a literal, or None for an expression."""
    value = _match_literal(p, tree)
    if value is None:
        _check_choice(p, tree, scope)
    return value


def _match_literal(p: Parameter, tree: Tree) -> ArgumentValue | None:
    """Return the value of a literal (a choice, a string, names), or None."""
    match tree:
        case Scalar(value=str(text)) if text in p.choices or p.kind is Kind.STRING:
            return text
        case Scalar(value="same") if p.kind is Kind.PADDING:
            return "same"
        case Sequence(items=items) if p.kind is Kind.NAMES:
            return tuple(map(_read_name, items))
        case _:
            return None


def _read_name(tree: Tree) -> str:
    value = tree.value if isinstance(tree, Scalar) else None
    if not isinstance(value, str) and not _is_integer(value):
        raise fail(
            "E0213",
            "a list of strings can only contain text",
            tree.span,
            help="put it in quotes",
        )
    return str(value)


def _check_choice(p: Parameter, tree: Tree, scope: ExpressionScope) -> None:
    """Refuse a bare word that is neither a choice nor a name in scope."""
    text = tree.value if isinstance(tree, Scalar) else None
    is_identifier = isinstance(text, str) and text.isidentifier()
    if (
        not is_identifier
        or text in scope.names
        or isinstance(scope.values.get(str(text)), GraphValue)
    ):
        return
    switch = p.kind is Kind.BOOL and text in _SWITCHES
    names = p.kind is Kind.NAMES and find_nearest_name(str(text), tuple(scope.names)) is None
    if p.choices or p.kind is Kind.PADDING or switch or names:
        raise _create_mismatch_error(p, text, tree.span)


def evaluate_tree(tree: Tree, scope: ExpressionScope) -> Any:
    """Return the value of a tree in which every string is an expression."""
    if isinstance(tree, Scalar) and isinstance(tree.value, str):  # most are; faster than `match`
        return evaluate_text(tree.value, tree.span, scope)
    match tree:
        case Scalar(value=None):
            raise fail("E0216", "a value is missing here", tree.span)
        case Scalar(value=value):
            return value
        case Sequence(items=items):
            _use_budget(scope, ENTRY_COST * len(items), tree.span)
            return tuple(evaluate_tree(i, scope) for i in items)
        case _:
            raise fail("E0204", "a value is expected here, not a mapping", tree.span)


def _use_budget(scope: ExpressionScope, amount: int, at: Span) -> None:
    try:
        scope.budget.use(amount)
    except OperandError as error:
        raise fail(error.code, error.message, at, help=error.help) from None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _to_finite_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return number if abs(number) < float("inf") else None


def _to_integers(value: Any, *counts: int) -> Any:
    fits = isinstance(value, tuple) and len(value) in counts and all(map(_is_integer, value))
    return value if fits else None


_CONVERTERS: dict[Kind, Callable[[Any], Any]] = {
    Kind.INT: lambda v: v if _is_integer(v) else None,
    Kind.FLOAT: _to_finite_float,
    Kind.BOOL: lambda v: v if isinstance(v, bool) else None,
    # YAML reads the value `255` of an enum as a number.
    Kind.ENUM: lambda v: v if isinstance(v, str) else str(v) if _is_integer(v) else None,
    Kind.STRING: lambda v: v if isinstance(v, str) else None,
    Kind.PAIR: lambda v: (v, v) if _is_integer(v) else _to_integers(v, 2),
    Kind.PADDING: lambda v: v if _is_integer(v) or v == "same" else _to_integers(v, 2, 4),
    Kind.LIST: lambda v: v if isinstance(v, tuple) else None,
    Kind.NAMES: lambda v: (
        v if isinstance(v, tuple) and all(isinstance(s, str) for s in v) else None
    ),
    Kind.ANY: lambda v: v,
}


_KIND_DESCRIPTIONS = {
    Kind.INT: "an integer",
    Kind.FLOAT: "a finite number",
    Kind.BOOL: "true or false",
    Kind.PAIR: "an integer or [height, width]",
    Kind.PADDING: "an integer, [vertical, horizontal], [top, left, bottom, right] or `same`",
    Kind.LIST: "a list",
    Kind.STRING: "a string",
    Kind.NAMES: "a list of strings",
    Kind.ANY: "a value",
    Kind.ENUM: "a name",
}


def describe_parameter(p: Parameter) -> str:
    """Return a description of the values of a parameter."""
    return f"one of {', '.join(p.choices)}" if p.choices else _KIND_DESCRIPTIONS[p.kind]


def format_value(value: Any) -> str:
    """Return a value as it is written in a spec."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_value, value))}]"
    return f"'{value}'" if isinstance(value, str) else str(value)


_SWITCHES: dict[Any, str] = {
    **dict.fromkeys(("yes", "on", "True", 1), "true"),
    **dict.fromkeys(("no", "off", "False", 0), "false"),
}


def _create_mismatch_error(p: Parameter, value: Any, at: Span) -> UserError:
    help = ""
    if p.kind in (Kind.INT, Kind.PAIR, Kind.PADDING) and isinstance(value, float):
        help = explain_integer(value)
    elif (
        isinstance(value, str)
        and (suggestion := match_framework_value(value, _list_choices(p))).help
    ):
        help = suggestion.help
    elif p.kind is Kind.BOOL and value in _SWITCHES:
        help = f"write `{_SWITCHES[value]}`"
    # Users of Python write `for i in range(n)`.
    elif p.name == "of" and _is_integer(value):
        help = f"write `of: range({value})` for 0 to {value - 1}, or `repeat: {{times: {value}}}`"
    elif p.kind is Kind.LIST and not isinstance(value, str):
        help = f"put it in brackets: [{format_value(value)}]"
    elif p.kind is Kind.NAMES:
        help = "put them in brackets: [a, b]"
    return fail(
        "E0213",
        f"`{p.name}` must be {describe_parameter(p)}",
        at,
        label=f"this is {format_value(value)}",
        help=help,
    )


def _list_choices(p: Parameter) -> tuple[str, ...]:
    return ("same", "0") if p.kind is Kind.PADDING else p.choices


def _check_range(p: Parameter, value: Any, at: Span) -> None:
    low, high = p.low, p.high
    if low is None and high is None:
        return
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            bound = f"at least {low:g}" if low is not None and number < low else f"at most {high:g}"
            raise fail(
                "E0214", f"`{p.name}` must be {bound}", at, label=f"this is {format_value(number)}"
            )
