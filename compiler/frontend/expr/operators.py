"""Values and scopes of expressions, and their operators.

Values of the wrong kind or size raise `OperandError`.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

from tcc.compiler.ir.argument_declarations import ArgumentValue
from tcc.compiler.ir.types import Shape, TensorType


class Unknown:
    """The type of `UNKNOWN`."""

    def __repr__(self) -> str:
        """The name in messages."""
        return "unknown"


UNKNOWN = Unknown()
"""A value that an earlier error hides; results that depend on it are unknown too."""

ExpressionValue = ArgumentValue | Unknown


@dataclass
class ExpressionError(Exception):
    """An error in text[start:end] of an expression."""

    code: str
    message: str
    start: int
    end: int
    help: str = ""
    notes: tuple[str, ...] = ()


MAX_INT = 1 << 63
"""Largest integer, in magnitude: attributes and sizes of ONNX have 64 bits, and without a limit
`9 ** 9 ** 9` would not end."""
MAX_LIST = 4096
"""Most entries of a list, including those of nested lists."""

MAX_WORK = 20_000_000
"""Largest cost of the expressions and loops of a spec; a unit is an entry of a list, or a letter.

A limit on work, unlike one on time, is the same on every machine."""
PAIR_COST = 7
"""Cost of comparing two nested lists, in addition to their entries. Counting and copying lists runs
at the speed of memory, but nested lists are compared one by one."""

Number = int | float
_KINDS = {int: "a number", float: "a number", bool: "a Boolean", str: "a string"}


@dataclass
class OperandError(Exception):
    """An invalid operand; `operand` is its position, or None for all operands."""

    message: str
    operand: int | None = None
    help: str = ""
    code: str = "E0222"


class Budget:
    """The remaining cost that a spec may use; it also ends loops over empty bodies."""

    def __init__(self, remaining: int = MAX_WORK) -> None:
        self.remaining = remaining

    def use(self, amount: int) -> None:
        """Use up an amount.

        Raises:
            OperandError: The budget is exhausted (E0406).
        """
        self.remaining -= amount
        if self.remaining < 0:
            help = "its loops and lists are too long; compute common parts once, with `let`"
            raise OperandError("the spec takes too many steps to expand", None, help, "E0406")


@dataclass(frozen=True, slots=True)
class GraphValue:
    """A value of the graph; its `type` is None if an earlier error hides it."""

    name: str
    type: TensorType | None

    @property
    def shape(self) -> Shape | None:
        """The shape, if the type is known."""
        return self.type.shape if self.type else None


NamedValue = GraphValue | tuple[GraphValue, ...]
"""The value of a name: a single value, or a list that a loop collected."""


@dataclass(frozen=True, slots=True)
class ExpressionScope:
    """Names of numbers (`names`) and of graph values (`values`).

    `budget` limits the cost of evaluation.
    """

    names: Mapping[str, ExpressionValue] = field(default_factory=dict)
    values: Mapping[str, NamedValue] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget, compare=False)


def compute_cost(values: tuple[ArgumentValue, ...], list_cost: int = 0) -> int:
    """Return the cost of reading values: the number of list entries at all levels.

    `list_cost` is the additional cost of a nested list.
    """
    return sum(_count_entries(value, list_cost) for value in values if isinstance(value, tuple))


def describe_kind(value: ArgumentValue) -> str:
    """Return the kind of a value, for messages."""
    return _KINDS.get(type(value), "a list")


def format_operand(value: ArgumentValue) -> str:
    """Return a value as an expression, shortened if it is long."""
    match value:
        case bool():
            text = str(value).lower()
        case tuple():
            text = (
                "["
                + ", ".join(map(format_operand, value[:9]))
                + (", ...]" if len(value) > 9 else "]")
            )
        case _:
            text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def to_number(value: ArgumentValue, subject: str, operand: int | None = None) -> Number:
    """Return a value that must be a finite number."""
    if type(value) is int:
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise OperandError(f"{subject} needs finite numbers, found {value}", operand)
    raise OperandError(
        f"{subject} needs numbers, found {describe_kind(value)}: {format_operand(value)}", operand
    )


def to_integer(value: ArgumentValue, subject: str, operand: int | None = None) -> int:
    """Return a value that must be an integer."""
    if type(value) is int:
        return value
    hint = f"write {int(value)}" if type(value) is float and value.is_integer() else ""
    raise OperandError(f"{subject} needs integers, found {format_operand(value)}", operand, hint)


def is_finite(value: ArgumentValue) -> bool:
    """Return whether all numbers of a value are finite, as JSON and all targets require."""
    if isinstance(value, tuple):
        numbers = collect_types(value) <= {int, float}  # most long lists are
        return all(map(math.isfinite if numbers else is_finite, cast("Any", value)))
    return not isinstance(value, float) or math.isfinite(value)


def collect_types(value: object) -> set[type]:
    """Return the type of a value, or the types of a list's entries at all levels."""
    if not isinstance(value, tuple):
        return {type(value)}
    entry_types = set(map(type, value))
    if tuple in entry_types:
        # By identity, because `*` repeats a list without copying it.
        entry_types.update(
            *map(collect_types, {id(v): v for v in value if isinstance(v, tuple)}.values())
        )
    return entry_types


def explain_integer(value: float) -> str:
    """Return the help for a number that must be an integer."""
    if not abs(value) < float("inf"):
        return "write a finite number"
    if value.is_integer() and abs(value) < 1e9:
        return f"write {int(value)}"
    return "`//` divides to an integer; `round`, `ceil` and `floor` return one"


def to_boolean(value: ArgumentValue, subject: str, operand: int | None = None) -> bool:
    """Return a value that must be true or false."""
    if isinstance(value, bool):
        return value
    hint = "compare it, as in `x != 0`" if describe_kind(value) == "a number" else ""
    raise OperandError(
        f"{subject} needs true or false, found {describe_kind(value)}: {format_operand(value)}",
        operand,
        hint,
    )


def to_sequence(
    value: ArgumentValue, subject: str, operand: int | None = None
) -> tuple[ArgumentValue, ...]:
    """Return a value that must be a list."""
    if isinstance(value, tuple):
        return value
    raise OperandError(
        f"{subject} needs a list, found {describe_kind(value)}: {format_operand(value)}", operand
    )


def check_limits(value: ArgumentValue) -> ArgumentValue:
    """Return a value after checking it against the limits."""
    match value:
        case tuple() if _count_entries(value) > MAX_LIST:
            raise OperandError(f"the list has more than {MAX_LIST} entries", code="E0223")
        case int() if abs(value) > MAX_INT:
            raise OperandError("the result is too large for 64 bits", code="E0223")
        case float() if not math.isfinite(value):
            raise OperandError("the result is too large", code="E0223")
    return value


def _count_entries(value: tuple[ArgumentValue, ...], list_cost: int = 0) -> int:
    """Return the number of entries at all levels, plus `list_cost` for each nested list."""
    count = 0
    while tuple in (types := set(map(type, value))):
        lists = value if len(types) == 1 else [v for v in value if isinstance(v, tuple)]
        count += len(value) + list_cost * len(lists)
        value = tuple(chain.from_iterable(cast("Any", lists)))  # one level at the speed of C
    return count + len(value)


def apply_binary(sign: str, lhs: ArgumentValue, rhs: ArgumentValue) -> ArgumentValue:
    """Return the result of `lhs sign rhs`."""
    if type(lhs) is int and type(rhs) is int and sign in _INTEGER_OPERATORS:  # most are
        result = _INTEGER_OPERATORS[sign](lhs, rhs)
        if abs(result) <= MAX_INT:
            return result
    subject = f"`{sign}`"
    match sign, lhs, rhs:
        case "+", tuple(), tuple():
            return check_limits(lhs + rhs)
        # In Python `true` is the number 1; here it is an error.
        case "*", tuple(), int() if not isinstance(rhs, bool):
            return _repeat_list(lhs, rhs)
    a, b = to_number(lhs, subject, 0), to_number(rhs, subject, 1)
    try:
        return check_limits(_OPERATORS[sign](a, b))
    except ZeroDivisionError:
        raise OperandError("division by zero", 1) from None
    except OverflowError:
        raise OperandError("the result is too large", code="E0223") from None


def _repeat_list(entries: tuple[ArgumentValue, ...], times: int) -> ArgumentValue:
    # Checked before the list is created: `[1] * 10 ** 18` would use up all memory.
    if _count_entries(entries) * times > MAX_LIST:
        raise OperandError(f"the list has more than {MAX_LIST} entries", code="E0223")
    return entries * times


def _compute_power(base: Number, exponent: Number) -> Number:
    # Refused before it is computed, which could take long.
    if abs(base) > 1 and exponent > 63 and isinstance(base, int) and isinstance(exponent, int):
        raise OverflowError
    power = base**exponent
    # In Python `(-2) ** 0.5` is a complex number.
    if isinstance(power, complex):
        raise OperandError("a negative number has no fractional power", 1)
    return float(power) if isinstance(power, float) else int(power)


_OPERATORS: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": _compute_power,
}


_INTEGER_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


def apply_minus(value: ArgumentValue) -> ArgumentValue:
    """Return `-value`."""
    return -to_number(value, "`-`", 0)


def apply_plus(value: ArgumentValue) -> ArgumentValue:
    """Return `+value`."""
    return to_number(value, "`+`", 0)


def compare(sign: str, lhs: ArgumentValue, rhs: ArgumentValue) -> bool:
    """Return the result of a comparison; `==` and `!=` need values of the same kind."""
    if sign not in ("==", "!="):
        subject = f"`{sign}`"
        return _COMPARATORS[sign](to_number(lhs, subject, 0), to_number(rhs, subject, 1))
    # In Python `1 == true`. In a spec that is an error that would silently decide a condition.
    if describe_kind(lhs) != describe_kind(rhs):
        raise OperandError(
            f"{describe_kind(lhs)} is compared with {describe_kind(rhs)}: {format_operand(rhs)}", 1
        )
    return _is_equal(lhs, rhs) == (sign == "==")


def _is_equal(lhs: ArgumentValue, rhs: ArgumentValue) -> bool:
    match lhs, rhs:
        case tuple(), tuple():
            if lhs != rhs:  # lists that only differ in kinds are equal in Python
                return False
            if not {bool, tuple} & set(map(type, lhs + rhs)):
                return True
            # By identity, because `*` repeats a list without copying it.
            pairs = {(id(a), id(b)): (a, b) for a, b in zip(lhs, rhs, strict=True)}
            return all(_is_equal(a, b) for a, b in pairs.values())
        case _:
            return describe_kind(lhs) == describe_kind(rhs) and lhs == rhs


_COMPARATORS: dict[str, Callable[[Number, Number], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def get_item(value: ArgumentValue, index: ArgumentValue) -> ArgumentValue:
    """Return `value[index]`; negative indices count from the end."""
    entries = to_sequence(value, "an index", 0)
    position = to_integer(index, "an index", 1)
    if not -len(entries) <= position < len(entries):
        raise OperandError(f"index {position} is outside a list of {len(entries)}", 1)
    return entries[position]


def get_slice(value: ArgumentValue, *bounds: ArgumentValue | None) -> ArgumentValue:
    """Return `value[start:stop:step]`; None is an omitted bound.

    Negative bounds count from the end. Bounds outside the list are errors: the slice would
    silently have fewer entries than it states.
    """
    entries = to_sequence(value, "a slice", 0)
    indices = [b if b is None else to_integer(b, "a slice", n + 1) for n, b in enumerate(bounds)]
    for position, bound in enumerate(indices[:2]):
        if bound is not None and not -len(entries) <= bound <= len(entries):
            hint = f"a bound is at most {len(entries)} here; use `min(n, len(list))`"
            raise OperandError(f"{bound} is outside a list of {len(entries)}", position + 1, hint)
    # The error of Python does not contain the position of the bound.
    if len(indices) == 3 and indices[2] == 0:
        raise OperandError("the step of a slice is zero", 3)
    return entries[slice(*indices)]
