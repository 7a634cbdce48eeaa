"""The parts of an expression; each knows its place in the text and how to evaluate itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tcc.compiler.frontend.expr.functions import FUNCTIONS, Function
from tcc.compiler.frontend.expr.operators import (
    COST_OF_PAIR,
    ExpressionError,
    ExpressionScope,
    GraphValue,
    OperandError,
    Result,
    Unknown,
    binary,
    boolean,
    bounded,
    compare,
    cost,
    item,
    negative,
    part,
    positive,
)
from tcc.compiler.ir.argument_declarations import ArgumentValue
from tcc.compiler.support.diagnostics import MANY_NAMES, nearest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Expression(ABC):
    """A part of an expression, text[start:end]."""

    start: int
    end: int

    @abstractmethod
    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the value, or raise `ExpressionError`."""


def apply(
    whole: Expression, parts: tuple[Expression, ...], do: Callable[..., T], *values: Any
) -> T:
    """Return `do(*values)`; its error is placed at the part whose value it refuses."""
    try:
        return do(*values)
    except OperandError as error:
        raise placed(error, whole, parts) from None


def placed(
    error: OperandError, whole: Expression, parts: tuple[Expression, ...]
) -> ExpressionError:
    """Return an operand's error with the place of the part that it is about, or of all of them."""
    # Operators know the number of the operand that is wrong, not where it is written.
    at = whole if error.operand is None else parts[min(error.operand, len(parts) - 1)]
    return ExpressionError(error.code, error.message, at.start, at.end, error.help)


def pay(whole: Expression, scope: ExpressionScope, value: ArgumentValue) -> ArgumentValue:
    """Take what it costs to go through a value from the scope's budget; return the value."""
    if isinstance(value, tuple):
        spend(whole, scope, cost((value,)))
    return value


def spend(whole: Expression, scope: ExpressionScope, amount: int) -> None:
    """Take an amount from the scope's budget, or raise `ExpressionError` at a part."""
    apply(whole, (), scope.budget.spend, amount)


def _values(
    whole: Expression, parts: tuple[Expression, ...], scope: ExpressionScope
) -> tuple[ArgumentValue, ...] | Unknown:
    """Return the values of parts, paid for, or the first unknown one; none behind it is taken."""
    values: list[ArgumentValue] = []
    for each in parts:
        value = each.evaluate(scope)
        if isinstance(value, Unknown):
            return value
        # Lists cost by their length wherever they are made, so that no expression of 1,000 letters
        # takes seconds.
        values.append(value)
    pay(whole, scope, tuple(values))
    return tuple(values)


@dataclass(frozen=True, slots=True)
class Literal(Expression):
    """A number, string or truth value."""

    value: ArgumentValue

    def evaluate(self, scope: ExpressionScope) -> Result:  # noqa: ARG002
        """Return it."""
        return self.value


@dataclass(frozen=True, slots=True)
class NameReference(Expression):
    """A name that stands for a value."""

    name: str

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Look it up."""
        found = scope.names.get(self.name)
        if found is None:
            raise self.missing(scope)
        return found

    def missing(self, scope: ExpressionScope) -> ExpressionError:
        """Return the fault of a name that is not in scope."""
        few = len(scope.names) <= MANY_NAMES  # of more, none is told
        names = sorted(scope.names) if few else []
        close = nearest(self.name, names)
        hint = f"did you mean `{close}`?" if close else ""
        if self.name in FUNCTIONS:
            hint = f"it is a function: {FUNCTIONS[self.name].usage}"
        value = scope.values.get(self.name)
        if isinstance(value, GraphValue):
            hint = f"it names a value; its sizes are channels({self.name}) and so on"
        elif value is not None:
            hint = f"it names a list of values; its length is len({self.name})"
        if self.name in ("H", "W"):
            hint = "only a feature map has a height and a width"
        listed = "in scope: " + (", ".join(names) or "nothing")
        notes = (listed,) if few and len(listed) <= 100 else ()
        message = f"unknown name `{self.name}`"
        return ExpressionError("E0221", message, self.start, self.end, hint, notes)


@dataclass(frozen=True, slots=True)
class ListLiteral(Expression):
    """`[a, b]`."""

    items: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the values as a tuple."""
        values = _values(self, self.items, scope)
        if isinstance(values, Unknown):
            return values
        return apply(self, self.items, bounded, values)


@dataclass(frozen=True, slots=True)
class IndexOf(Expression):
    """`a[b]`."""

    value: Expression
    index: Expression

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return an entry of a list."""
        found, place = self.value.evaluate(scope), self.index.evaluate(scope)
        if isinstance(found, Unknown) or isinstance(place, Unknown):
            return found if isinstance(found, Unknown) else place
        return apply(self, (self.value, self.index), item, found, place)


@dataclass(frozen=True, slots=True)
class SliceOf(Expression):
    """`a[start:stop:step]`; a bound that is not given is None."""

    value: Expression
    bounds: tuple[Expression | None, ...]

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return entries of a list, as a list."""
        found = self.value.evaluate(scope)
        ends = [b if b is None else b.evaluate(scope) for b in self.bounds]
        unknown = next((v for v in (found, *ends) if isinstance(v, Unknown)), None)
        if unknown is not None:
            return unknown
        # A bound that is left out has no place of its own.
        parts = (self.value, *(b or self for b in self.bounds))
        return pay(self, scope, apply(self, parts, part, found, *ends))


@dataclass(frozen=True, slots=True)
class FunctionCall(Expression):
    """`f(a, b)`."""

    function: Function
    args: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return what the function returns."""
        values = _values(self, self.args, scope)
        if isinstance(values, Unknown):
            return values
        return pay(self, scope, apply(self, self.args, self.function, values))


@dataclass(frozen=True, slots=True)
class UnarySign(Expression):
    """`-a` or `+a`."""

    sign: str
    operand: Expression

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the number with its sign."""
        value = self.operand.evaluate(scope)
        if isinstance(value, Unknown):
            return value
        change = negative if self.sign == "-" else positive
        return apply(self, (self.operand,), change, value)


@dataclass(frozen=True, slots=True)
class ArithmeticChain(Expression):
    """`a + b - c`: operators of one rank, from left to right."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the number, or the list where lists are joined or repeated."""
        # A loop and no recursion to the left: a thousand terms are one level deep.
        left = self.first.evaluate(scope)
        # The part that was computed so far, so that a mistake points at `a + b` of `a + b - c`
        # where that is what has the wrong kind.
        start, done = self.first.start, self.first.end
        for sign, each in self.rest:
            right = each.evaluate(scope)
            if isinstance(left, Unknown) or isinstance(right, Unknown):
                return left if isinstance(left, Unknown) else right
            try:
                left = binary(sign, left, right)
                if isinstance(left, tuple):
                    scope.budget.spend(cost((left,)))
            except OperandError as error:
                whole, before = Literal(self.start, each.end, 0), Literal(start, done, 0)
                raise placed(error, whole, (before, each)) from None
            start, done = self.start, each.end
        return left


@dataclass(frozen=True, slots=True)
class Comparison(Expression):
    """`a < b <= c`: true where every neighbouring pair fits."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the truth value."""
        left, before = self.first.evaluate(scope), self.first
        for sign, each in self.rest:
            right = each.evaluate(scope)
            if isinstance(left, Unknown) or isinstance(right, Unknown):
                return left if isinstance(left, Unknown) else right
            parts = (before, each)
            if isinstance(left, tuple):
                spend(self, scope, cost((left,), COST_OF_PAIR))
            # As in Python, the first pair that does not fit ends it; what stands behind is not
            # evaluated.
            if not apply(self, parts, compare, sign, left, right):
                return False
            left, before = right, each
        return True


@dataclass(frozen=True, slots=True)
class BooleanOperation(Expression):
    """`a and b and c`, or with `or`; what need not be known is not evaluated."""

    word: str
    parts: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the truth value."""
        ends = self.word == "or"
        for each in self.parts:
            value = each.evaluate(scope)
            if isinstance(value, Unknown):
                return value
            if apply(each, (each,), boolean, value, f"`{self.word}`", 0) is ends:
                return ends
        return not ends


@dataclass(frozen=True, slots=True)
class Not(Expression):
    """`not a`."""

    operand: Expression

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the opposite."""
        value = self.operand.evaluate(scope)
        # Unknown, and not decided by what follows: the order of evaluation is Python's.
        if isinstance(value, Unknown):
            return value
        return not apply(self, (self.operand,), boolean, value, "`not`", 0)


@dataclass(frozen=True, slots=True)
class Conditional(Expression):
    """`a if c else b`."""

    then: Expression
    condition: Expression
    otherwise: Expression

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return one of two values; the other is not evaluated."""
        value = self.condition.evaluate(scope)
        if isinstance(value, Unknown):
            return value
        holds = apply(self, (self.condition,), boolean, value, "`if`", 0)
        return (self.then if holds else self.otherwise).evaluate(scope)
