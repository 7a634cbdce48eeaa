"""The parts of an expression that ask about named values: their sizes, and the lengths of lists."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from tcc.compiler.frontend.expr.functions import AXES, FUNCTIONS
from tcc.compiler.frontend.expr.operators import (
    UNKNOWN,
    ExpressionError,
    ExpressionScope,
    GraphValue,
    Result,
)
from tcc.compiler.frontend.expr.syntax_tree import (
    Expression,
    FunctionCall,
    IndexOf,
    Literal,
    NameReference,
    SliceOf,
    spend,
)
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import nearest


@dataclass(frozen=True, slots=True)
class SizeOf(Expression):
    """`channels(name)`, `height(name)`, `width(name)`: a size of a named value.

    With `place`, of the value there in a named list: `channels(name[i])`.
    """

    word: str
    name: NameReference
    place: Expression | None = None

    def evaluate(self, scope: ExpressionScope) -> Result:
        """Return the size, unknown where the value's shape is."""
        shape = self._shape(scope)
        if shape is None:
            return UNKNOWN
        axis = AXES[self.word]
        if axis < len(shape):
            return shape[axis]
        message = f"`{self.name.name}` is a vector of {shape[0]} and has no {self.word}"
        raise ExpressionError("E0222", message, self.name.start, self.name.end)

    def _shape(self, scope: ExpressionScope) -> Shape | None:
        name = self.name.name
        value = scope.values.get(name)
        if value is None:
            raise self._missing(scope)
        if isinstance(value, GraphValue):
            if value.type is not None and self.place is not None:
                message, hint = f"`{name}` is one value, no list", f"write {self.word}({name})"
                raise ExpressionError("E0222", message, self.name.start, self.end, hint)
            return value.shape
        if self.place is None:
            message = f"`{name}` is a list of values"
            hint = f"name one of them: {self.word}({name}[0])"
            raise ExpressionError("E0222", message, self.name.start, self.name.end, hint)
        whole = IndexOf(self.start, self.end, self.name, self.place)
        index = places(whole, len(value), scope)
        return value[index].shape if isinstance(index, int) else None

    def _missing(self, scope: ExpressionScope) -> ExpressionError:
        name = self.name.name
        close = nearest(name, sorted(scope.values))
        hint = f"did you mean `{close}`?" if close else "name a step's result with `as: name`"
        message = f"no value is named `{name}` here"
        return ExpressionError("E0221", message, self.name.start, self.name.end, hint)


@dataclass(frozen=True, slots=True)
class LengthOf(Expression):
    """`len(name)`: how many entries a list has, of numbers or of values."""

    name: NameReference

    def evaluate(self, scope: ExpressionScope) -> Result:
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
            message = f"`{name}` is one value, no list"
            raise ExpressionError("E0222", message, self.name.start, self.name.end)
        spend(self, scope, len(value))
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
                raise part.missing(scope)
        elif kind in (SizeOf, LengthOf):
            part.evaluate(scope)
        elif kind is tuple:
            # Taken from the end: the name that stands first in the text is the one refused.
            pending += reversed(part)
        else:
            pending += [getattr(part, name) for name in _parts(kind)]


@cache
def _parts(kind: Any) -> tuple[str, ...]:
    """Return the fields of a kind of expression, the last first; of what is none, nothing."""
    return tuple(f.name for f in reversed(fields(kind))) if issubclass(kind, Expression) else ()


def places(entries: IndexOf | SliceOf, count: int, scope: ExpressionScope) -> Result:
    """Return the place, or the places, that an index or a slice takes of a list of values."""
    name = entries.value
    spend(entries, scope, count)
    # Found as in a list of numbers, so that indices of values have the same rules and messages.
    numbers = Literal(name.start, name.end, tuple(range(count)))
    return replace(entries, value=numbers).evaluate(scope)
