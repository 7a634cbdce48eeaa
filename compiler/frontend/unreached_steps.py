"""Steps that expansion does not reach: blocks that nothing calls, sides that are not chosen.

They are expanded beside the graph with everything unknown, so that mistakes are told which no value
could mend: names, types and ranges of arguments, numbers of inputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from tcc.compiler.frontend.bindings import Bindings
from tcc.compiler.frontend.expr import UNKNOWN
from tcc.compiler.frontend.expr.operators import Budget
from tcc.compiler.frontend.step_scope import ERROR_VALUE, LOOP_NAMES, PathNode, StepScope
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree

T = TypeVar("T")


class UnreachedSteps:
    """The steps that were expanded, those that are pending, and whether these are being checked."""

    def __init__(self) -> None:
        self.checking = False
        self.expanded: set[int] = set()
        self.called_blocks: set[str] = set()
        self.pending: dict[int, tuple[Sequence, StepScope]] = {}
        # Of its own, so that a spec that is just within its budget is not refused for steps that it
        # never takes.
        self.budget = Budget()
        self._bound: dict[str, tuple[str, ...]] = {}

    def add(self, steps: Tree | None, env: StepScope, *own: str, turn: bool = False) -> None:
        """Hear of steps that are not expanded; `own` are names that their loop would bind."""
        if isinstance(steps, Sequence) and id(steps) not in self.expanded:
            # Of a loop's turns nothing is known but that there are such names.
            if turn:
                env = env.hidden((), (*LOOP_NAMES, *own))
            self.pending.setdefault(id(steps), (steps, env))

    def unknown(self, env: StepScope, owner: Tree) -> StepScope:
        """Return a scope in which nothing is known but which names there may be.

        A side that is not chosen here may bind what another one reads: any name that `owner`,
        the block or graph around both, binds somewhere may be in scope.
        """
        word = env.calls[-1] if env.calls else ""
        if word not in self._bound:
            self._bound[word] = tuple(dict.fromkeys(_names(owner)))
        bound = self._bound[word]
        return replace(
            env,
            place=PathNode(""),
            names=Bindings(_Same(env.names, UNKNOWN), dict.fromkeys(bound, UNKNOWN)),
            values=Bindings(_Same(env.values, ERROR_VALUE), dict.fromkeys(bound, ERROR_VALUE)),
            loop="",
            budget=self.budget,
        )


class _Same(Mapping[str, T]):
    """The names of a mapping, all of which stand for the same."""

    __slots__ = ("names", "value")

    def __init__(self, names: Mapping[str, object], value: T) -> None:
        self.names, self.value = names, value

    def __getitem__(self, name: str) -> T:
        """The value, for every name there is."""
        if name in self.names:
            return self.value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.names)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)


def _names(tree: Tree) -> Iterator[str]:
    """Yield every name that steps bind anywhere in a tree."""
    pending = [tree]
    while pending:
        match pending.pop():
            case Sequence(items=items):
                pending += items
            case MappingTree(items=items):
                for key, value in items:
                    pending.append(value)
                    if key.value in ("as", "collect") and isinstance(value, Scalar):
                        yield str(value.value)
                    if key.value == "let" and isinstance(value, MappingTree):
                        yield from value.keys
            case _:
                pass
