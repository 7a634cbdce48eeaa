"""What expressions see, and what operators and functions do with values.

Wrong kinds and sizes raise `OperandError`.
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
        """The word that messages use."""
        return "unknown"


UNKNOWN = Unknown()
"""Stands for a value that an earlier error keeps from being known; what uses it is unknown too."""

Result = ArgumentValue | Unknown


@dataclass
class ExpressionError(Exception):
    """A mistake in text[start:end] of an expression."""

    code: str
    message: str
    start: int
    end: int
    help: str = ""
    notes: tuple[str, ...] = ()


MAX_INT = 1 << 63
"""Largest whole number, in magnitude: ONNX's attributes and sizes have 64 bits, and without a bound
`9 ** 9 ** 9` would not end."""
MAX_LIST = 4096
"""Most entries of a list, those of lists in it included."""

MAX_WORK = 20_000_000
"""Most that a spec's expressions and loops may cost: a unit is an entry of a list, or a letter.

A bound of work, not of seconds, is the same on every machine."""
COST_OF_PAIR = 7
"""What it costs to compare two lists that are entries of lists, beside their own entries: lists are
counted and copied as fast as memory allows, but these are compared one by one."""

Number = int | float
_KINDS = {int: "a number", float: "a number", bool: "a truth value", str: "a string"}


@dataclass
class OperandError(Exception):
    """An operand that does not fit; `operand` is its position, None where it is all of them."""

    message: str
    operand: int | None = None
    help: str = ""
    code: str = "E0222"


class Budget:
    """What a spec may cost to expand, so that loops over nothing end as well."""

    def __init__(self, left: int = MAX_WORK) -> None:
        self.left = left

    def spend(self, amount: int) -> None:
        """Take an amount.

        Raises:
            OperandError: Nothing is left (E0406).
        """
        self.left -= amount
        if self.left < 0:
            help = "its loops and lists are too long; compute what they share once, with `let`"
            raise OperandError("the spec takes too many steps to expand", None, help, "E0406")


@dataclass(frozen=True, slots=True)
class GraphValue:
    """A value of the graph being built; `type` None is one that an earlier error hides."""

    name: str
    type: TensorType | None

    @property
    def shape(self) -> Shape | None:
        """Its shape, where its type is known."""
        return self.type.shape if self.type else None


NamedValue = GraphValue | tuple[GraphValue, ...]
"""What a name stands for: a value, or the list of those that a loop collected."""


@dataclass(frozen=True, slots=True)
class ExpressionScope:
    """Names that stand for numbers, and those that stand for values of the graph.

    `budget` is what evaluation may cost.
    """

    names: Mapping[str, Result] = field(default_factory=dict)
    values: Mapping[str, NamedValue] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget, compare=False)


def cost(values: tuple[ArgumentValue, ...], each_list: int = 0) -> int:
    """Return what it costs to go through values: the entries of lists at all levels.

    `each_list` is what a list in a list costs beside its entries.
    """
    return sum(_entries(value, each_list) for value in values if isinstance(value, tuple))


def kind(value: ArgumentValue) -> str:
    """Return what a value is, in the words of messages."""
    return _KINDS.get(type(value), "a list")


def shown(value: ArgumentValue) -> str:
    """Return a value as an expression writes it, cut where it is long."""
    match value:
        case bool():
            text = str(value).lower()
        case tuple():
            text = "[" + ", ".join(map(shown, value[:9])) + (", ...]" if len(value) > 9 else "]")
        case _:
            text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def number(value: ArgumentValue, who: str, operand: int | None = None) -> Number:
    """Return a value that must be a finite number."""
    if type(value) is int:
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise OperandError(f"{who} needs finite numbers, found {value}", operand)
    raise OperandError(f"{who} needs numbers, found {kind(value)}: {shown(value)}", operand)


def integer(value: ArgumentValue, who: str, operand: int | None = None) -> int:
    """Return a value that must be a whole number."""
    if type(value) is int:
        return value
    hint = f"write {int(value)}" if type(value) is float and value.is_integer() else ""
    raise OperandError(f"{who} needs whole numbers, found {shown(value)}", operand, hint)


def finite(value: ArgumentValue) -> bool:
    """Whether all numbers of a value are finite, which JSON and every target ask for."""
    if isinstance(value, tuple):
        numbers = types(value) <= {int, float}  # most long lists are
        return all(map(math.isfinite if numbers else finite, cast("Any", value)))
    return not isinstance(value, float) or math.isfinite(value)


def types(value: object) -> set[type]:
    """Return the type of a value, or the types of a list's entries at all levels."""
    if not isinstance(value, tuple):
        return {type(value)}
    found = set(map(type, value))
    if tuple in found:
        # By identity, since `*` repeats a list without copying it.
        found.update(*map(types, {id(v): v for v in value if isinstance(v, tuple)}.values()))
    return found


def whole_meant(value: float) -> str:
    """Return the help for a number that is to be whole."""
    if not abs(value) < float("inf"):
        return "write a number; nothing here is infinite or undefined"
    if value.is_integer() and abs(value) < 1e9:
        return f"write {int(value)}"
    return "`//` divides to a whole number; `round`, `ceil` and `floor` make one"


def boolean(value: ArgumentValue, who: str, operand: int | None = None) -> bool:
    """Return a value that must be true or false."""
    if isinstance(value, bool):
        return value
    hint = "compare it, as in `x != 0`" if kind(value) == "a number" else ""
    raise OperandError(
        f"{who} needs true or false, found {kind(value)}: {shown(value)}", operand, hint
    )


def sequence(
    value: ArgumentValue, who: str, operand: int | None = None
) -> tuple[ArgumentValue, ...]:
    """Return a value that must be a list."""
    if isinstance(value, tuple):
        return value
    raise OperandError(f"{who} needs a list, found {kind(value)}: {shown(value)}", operand)


def bounded(value: ArgumentValue) -> ArgumentValue:
    """Return a value that is within the limits."""
    match value:
        case tuple() if _entries(value) > MAX_LIST:
            raise OperandError(f"a list of more than {MAX_LIST} entries", code="E0223")
        case int() if abs(value) > MAX_INT:
            raise OperandError("the result is too large for 64 bits", code="E0223")
        case float() if not math.isfinite(value):
            raise OperandError("the result is too large", code="E0223")
    return value


def _entries(value: tuple[ArgumentValue, ...], more: int = 0) -> int:
    """Return the number of entries at all levels, and so much more for each list in it."""
    count = 0
    while tuple in (types := set(map(type, value))):
        lists = value if len(types) == 1 else [v for v in value if isinstance(v, tuple)]
        count += len(value) + more * len(lists)
        value = tuple(chain.from_iterable(cast("Any", lists)))  # a level, all of it at C's speed
    return count + len(value)


def binary(sign: str, left: ArgumentValue, right: ArgumentValue) -> ArgumentValue:
    """Return what `left sign right` is."""
    if type(left) is int and type(right) is int and sign in _WHOLE:  # most are
        result = _WHOLE[sign](left, right)
        if abs(result) <= MAX_INT:
            return result
    who = f"`{sign}`"
    match sign, left, right:
        case "+", tuple(), tuple():
            return bounded(left + right)
        # To Python `true` is the number 1: here it is a slip.
        case "*", tuple(), int() if not isinstance(right, bool):
            return _repeated(left, right)
    a, b = number(left, who, 0), number(right, who, 1)
    try:
        return bounded(_SIGNS[sign](a, b))
    except ZeroDivisionError:
        raise OperandError("division by zero", 1) from None
    except OverflowError:
        raise OperandError("the result is too large", code="E0223") from None


def _repeated(items: tuple[ArgumentValue, ...], times: int) -> ArgumentValue:
    # Before the list is made: `[1] * 10 ** 18` would take all memory.
    if _entries(items) * times > MAX_LIST:
        raise OperandError(f"a list of more than {MAX_LIST} entries", code="E0223")
    return items * times


def _power(base: Number, exponent: Number) -> Number:
    # Known to be too large before it is computed, which could take long.
    if abs(base) > 1 and exponent > 63 and isinstance(base, int) and isinstance(exponent, int):
        raise OverflowError
    result = base**exponent
    # Python gives `(-2) ** 0.5` as a complex number.
    if isinstance(result, complex):
        raise OperandError("a negative number has no fractional power", 1)
    return float(result) if isinstance(result, float) else int(result)


_SIGNS: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": _power,
}


_WHOLE: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


def negative(value: ArgumentValue) -> ArgumentValue:
    """Return `-value`."""
    return -number(value, "`-`", 0)


def positive(value: ArgumentValue) -> ArgumentValue:
    """Return `+value`."""
    return number(value, "`+`", 0)


def compare(sign: str, left: ArgumentValue, right: ArgumentValue) -> bool:
    """Return whether `left sign right` holds; only values of one kind are equal or unequal."""
    if sign not in ("==", "!="):
        who = f"`{sign}`"
        return _ORDER[sign](number(left, who, 0), number(right, who, 1))
    # To Python `1 == true`; in a spec that is a slip, which would decide a condition in silence.
    if kind(left) != kind(right):
        raise OperandError(f"{kind(left)} is compared with {kind(right)}: {shown(right)}", 1)
    return _equal(left, right) == (sign == "==")


def _equal(left: ArgumentValue, right: ArgumentValue) -> bool:
    match left, right:
        case tuple(), tuple():
            if left != right:  # what differs in kind alone is equal to Python
                return False
            if not {bool, tuple} & set(map(type, left + right)):
                return True
            # By identity, since `*` repeats a list without copying it.
            pairs = {(id(a), id(b)): (a, b) for a, b in zip(left, right, strict=True)}
            return all(_equal(a, b) for a, b in pairs.values())
        case _:
            return kind(left) == kind(right) and left == right


_ORDER: dict[str, Callable[[Number, Number], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def item(value: ArgumentValue, index: ArgumentValue) -> ArgumentValue:
    """Return `value[index]`; negative indices count from the end."""
    items = sequence(value, "an index", 0)
    place = integer(index, "an index", 1)
    if not -len(items) <= place < len(items):
        raise OperandError(f"index {place} is outside a list of {len(items)}", 1)
    return items[place]


def part(value: ArgumentValue, *bounds: ArgumentValue | None) -> ArgumentValue:
    """Return `value[start:stop:step]`; None is a bound that is not given.

    Bounds count from the end where they are negative, and lie within the list: one beyond it
    takes fewer entries than it says, which nobody would notice.
    """
    items = sequence(value, "a slice", 0)
    given = [b if b is None else integer(b, "a slice", n + 1) for n, b in enumerate(bounds)]
    for place, bound in enumerate(given[:2]):
        if bound is not None and not -len(items) <= bound <= len(items):
            hint = f"a bound is at most {len(items)} here; `min(n, len(list))` is one that fits"
            raise OperandError(f"{bound} is beyond a list of {len(items)}", place + 1, hint)
    # Python's own error would not know which of the bounds it is.
    if len(given) == 3 and given[2] == 0:
        raise OperandError("the step of a slice is zero", 3)
    return items[slice(*given)]
