"""What expressions see, and what goes wrong in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tcc.compiler.frontend.expr.operators import Budget
from tcc.compiler.ir.argument_declarations import ArgumentValue
from tcc.compiler.ir.types import Shape


class Unknown:
    """The type of `UNKNOWN`."""

    def __repr__(self) -> str:
        """The word that messages use."""
        return "unknown"


UNKNOWN = Unknown()
"""Stands for a value that an earlier error keeps from being known; what uses it is unknown too."""

Result = ArgumentValue | Unknown


@dataclass(frozen=True, slots=True)
class ExpressionScope:
    """Names that stand for values, and the shapes of named tensors, None where unknown.

    `lists` has the shapes of each named list of tensors; `budget` is what evaluation may cost.
    """

    names: Mapping[str, Result] = field(default_factory=dict)
    shapes: Mapping[str, Shape | None] = field(default_factory=dict)
    lists: Mapping[str, tuple[Shape | None, ...]] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget, compare=False)


@dataclass
class ExpressionError(Exception):
    """A mistake in text[start:end] of an expression."""

    code: str
    message: str
    start: int
    end: int
    help: str = ""
    notes: tuple[str, ...] = ()
