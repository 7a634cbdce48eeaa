"""The functions of expressions."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

from tcc.compiler.frontend.expr.operators import (
    MAX_INT,
    MAX_LIST,
    Number,
    OperandError,
    binary,
    bounded,
    integer,
    number,
    sequence,
)
from tcc.compiler.ir.argument_declarations import ArgumentValue


@dataclass(frozen=True, slots=True)
class Function:
    """A function: how it is written, its least and most arguments, and what it returns."""

    usage: str
    least: int
    most: int
    apply: Callable[[tuple[ArgumentValue, ...]], ArgumentValue]

    def __call__(self, args: tuple[ArgumentValue, ...]) -> ArgumentValue:
        """Return the function's value; one beyond all floats is an error like any other."""
        try:
            return self.apply(args)
        except OverflowError:
            raise OperandError("the result is too large", code="E0223") from None


def _numbers(args: tuple[ArgumentValue, ...], who: str) -> list[Number]:
    """Return numbers given as arguments or as one list."""
    if len(args) == 1:
        items = sequence(args[0], who, 0)
        # Types compared in C: item by item, a list of ten thousand takes as long as the rest of the
        # spec.
        kinds = set(map(type, items))  # most are these, and long
        if kinds <= {int} or (kinds <= {int, float} and all(map(math.isfinite, cast(Any, items)))):
            return cast("list[Number]", list(items))
        return [number(item, who, 0) for item in items]
    return [number(value, who, place) for place, value in enumerate(args)]


def _extreme(pick: Callable[[list[Number]], Number], who: str) -> Callable[..., ArgumentValue]:
    def apply(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
        found = _numbers(args, who)
        if not found:
            raise OperandError(f"{who} of an empty list", 0)
        return pick(found)

    return apply


def _rounding(pick: Callable[[Number], Number], who: str) -> Callable[..., ArgumentValue]:
    # Python's `round`: halves to even numbers.
    return lambda args: bounded(pick(number(args[0], who, 0)))


def _sum(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
    # Of numbers this small no sum leaves 64 bits on the way.
    found = _numbers(args, "`sum`")
    most = MAX_INT // MAX_LIST
    if found and -most < min(found) and max(found) < most:  # most are, and long
        return reduce(operator.add, found, 0)
    if set(map(type, found)) == {float}:
        return bounded(reduce(operator.add, found, 0))
    total: ArgumentValue = 0
    for value in found:
        total = binary("+", total, value)
    return total


def _range(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
    ends = [integer(value, "`range`", place) for place, value in enumerate(args)]
    if len(ends) == 3 and ends[2] == 0:
        raise OperandError("the step of `range` is zero", 2)
    found = range(*ends)
    # A slice of a range is made without its entries, `len` fails beyond 2^63.
    if found[MAX_LIST:]:
        raise OperandError(f"a list of more than {MAX_LIST} entries", code="E0223")
    return tuple(found)


def _divisible(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
    """Round to the nearest multiple, at least one, and up where rounding takes over 10 %."""
    value, by = number(args[0], "`divisible`", 0), integer(args[1], "`divisible`", 1)
    if by < 1:
        raise OperandError("the divisor must be at least 1", 1)
    # Half up, as `int(v + divisor / 2) // divisor * divisor` does in MobileNet's code.
    rounded = max(by, math.floor((2 * value + by) / (2 * by)) * by)
    # In whole numbers: floats have not each of them beyond 2**53.
    if isinstance(value, int):
        rounded = max(by, (2 * value + by) // (2 * by) * by)
    # As in MobileNet's code (make_divisible): no more than a tenth of a width is lost.
    return bounded(rounded + by if 10 * rounded < 9 * value else rounded)


FUNCTIONS: dict[str, Function] = {
    "min": Function("min(a, b, ...) or min(list)", 1, 16, _extreme(min, "`min`")),
    "max": Function("max(a, b, ...) or max(list)", 1, 16, _extreme(max, "`max`")),
    "abs": Function("abs(x)", 1, 1, _rounding(abs, "`abs`")),
    "ceil": Function("ceil(x)", 1, 1, _rounding(math.ceil, "`ceil`")),
    "floor": Function("floor(x)", 1, 1, _rounding(math.floor, "`floor`")),
    "round": Function("round(x)", 1, 1, _rounding(round, "`round`")),
    "len": Function("len(list)", 1, 1, lambda args: len(sequence(args[0], "`len`", 0))),
    "sum": Function("sum(list)", 1, 1, _sum),
    "range": Function("range(end), range(start, end) or range(start, end, step)", 1, 3, _range),
    "divisible": Function("divisible(value, by)", 2, 2, _divisible),
}
AXES = {"channels": 0, "height": 1, "width": 2}
"""The functions that take the name of a value, and the axis whose size they return."""
