"""Steps that expansion does not reach: blocks that nothing calls, sides that are not chosen.

They are expanded beside the graph with everything unknown, so that what is wrong with them
whatever the values is said: names, types and ranges of arguments, numbers of inputs.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from tcc.compiler.frontend.argument_values import evaluated, value_of
from tcc.compiler.frontend.bindings import Bindings
from tcc.compiler.frontend.block_library import Block
from tcc.compiler.frontend.expr import UNKNOWN, Scope
from tcc.compiler.frontend.expr.arithmetic import Budget
from tcc.compiler.frontend.scope import POISON, TURN, Env, Place
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.signature import Parameter
from tcc.compiler.support.diagnostics import Diagnostic, UserError

if TYPE_CHECKING:
    from tcc.compiler.frontend.expand import Expander

T = TypeVar("T")


class Untried:
    """What was reached, what is left, and whether what is left is being tried now."""

    def __init__(self) -> None:
        self.trying = False
        self.reached: set[int] = set()
        self.called: set[str] = set()
        self.left: dict[int, tuple[Sequence, Env]] = {}
        self.budget = Budget()
        self._bound: dict[str, tuple[str, ...]] = {}

    def leave(self, steps: Tree | None, env: Env, *own: str, turn: bool = False) -> None:
        """Hear of steps that are not expanded; `own` are names that their loop would bind."""
        if isinstance(steps, Sequence) and id(steps) not in self.reached:
            if turn:
                env = env.hidden((), (*TURN, *own))
            self.left.setdefault(id(steps), (steps, env))

    def unknown(self, env: Env, owner: Tree) -> Env:
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
            place=Place(""),
            names=Bindings(_Same(env.names, UNKNOWN), dict.fromkeys(bound, UNKNOWN)),
            values=Bindings(_Same(env.values, POISON), dict.fromkeys(bound, POISON)),
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


def try_rest(ex: "Expander", graph: Sequence) -> None:
    """Expand what was left, with nothing known."""
    untried = ex.untried
    untried.trying = True
    _try_left(ex, graph)
    for block in ex.blocks.values():
        problems = tuple(default_problems(block.params, untried.budget, block.inputs))
        if problems:
            ex.report(UserError(problems), Env(Place("")))
        try_block(ex, block, (block.name,))
        _try_left(ex, graph)


def _try_left(ex: "Expander", graph: Sequence) -> None:
    left = ex.untried.left
    while left:
        steps, env = left.pop(next(iter(left)))
        owner = ex.blocks[env.calls[-1]].body if env.calls else graph
        if id(steps) not in ex.untried.reached:
            ex.sequence(steps, POISON, ex.untried.unknown(env, owner))


def try_block(ex: "Expander", block: Block, calls: tuple[str, ...]) -> None:
    """Expand a block that nothing called, once, with nothing known."""
    if block.name in ex.untried.called:
        return
    ex.untried.called.add(block.name)
    env = Env(
        Place(""),
        names=Bindings(dict.fromkeys((p.name for p in block.params), UNKNOWN)),
        values=Bindings(dict.fromkeys(block.inputs, POISON)),
        chain=(f"in block `{block.name}`, which no step reaches",),
        calls=calls,
        depth=len(calls),
    )
    env = ex.untried.unknown(env, block.body)
    for rule in block.require:
        that = rule.get("that")
        assert that is not None
        try:
            evaluated(that, env.scope(POISON))
        except UserError as error:
            ex.report(error, env)
    ex.sequence(block.body, POISON, env)


def default_problems(
    params: tuple[Parameter, ...],
    budget: Budget,
    inputs: tuple[str, ...] = (),
    sizes: bool = True,
    tried: Set[str] = frozenset(),
) -> Iterator[Diagnostic]:
    """Yield what is wrong with defaults, whether or not anything takes them.

    Those of `tried` were found wrong, or resting on what is, where they were taken.
    """
    names = dict.fromkeys(("C", "H", "W") if sizes else (), UNKNOWN)
    scope = Scope(names, dict.fromkeys(inputs), budget=budget)
    for p in params:
        if p.name not in tried and isinstance(p.default, Scalar | Sequence | MappingTree):
            try:
                value_of(p, p.default, scope)
            except UserError as error:
                yield from error.diagnostics
        names[p.name] = UNKNOWN
