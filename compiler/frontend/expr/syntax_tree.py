"""The parts of an expression; each knows its place in the text and how to evaluate itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tcc.compiler.frontend.expr.functions import FUNCTIONS, Function
from tcc.compiler.frontend.expr.operators import (
    PAIR_COST,
    ExpressionError,
    ExpressionScope,
    ExpressionValue,
    GraphValue,
    OperandError,
    Unknown,
    apply_binary,
    apply_minus,
    apply_plus,
    check_limits,
    compare,
    compute_cost,
    get_item,
    get_slice,
    to_boolean,
)
from tcc.compiler.ir.argument_declarations import ArgumentValue
from tcc.compiler.support.diagnostics import MAX_CANDIDATES, find_nearest_name

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Expression(ABC):
    """A part of an expression, text[start:end]."""

    start: int
    end: int

    @abstractmethod
    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the value, or raise `ExpressionError`."""


def apply(
    expression: Expression, parts: tuple[Expression, ...], do: Callable[..., T], *values: Any
) -> T:
    """Return `do(*values)`; its error is placed at the part whose value it refuses."""
    try:
        return do(*values)
    except OperandError as error:
        raise locate_error(error, expression, parts) from None


def locate_error(
    error: OperandError, expression: Expression, parts: tuple[Expression, ...]
) -> ExpressionError:
    """Return an operand's error with the place of the part that it is about, or of all of them."""
    # Operators know the number of the operand that is wrong, not where it is written.
    at = expression if error.operand is None else parts[min(error.operand, len(parts) - 1)]
    return ExpressionError(error.code, error.message, at.start, at.end, error.help)


def use_budget_for(
    expression: Expression, scope: ExpressionScope, value: ArgumentValue
) -> ArgumentValue:
    """Take what it costs to go through a value from the scope's budget; return the value."""
    if isinstance(value, tuple):
        use_budget(expression, scope, compute_cost((value,)))
    return value


def use_budget(expression: Expression, scope: ExpressionScope, amount: int) -> None:
    """Take an amount from the scope's budget, or raise `ExpressionError` at a part."""
    apply(expression, (), scope.budget.use, amount)


def _evaluate_all(
    expression: Expression, parts: tuple[Expression, ...], scope: ExpressionScope
) -> tuple[ArgumentValue, ...] | Unknown:
    """Return the values of parts, paid for, or the first unknown one; none behind it is taken."""
    operand_values: list[ArgumentValue] = []
    for operand in parts:
        operand_value = operand.evaluate(scope)
        if isinstance(operand_value, Unknown):
            return operand_value
        # Lists cost by their length wherever they are made, so that no expression of 1,000 letters
        # takes seconds.
        operand_values.append(operand_value)
    use_budget_for(expression, scope, tuple(operand_values))
    return tuple(operand_values)


@dataclass(frozen=True, slots=True)
class Literal(Expression):
    """A number, string or truth value."""

    value: ArgumentValue

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:  # noqa: ARG002
        """Return it."""
        return self.value


@dataclass(frozen=True, slots=True)
class NameReference(Expression):
    """A name that stands for a value."""

    name: str

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Look it up."""
        name_value = scope.names.get(self.name)
        if name_value is None:
            raise self.create_missing_error(scope)
        return name_value

    def create_missing_error(self, scope: ExpressionScope) -> ExpressionError:
        """Return the fault of a name that is not in scope."""
        few = len(scope.names) <= MAX_CANDIDATES  # of more, none is told
        names = sorted(scope.names) if few else []
        nearest_name = find_nearest_name(self.name, names)
        hint = f"did you mean `{nearest_name}`?" if nearest_name else ""
        if self.name in FUNCTIONS:
            hint = f"it is a function: {FUNCTIONS[self.name].usage}"
        value = scope.values.get(self.name)
        if isinstance(value, GraphValue):
            hint = f"it names a value; its sizes are channels({self.name}) and so on"
        elif value is not None:
            hint = f"it names a list of values; its length is len({self.name})"
        if self.name in ("H", "W"):
            hint = "only a feature map has a height and a width"
        scope_note = "in scope: " + (", ".join(names) or "nothing")
        notes = (scope_note,) if few and len(scope_note) <= 100 else ()
        message = f"unknown name `{self.name}`"
        return ExpressionError("E0221", message, self.start, self.end, hint, notes)


@dataclass(frozen=True, slots=True)
class ListLiteral(Expression):
    """`[a, b]`."""

    items: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the values as a tuple."""
        operand_values = _evaluate_all(self, self.items, scope)
        if isinstance(operand_values, Unknown):
            return operand_values
        return apply(self, self.items, check_limits, operand_values)


@dataclass(frozen=True, slots=True)
class IndexOf(Expression):
    """`a[b]`."""

    value: Expression
    index: Expression

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return an entry of a list."""
        operand_value, index_value = self.value.evaluate(scope), self.index.evaluate(scope)
        if isinstance(operand_value, Unknown) or isinstance(index_value, Unknown):
            return operand_value if isinstance(operand_value, Unknown) else index_value
        return apply(self, (self.value, self.index), get_item, operand_value, index_value)


@dataclass(frozen=True, slots=True)
class SliceOf(Expression):
    """`a[start:stop:step]`; a bound that is not given is None."""

    value: Expression
    bounds: tuple[Expression | None, ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return entries of a list, as a list."""
        operand_value = self.value.evaluate(scope)
        bound_values = [b if b is None else b.evaluate(scope) for b in self.bounds]
        unknown = next((v for v in (operand_value, *bound_values) if isinstance(v, Unknown)), None)
        if unknown is not None:
            return unknown
        # A bound that is left out has no place of its own.
        parts = (self.value, *(b or self for b in self.bounds))
        return use_budget_for(
            self, scope, apply(self, parts, get_slice, operand_value, *bound_values)
        )


@dataclass(frozen=True, slots=True)
class FunctionCall(Expression):
    """`f(a, b)`."""

    function: Function
    args: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return what the function returns."""
        operand_values = _evaluate_all(self, self.args, scope)
        if isinstance(operand_values, Unknown):
            return operand_values
        return use_budget_for(self, scope, apply(self, self.args, self.function, operand_values))


@dataclass(frozen=True, slots=True)
class UnarySign(Expression):
    """`-a` or `+a`."""

    sign: str
    operand: Expression

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the number with its sign."""
        operand_value = self.operand.evaluate(scope)
        if isinstance(operand_value, Unknown):
            return operand_value
        change = apply_minus if self.sign == "-" else apply_plus
        return apply(self, (self.operand,), change, operand_value)


@dataclass(frozen=True, slots=True)
class ArithmeticChain(Expression):
    """`a + b - c`: operators of one rank, from left to right."""

    first_operand: Expression
    operations: tuple[tuple[str, Expression], ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the number, or the list where lists are joined or repeated."""
        # A loop and no recursion to the left: a thousand terms are one level deep.
        lhs = self.first_operand.evaluate(scope)
        # The part that was computed so far, so that a mistake points at `a + b` of `a + b - c`
        # where that is what has the wrong kind.
        start, end = self.first_operand.start, self.first_operand.end
        for sign, operand in self.operations:
            rhs = operand.evaluate(scope)
            if isinstance(lhs, Unknown) or isinstance(rhs, Unknown):
                return lhs if isinstance(lhs, Unknown) else rhs
            try:
                lhs = apply_binary(sign, lhs, rhs)
                if isinstance(lhs, tuple):
                    scope.budget.use(compute_cost((lhs,)))
            except OperandError as error:
                chain, prefix = Literal(self.start, operand.end, 0), Literal(start, end, 0)
                raise locate_error(error, chain, (prefix, operand)) from None
            start, end = self.start, operand.end
        return lhs


@dataclass(frozen=True, slots=True)
class Comparison(Expression):
    """`a < b <= c`: true where every neighbouring pair fits."""

    first_operand: Expression
    operations: tuple[tuple[str, Expression], ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the truth value."""
        lhs, lhs_operand = self.first_operand.evaluate(scope), self.first_operand
        for sign, rhs_operand in self.operations:
            rhs = rhs_operand.evaluate(scope)
            if isinstance(lhs, Unknown) or isinstance(rhs, Unknown):
                return lhs if isinstance(lhs, Unknown) else rhs
            parts = (lhs_operand, rhs_operand)
            if isinstance(lhs, tuple):
                use_budget(self, scope, compute_cost((lhs,), PAIR_COST))
            # As in Python, the first pair that does not fit ends it; what stands behind is not
            # evaluated.
            if not apply(self, parts, compare, sign, lhs, rhs):
                return False
            lhs, lhs_operand = rhs, rhs_operand
        return True


@dataclass(frozen=True, slots=True)
class BooleanOperation(Expression):
    """`a and b and c`, or with `or`; what need not be known is not evaluated."""

    keyword: str
    parts: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the truth value."""
        deciding_value = self.keyword == "or"
        for operand in self.parts:
            operand_value = operand.evaluate(scope)
            if isinstance(operand_value, Unknown):
                return operand_value
            if (
                apply(operand, (operand,), to_boolean, operand_value, f"`{self.keyword}`", 0)
                is deciding_value
            ):
                return deciding_value
        return not deciding_value


@dataclass(frozen=True, slots=True)
class Not(Expression):
    """`not a`."""

    operand: Expression

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the opposite."""
        operand_value = self.operand.evaluate(scope)
        # Unknown, and not decided by what follows: the order of evaluation is Python's.
        if isinstance(operand_value, Unknown):
            return operand_value
        return not apply(self, (self.operand,), to_boolean, operand_value, "`not`", 0)


@dataclass(frozen=True, slots=True)
class Conditional(Expression):
    """`a if c else b`."""

    then: Expression
    condition: Expression
    otherwise: Expression

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return one of two values; the other is not evaluated."""
        condition_value = self.condition.evaluate(scope)
        if isinstance(condition_value, Unknown):
            return condition_value
        is_met = apply(self, (self.condition,), to_boolean, condition_value, "`if`", 0)
        return (self.then if is_met else self.otherwise).evaluate(scope)
