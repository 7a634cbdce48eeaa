"""The parts of an expression that are operators: signs, sums, comparisons, truth, a choice."""

from dataclasses import dataclass

from tcc.compiler.frontend.expr.operators import (
    COST_OF_PAIR,
    OperandError,
    binary,
    boolean,
    compare,
    cost,
    negative,
    positive,
)
from tcc.compiler.frontend.expr.scope import ExpressionScope, Result, Unknown
from tcc.compiler.frontend.expr.syntax_tree import Expression, Literal, apply, placed, spend


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
