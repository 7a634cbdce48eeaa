"""A spec's `accuracy:`: what its integer program must keep of its float outputs."""

from dataclasses import dataclass

from tcc.compiler.frontend.expr import Scope
from tcc.compiler.frontend.parameters import evaluated
from tcc.compiler.frontend.yaml import Mapping, Tree
from tcc.compiler.source import Diagnostic, UserError


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The least mean cosine of raw outputs, and the largest share of images with another class.

    None is what the spec does not say.
    """

    min_cosine: float | None = None
    max_drop: float | None = None


def read_accuracy(tree: Tree | None, env: Scope) -> Accuracy:
    """Return what a spec's `accuracy:` says.

    Raises:
        UserError: A bound is no number from 0 to 1 (E0213).
    """
    if not isinstance(tree, Mapping):
        return Accuracy()
    found: dict[str, float] = {}
    problems = []
    for key, value in tree.items:
        number = evaluated(value, env)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            message = f"`{key.value}` must be a number from 0 to 1"
            problems.append(Diagnostic("E0213", message, value.span))
            continue
        found[str(key.value)] = float(number)
    if problems:
        raise UserError(tuple(problems))
    return Accuracy(**found)
