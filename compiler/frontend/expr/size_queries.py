"""The parts of an expression that ask about named values: their sizes, and the lengths of lists."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from tcc.compiler.frontend.expr.functions import AXES, FUNCTIONS
from tcc.compiler.frontend.expr.operators import UNKNOWN, ExpressionError, ExpressionScope, Result
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
        if name in scope.lists and self.place is not None:
            shapes = scope.lists[name]
            whole = IndexOf(self.start, self.end, self.name, self.place)
            found = places(whole, len(shapes), scope)
            return shapes[found] if isinstance(found, int) else None
        if name in scope.lists:
            message = f"`{name}` is a list of values"
            hint = f"name one of them: {self.word}({name}[0])"
            raise ExpressionError("E0222", message, self.name.start, self.name.end, hint)
        if name not in scope.shapes:
            raise self._missing(scope)
        shape = scope.shapes[name]
        if shape is not None and self.place is not None:
            message, hint = f"`{name}` is one value, no list", f"write {self.word}({name})"
            raise ExpressionError("E0222", message, self.name.start, self.end, hint)
        return shape

    def _missing(self, scope: ExpressionScope) -> ExpressionError:
        name = self.name.name
        close = nearest(name, sorted({*scope.shapes, *scope.lists}))
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
        # Numbers come first, as everywhere; what is called so nowhere gets the usual message.
        if name in scope.names or (name not in scope.lists and name not in scope.shapes):
            return FunctionCall(self.start, self.end, FUNCTIONS["len"], (self.name,)).evaluate(
                scope
            )
        if name in scope.lists:
            found = scope.lists[name]
            spend(self, scope, len(found))
            return len(found)
        if scope.shapes[name] is None:
            return UNKNOWN
        raise ExpressionError(
            "E0222", f"`{name}` is one value, no list", self.name.start, self.name.end
        )


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


def holds_names(root: Expression) -> bool:
    """Return whether the value of an expression may depend on what is in scope."""
    pending: list[Any] = [root]
    while pending:
        part = pending.pop()
        kind: Any = type(part)
        if kind in (NameReference, SizeOf, LengthOf):
            return True
        pending += part if kind is tuple else [getattr(part, name) for name in _parts(kind)]
    return False


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
