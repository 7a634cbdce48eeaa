"""The parts of an expression that ask about named values: their sizes, and the lengths of lists."""

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

    With `index`, of the value there in a named list: `channels(name[i])`.
    """

    axis_name: str
    name: NameReference
    index: Expression | None = None

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the size, unknown where the value's shape is."""
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
            else "name a step's result with `as: name`"
        )
        message = f"no value is named `{name}` here"
        return ExpressionError("E0221", message, self.name.start, self.name.end, hint)


@dataclass(frozen=True, slots=True)
class LengthOf(Expression):
    """`len(name)`: how many entries a list has, of numbers or of values."""

    name: NameReference

    def evaluate(self, scope: ExpressionScope) -> ExpressionValue:
        """Return the number of entries."""
        name = self.name.name
        value = scope.values.get(name)
        # Numbers come first, as everywhere; what is called so nowhere gets the usual message.
        if name in scope.names or value is None:
            function = FunctionCall(self.start, self.end, FUNCTIONS["len"], (self.name,))
            return function.evaluate(scope)
        if isinstance(value, GraphValue):
            if value.type is None:
                return UNKNOWN
            message = f"`{name}` is one value, not a list"
            raise ExpressionError("E0222", message, self.name.start, self.name.end)
        use_budget(self, scope, len(value))
        return len(value)


def check_names(root: Expression, scope: ExpressionScope) -> None:
    """Refuse names that are not in scope in what was not evaluated, since a part is unknown.

    Raises:
        ExpressionError: E0221 for the first of them.
    """
    pending: list[Any] = [root]
    while pending:
        part = pending.pop()
        kind: Any = type(part)  # exactly: to ask whether it is a subclass of an ABC takes long
        if kind is NameReference:
            if scope.names.get(part.name) is None:
                raise part.create_missing_error(scope)
        elif kind in (SizeOf, LengthOf):
            part.evaluate(scope)
        elif kind is tuple:
            # Taken from the end: the name that stands first in the text is the one refused.
            pending += reversed(part)
        else:
            pending += [getattr(part, name) for name in _list_field_names(kind)]


@cache
def _list_field_names(kind: Any) -> tuple[str, ...]:
    """Return the fields of a kind of expression, the last first; of what is none, nothing."""
    return tuple(f.name for f in reversed(fields(kind))) if issubclass(kind, Expression) else ()


def evaluate_indices(
    selection: IndexOf | SliceOf, count: int, scope: ExpressionScope
) -> ExpressionValue:
    """Return the place, or the places, that an index or a slice takes of a list of values."""
    name = selection.value
    use_budget(selection, scope, count)
    # Found as in a list of numbers, so that indices of values have the same rules and messages.
    numbers = Literal(name.start, name.end, tuple(range(count)))
    return replace(selection, value=numbers).evaluate(scope)
