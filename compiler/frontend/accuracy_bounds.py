"""A spec's `accuracy:`: what its integer program must keep of its float outputs."""

from dataclasses import dataclass
from math import inf

from tcc.compiler.frontend.argument_values import evaluated
from tcc.compiler.frontend.expr import ExpressionScope
from tcc.compiler.frontend.yaml import Mapping, Tree
from tcc.compiler.support.diagnostics import Diagnostic, UserError

BOUNDS = {"min_cosine": 1.0, "max_drop": 1.0, "min_correlation": 1.0, "max_error": inf}
"""What each bound may be at most; all are at least 0."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The bounds of `reference.accuracy_floor`; None is what the spec does not say."""

    min_cosine: float | None = None
    max_drop: float | None = None
    min_correlation: float | None = None
    max_error: float | None = None


def read_accuracy(tree: Tree | None, env: ExpressionScope) -> Accuracy:
    """Return what a spec's `accuracy:` says.

    Raises:
        UserError: A bound is no number that it may be (E0213).
    """
    if not isinstance(tree, Mapping):
        return Accuracy()
    found: dict[str, float] = {}
    problems = []
    for key, value in tree.items:
        number, most = evaluated(value, env), BOUNDS[str(key.value)]
        if (
            # To Python `true` is 1: as a bound it would be one that nobody meant.
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or not 0 <= number <= most
        ):
            wanted = "from 0 to 1" if most == 1 else "that is not negative"
            message = f"`{key.value}` must be a number {wanted}"
            problems.append(Diagnostic("E0213", message, value.span))
            continue
        found[str(key.value)] = float(number)
    if problems:
        raise UserError(tuple(problems))
    return Accuracy(**found)
