"""Nodes of the syntax tree of an expression, with their locations and evaluation."""

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
    """A node of the syntax tree, for text[start:end]."""

    start: int
    end: int

    @abstractmethod
    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the value, or raise `ExpressionError`."""


def apply(
    expression: Expression, parts: tuple[Expression, ...], do: Callable[..., T], *values: Any
) -> T:
    """Return `do(*values)`; an error is located at the part with the invalid value."""
    try:
        return do(*values)
    except OperandError as error:
        raise locate_error(error, expression, parts) from None


def locate_error(
    error: OperandError, expression: Expression, parts: tuple[Expression, ...]
) -> ExpressionError:
    """Return the error located at the part that it concerns, or at the expression."""
    # Operators know the position of the invalid operand, but not its location in the text.
    at = expression if error.operand is None else parts[min(error.operand, len(parts) - 1)]
    return ExpressionError(error.code, error.message, at.start, at.end, error.help)


def use_budget_for(
    expression: Expression, scope: ExpressionScope, value: ArgumentValue
) -> ArgumentValue:
    """Charge the cost of reading a value to the budget; return the value."""
    if isinstance(value, tuple):
        use_budget(expression, scope, compute_cost((value,)))
    return value


def use_budget(expression: Expression, scope: ExpressionScope, amount: int) -> None:
    """Charge an amount to the budget, or raise `ExpressionError` for an expression."""
    apply(expression, (), scope.budget.use, amount)


def _evaluate_all(
    expression: Expression, parts: tuple[Expression, ...], scope: ExpressionScope
) -> tuple[ArgumentValue, ...] | Unknown:
    """Return the values of parts and charge them, or stop at the first unknown value."""
    operand_values: list[ArgumentValue] = []
    for operand in parts:
        operand_value = operand.evaluate(scope)
        if isinstance(operand_value, Unknown):
            return operand_value
        # The length of a list is charged wherever it is created, so that no expression of 1,000
        # characters takes seconds.
        operand_values.append(operand_value)
    use_budget_for(expression, scope, tuple(operand_values))
    return tuple(operand_values)


@dataclass(frozen=True, slots=True)
class Literal(Expression):
    """A number, string or Boolean."""

    value: ArgumentValue

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:  # noqa: ARG002
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class NameReference(Expression):
    """A name of a value."""

    name: str

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the value of the name."""
        name_value = scope.names.get(self.name)
        if name_value is None:
            raise self.create_missing_error(scope)
        return name_value

    def create_missing_error(self, scope: ExpressionScope) -> ExpressionError:
        """Return the error for a name that is not in scope."""
        few = len(scope.names) <= MAX_CANDIDATES  # otherwise no names are suggested
        names = sorted(scope.names) if few else []
        nearest_name = find_nearest_name(self.name, names)
        hint = f"did you mean `{nearest_name}`?" if nearest_name else ""
        if self.name in FUNCTIONS:
            hint = f"it is a function: {FUNCTIONS[self.name].usage}"
        value = scope.values.get(self.name)
        if isinstance(value, GraphValue):
            hint = f"it names a value; write one of its sizes, such as channels({self.name})"
        elif value is not None:
            hint = f"it names a list of values; write its length as len({self.name})"
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
    """`a[start:stop:step]`; an omitted bound is None."""

    value: Expression
    bounds: tuple[Expression | None, ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the selected entries of a list."""
        operand_value = self.value.evaluate(scope)
        bound_values = [b if b is None else b.evaluate(scope) for b in self.bounds]
        unknown = next((v for v in (operand_value, *bound_values) if isinstance(v, Unknown)), None)
        if unknown is not None:
            return unknown
        # An omitted bound has no location.
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
        """Return the result of the function."""
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
        """Return the number, or the list if lists are joined or repeated."""
        # A loop instead of recursion: a thousand terms are one level deep.
        lhs = self.first_operand.evaluate(scope)
        # Location in the text of what is computed so far, so that an error points at `a + b` in
        # `a + b - c` if that part has the wrong kind.
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
                # Placeholders: only the locations in the text are used.
                chain, prefix = Literal(self.start, operand.end, 0), Literal(start, end, 0)
                raise locate_error(error, chain, (prefix, operand)) from None
            start, end = self.start, operand.end
        return lhs


@dataclass(frozen=True, slots=True)
class Comparison(Expression):
    """`a < b <= c`: true if all neighbouring pairs compare true."""

    first_operand: Expression
    operations: tuple[tuple[str, Expression], ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the Boolean."""
        lhs, lhs_operand = self.first_operand.evaluate(scope), self.first_operand
        for sign, rhs_operand in self.operations:
            rhs = rhs_operand.evaluate(scope)
            if isinstance(lhs, Unknown) or isinstance(rhs, Unknown):
                return lhs if isinstance(lhs, Unknown) else rhs
            parts = (lhs_operand, rhs_operand)
            if isinstance(lhs, tuple):
                use_budget(self, scope, compute_cost((lhs,), PAIR_COST))
            # As in Python, the first false pair ends the evaluation.
            if not apply(self, parts, compare, sign, lhs, rhs):
                return False
            lhs, lhs_operand = rhs, rhs_operand
        return True


@dataclass(frozen=True, slots=True)
class BooleanOperation(Expression):
    """`a and b and c`, or with `or`; evaluation stops as soon as the result is known."""

    keyword: str
    parts: tuple[Expression, ...]

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the Boolean."""
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
        """Return the negated Boolean."""
        operand_value = self.operand.evaluate(scope)
        # Unknown even if later operands would decide: the order of evaluation is that of Python.
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
        """Return one of two values; the other one is not evaluated."""
        condition_value = self.condition.evaluate(scope)
        if isinstance(condition_value, Unknown):
            return condition_value
        is_met = apply(self, (self.condition,), to_boolean, condition_value, "`if`", 0)
        return (self.then if is_met else self.otherwise).evaluate(scope)
