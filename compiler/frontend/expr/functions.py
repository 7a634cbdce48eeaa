"""Functions in expressions."""

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
    apply_binary,
    check_limits,
    to_integer,
    to_number,
    to_sequence,
)
from tcc.compiler.ir.argument_declarations import ArgumentValue


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its usage, its smallest and largest number of arguments, and its code."""

    usage: str
    min_args: int
    max_args: int
    apply: Callable[[tuple[ArgumentValue, ...]], ArgumentValue]

    def __call__(self, args: tuple[ArgumentValue, ...]) -> ArgumentValue:
        """Return the value of the function; float overflow is an `OperandError` too."""
        try:
            return self.apply(args)
        except OverflowError:
            raise OperandError("the result is too large", code="E0223") from None


def _to_numbers(args: tuple[ArgumentValue, ...], subject: str) -> list[Number]:
    """Return the numbers of the arguments, or of a single list."""
    if len(args) == 1:
        entries = to_sequence(args[0], subject, 0)
        # Types are compared in C. Item by item, a list of ten thousand entries takes as long as the
        # rest of the spec.
        kinds = set(map(type, entries))  # most long lists have only these
        if kinds <= {int} or (
            kinds <= {int, float} and all(map(math.isfinite, cast(Any, entries)))
        ):
            return cast("list[Number]", list(entries))
        return [to_number(entry, subject, 0) for entry in entries]
    return [to_number(value, subject, operand) for operand, value in enumerate(args)]


def _create_extreme(
    pick: Callable[[list[Number]], Number], subject: str
) -> Callable[..., ArgumentValue]:
    def apply(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
        numbers = _to_numbers(args, subject)
        if not numbers:
            raise OperandError(f"{subject} of an empty list", 0)
        return pick(numbers)

    return apply


def _create_rounding(
    pick: Callable[[Number], Number], subject: str
) -> Callable[..., ArgumentValue]:
    # `round` of Python rounds halves to even numbers.
    return lambda args: check_limits(pick(to_number(args[0], subject, 0)))


def _compute_sum(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
    # No sum of numbers this small exceeds 64 bits at any point.
    numbers = _to_numbers(args, "`sum`")
    max_addend = MAX_INT // MAX_LIST
    if numbers and -max_addend < min(numbers) and max(numbers) < max_addend:  # most long lists
        return reduce(operator.add, numbers, 0)
    if set(map(type, numbers)) == {float}:
        return check_limits(reduce(operator.add, numbers, 0))
    total: ArgumentValue = 0
    for addend in numbers:
        total = apply_binary("+", total, addend)
    return total


def _compute_range(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
    bounds = [to_integer(value, "`range`", operand) for operand, value in enumerate(args)]
    if len(bounds) == 3 and bounds[2] == 0:
        raise OperandError("the step of `range` is zero", 2)
    integers = range(*bounds)
    # Slicing a range does not create its entries; `len` fails above 2^63.
    if integers[MAX_LIST:]:
        raise OperandError(f"the list has more than {MAX_LIST} entries", code="E0223")
    return tuple(integers)


def _compute_divisible(args: tuple[ArgumentValue, ...]) -> ArgumentValue:
    """Round to the nearest multiple, at least one, but up if rounding removes over 10 %."""
    value, by = to_number(args[0], "`divisible`", 0), to_integer(args[1], "`divisible`", 1)
    if by < 1:
        raise OperandError("the divisor must be at least 1", 1)
    # Halves up, as `int(v + divisor / 2) // divisor * divisor` in the code of MobileNet.
    rounded = max(by, math.floor((2 * value + by) / (2 * by)) * by)
    # With integers, because floats above 2**53 are not exact.
    if isinstance(value, int):
        rounded = max(by, (2 * value + by) // (2 * by) * by)
    # As in `make_divisible` of MobileNet: rounding removes at most a tenth of a width.
    return check_limits(rounded + by if 10 * rounded < 9 * value else rounded)


FUNCTIONS: dict[str, Function] = {
    "min": Function("min(a, b, ...) or min(list)", 1, 16, _create_extreme(min, "`min`")),
    "max": Function("max(a, b, ...) or max(list)", 1, 16, _create_extreme(max, "`max`")),
    "abs": Function("abs(x)", 1, 1, _create_rounding(abs, "`abs`")),
    "ceil": Function("ceil(x)", 1, 1, _create_rounding(math.ceil, "`ceil`")),
    "floor": Function("floor(x)", 1, 1, _create_rounding(math.floor, "`floor`")),
    "round": Function("round(x)", 1, 1, _create_rounding(round, "`round`")),
    "len": Function("len(list)", 1, 1, lambda args: len(to_sequence(args[0], "`len`", 0))),
    "sum": Function("sum(list)", 1, 1, _compute_sum),
    "range": Function(
        "range(end), range(start, end) or range(start, end, step)", 1, 3, _compute_range
    ),
    "divisible": Function("divisible(value, by)", 2, 2, _compute_divisible),
}
AXES = {"channels": 0, "height": 1, "width": 2}
"""The functions of a named value, and the axis of the size that each returns."""
