"""Expressions for the sizes of named values and the lengths of lists."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from tcc.compiler.frontend.expr.functions import AXES, FUNCTIONS
from tcc.compiler.frontend.expr.operators import (
    UNKNOWN,
    ExpressionError,
    ExpressionScope,
    ExpressionValue,
    GraphValue,
)
from tcc.compiler.frontend.expr.syntax_tree import (
    Expression,
    FunctionCall,
    IndexOf,
    Literal,
    NameReference,
    SliceOf,
    use_budget,
)
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import find_nearest_name


@dataclass(frozen=True, slots=True)
class SizeOf(Expression):
    """`channels(name)`, `height(name)`, `width(name)`: a size of a named value.

    With `index`, of an entry of a named list: `channels(name[i])`.
    """

    axis_name: str
    name: NameReference
    index: Expression | None = None

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the size, or `UNKNOWN` if the shape is unknown."""
        shape = self._get_shape(scope)
        if shape is None:
            return UNKNOWN
        axis = AXES[self.axis_name]
        if axis < len(shape):
            return shape[axis]
        message = f"`{self.name.name}` is a vector of {shape[0]} and has no {self.axis_name}"
        raise ExpressionError("E0222", message, self.name.start, self.name.end)

    def _get_shape(self, scope: ExpressionScope) -> Shape | None:
        name = self.name.name
        value = scope.values.get(name)
        if value is None:
            raise self._create_missing_error(scope)
        if isinstance(value, GraphValue):
            if value.type is not None and self.index is not None:
                message, hint = (
                    f"`{name}` is one value, not a list",
                    f"write {self.axis_name}({name})",
                )
                raise ExpressionError("E0222", message, self.name.start, self.end, hint)
            return value.shape
        if self.index is None:
            message = f"`{name}` is a list of values"
            hint = f"name one of them: {self.axis_name}({name}[0])"
            raise ExpressionError("E0222", message, self.name.start, self.name.end, hint)
        index_expression = IndexOf(self.start, self.end, self.name, self.index)
        index = evaluate_indices(index_expression, len(value), scope)
        return value[index].shape if isinstance(index, int) else None

    def _create_missing_error(self, scope: ExpressionScope) -> ExpressionError:
        name = self.name.name
        nearest_name = find_nearest_name(name, sorted(scope.values))
        hint = (
            f"did you mean `{nearest_name}`?"
            if nearest_name
            else "name the result of a step with `as: name`"
        )
        message = f"no value is named `{name}` here"
        return ExpressionError("E0221", message, self.name.start, self.name.end, hint)


@dataclass(frozen=True, slots=True)
class LengthOf(Expression):
    """`len(name)`: the number of entries of a list of numbers or values."""

    name: NameReference

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the number of entries."""
        name = self.name.name
        value = scope.values.get(name)
        # Names of numbers take precedence; an unknown name gets the usual message.
        if name in scope.names or value is None:
            function = FunctionCall(self.start, self.end, FUNCTIONS["len"], (self.name,))
            return function.evaluate(scope)
        if isinstance(value, GraphValue):
            if value.type is None:
                return UNKNOWN
            message = f"`{name}` is one value, not a list, so it has no length"
            raise ExpressionError("E0222", message, self.name.start, self.name.end)
        use_budget(self, scope, len(value))
        return len(value)


def check_names(root: Expression, scope: ExpressionScope) -> None:
    """Check the names of an expression that was not fully evaluated due to unknown values.

    Raises:
        ExpressionError: A name is not in scope (E0221); the first one is reported.
    """
    pending: list[Any] = [root]
    while pending:
        part = pending.pop()
        kind: Any = type(part)  # exact types, because `isinstance` with an ABC is slow
        if kind is NameReference:
            if scope.names.get(part.name) is None:
                raise part.create_missing_error(scope)
        elif kind in (SizeOf, LengthOf):
            part.evaluate(scope)
        elif kind is tuple:
            # Popped from the end, so that the first name in the text is reported.
            pending += reversed(part)
        else:
            pending += [getattr(part, name) for name in _list_field_names(kind)]


@cache
def _list_field_names(kind: Any) -> tuple[str, ...]:
    """Return the fields of an expression class in reverse order; empty for other classes."""
    return tuple(f.name for f in reversed(fields(kind))) if issubclass(kind, Expression) else ()


def evaluate_indices(
    selection: IndexOf | SliceOf, count: int, scope: ExpressionScope
) -> ExpressionValue:
    """Return the position or positions that an index or a slice selects in a list."""
    name = selection.value
    use_budget(selection, scope, count)
    # Evaluated on a list of numbers, so that the same rules and messages apply.
    numbers = Literal(name.start, name.end, tuple(range(count)))
    return replace(selection, value=numbers).evaluate(scope)
