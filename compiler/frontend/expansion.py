"""The expansion of a spec's steps into nodes: what it has collected, its limits, its diagnostics.

A step that fails leaves `ERROR_VALUE` behind, a value of which nothing more is said, and expansion
goes on: one run shows every independent error.

What a word means is not known here: `step_dispatch.dispatch`, which an expansion is given, knows,
and what a loop, a join or a block means calls `Expansion.sequence` again for the steps inside.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from tcc.compiler.frontend.argument_values import evaluated
from tcc.compiler.frontend.block_library import Block
from tcc.compiler.frontend.expr import UNKNOWN
from tcc.compiler.frontend.expr.operators import Budget, GraphValue
from tcc.compiler.frontend.parameter_declarations import default_problems
from tcc.compiler.frontend.step_scope import (
    ERROR_VALUE,
    LOOP_NAMES,
    Bindings,
    BoundNames,
    PathNode,
    StepScope,
)
from tcc.compiler.frontend.step_syntax import Step, bound_by, bound_in, nested_in, take_apart
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.graph import Node
from tcc.compiler.support.diagnostics import MAX_TOLD, Diagnostic, Span, UserError, fail

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


Dispatch = Callable[["Expansion", Step, GraphValue, StepScope], tuple[GraphValue, StepScope]]
"""From a step, its current value and its scope to its value and the scope after it."""

# Loops in loops make millions of steps of one line of text, so what comes of a text is bounded, not
# the text alone. Counts are compared, not seconds: a spec is refused everywhere or nowhere.
MAX_NODES = 20_000
"""Most nodes of a graph; classifiers have some hundreds."""
MAX_STEPS = 200_000
"""Most steps, those included that leave no node."""
MAX_DEPTH = 100
"""How deep steps may nest: each level takes several frames of Python's stack."""
MAX_REPORTS = 1000
"""Most mistakes that are found, the same in every turn of a loop included."""
FINAL = ("E0403", "E0406")
"""Mistakes after which nothing more can be expanded."""


class ExpansionLimit(Exception):  # noqa: N818 - it is a limit, not a mistake by itself
    """Expansion ends here; the reason is among the diagnostics."""


class Expansion:
    """Expands one spec. Collects nodes under provisional names, and diagnostics."""

    def __init__(self, blocks: Mapping[str, Block], bad: set[int], dispatch: Dispatch) -> None:
        self.blocks = blocks
        self.bad = bad
        self.dispatch = dispatch
        self.nodes: list[Node] = []
        self.diagnostics: dict[tuple[str, Span, str], Diagnostic] = {}
        self.repeats: dict[tuple[str, Span, str], int] = {}
        self.named: dict[Span, set[str]] = {}
        self.doubts: dict[tuple[str, Span], Diagnostic] = {}
        self.unreached = UnreachedSteps()
        self.steps = 0
        self.reports = 0
        self.cut = False
        self._bound: dict[int, BoundNames] = {}
        # What a step's text says does not depend on the turn: it is taken apart once for each tree,
        # by the identity of trees that live as long as this does.
        self._apart: dict[int, Step] = {}

    def bound_by(self, tree: Tree) -> BoundNames:
        """Return the names that a step, or the body of a loop, binds for what comes after."""
        # Trees live as long as this expansion, so that an identity stays one tree's.
        if id(tree) not in self._bound:
            body = isinstance(tree, Sequence)
            self._bound[id(tree)] = bound_in(tree, loops=True) if body else bound_by(tree)
        return self._bound[id(tree)]

    # -- diagnostics ------------------------------------------------------------------------

    def report(self, error: UserError, env: StepScope) -> None:
        """Record a step's errors with the chain of calls; the same error of another call counts."""
        for d in error.diagnostics:
            key = (d.code, d.at, d.message)
            # Told where it was expanded; the second look at the same text adds nothing.
            if self.unreached.checking and key in self.diagnostics:
                continue
            self.repeats[key] = self.repeats.get(key, 0) + 1
            self.diagnostics.setdefault(key, d.noted(*env.notes()))
            self.reports += 1
            # Recursion without end and the like: every further step would meet it again.
            if d.code in FINAL:
                raise ExpansionLimit
        if len(self.diagnostics) >= MAX_TOLD or self.reports >= MAX_REPORTS:
            self.cut = True
            raise ExpansionLimit

    def reported(self) -> list[Diagnostic]:
        """Return the diagnostics, each with the number of further places it occurred in."""
        return [
            d.noted(f"and in {n - 1} more of these") if (n := self.repeats[key]) > 1 else d
            for key, d in self.diagnostics.items()
        ]

    def stop(self, code: str, message: str, at: Span, env: StepScope) -> None:
        """Report a limit and end expansion."""
        self.report(fail(code, message, at), env)
        raise ExpansionLimit

    # -- sequences and steps ----------------------------------------------------------------

    def sequence(
        self, steps: Sequence, current: GraphValue, env: StepScope
    ) -> tuple[GraphValue, StepScope]:
        """Expand steps one after another; return the last value and the scope at the end."""
        if env.depth > MAX_DEPTH:
            self.stop("E0402", f"steps are nested more than {MAX_DEPTH} deep", steps.span, env)
        self._count(steps.span, env)  # loops over nothing take time as well
        self.unreached.expanded.add(id(steps))
        for tree in steps.items:
            current, env = self.step(tree, current, env)
        return current, env

    def step(self, tree: Tree, current: GraphValue, env: StepScope) -> tuple[GraphValue, StepScope]:
        """Expand one step; return its value and what is in scope after it."""
        self._count(tree.span, env)
        if id(tree) in self.bad:  # of which the check of words has spoken
            return ERROR_VALUE, env.hidden(*self.bound_by(tree))
        step = self._apart.get(id(tree))
        # A loop meets the same step in every turn.
        if step is None:
            step = self._apart[id(tree)] = take_apart(tree)
        try:
            value, env = self.dispatch(self, step, current, env)
        except UserError as error:
            self.report(error, env)
            # Steps inside one that failed are looked through by themselves: its mistake is not
            # theirs.
            for nested in nested_in(tree):
                self.unreached.add(nested, env, turn=True)
            return ERROR_VALUE, env.hidden(*self.bound_by(tree))
        return value, self.name(step.name, value, env) if step.name else env

    def name(self, name: Scalar, value: GraphValue, env: StepScope) -> StepScope:
        """Name a value, and remember which value a place in the text names."""
        # An error's value names nothing that could be dead or alive.
        if value.type is not None:
            self.named.setdefault(name.span, set()).add(value.name)
        return env.name_value(str(name.value), value)

    def add(self, node: Node, env: StepScope) -> GraphValue:
        """Add a node to the graph; return its value."""
        self.nodes.append(node)
        if len(self.nodes) > MAX_NODES:
            self.stop("E0401", f"the graph has more than {MAX_NODES} nodes", node.at, env)
        return GraphValue(node.name, node.type)

    def _count(self, at: Span, env: StepScope) -> None:
        self.steps += not self.unreached.checking
        if self.steps > MAX_STEPS:
            self.stop("E0404", f"the spec expands to more than {MAX_STEPS} steps", at, env)


def check_unreached(ex: Expansion, graph: Sequence) -> None:
    """Expand what was left, with nothing known."""
    unreached = ex.unreached
    unreached.checking = True
    _check_pending(ex, graph)
    for block in ex.blocks.values():
        problems = tuple(default_problems(block.params, unreached.budget, block.inputs))
        if problems:
            ex.report(UserError(problems), StepScope(PathNode("")))
        # Blocks in the order of the text; one that another unreached block calls is looked over
        # there.
        check_block(ex, block, (block.name,))
        _check_pending(ex, graph)


def _check_pending(ex: Expansion, graph: Sequence) -> None:
    pending = ex.unreached.pending
    while pending:
        # The first that was left, so that mistakes are told in the order of the text.
        steps, env = pending.pop(next(iter(pending)))
        owner = ex.blocks[env.calls[-1]].body if env.calls else graph
        if id(steps) not in ex.unreached.expanded:
            ex.sequence(steps, ERROR_VALUE, ex.unreached.unknown(env, owner))


def check_block(ex: Expansion, block: Block, calls: tuple[str, ...]) -> None:
    """Expand a block that nothing called, once, with nothing known."""
    if block.name in ex.unreached.called_blocks:
        return
    ex.unreached.called_blocks.add(block.name)
    env = StepScope(
        PathNode(""),
        names=Bindings(dict.fromkeys((p.name for p in block.params), UNKNOWN)),
        values=Bindings(dict.fromkeys(block.inputs, ERROR_VALUE)),
        chain=(f"in block `{block.name}`, which no step reaches",),
        calls=calls,
        depth=len(calls),
    )
    env = ex.unreached.unknown(env, block.body)
    for rule in block.require:
        that = rule.get("that")
        assert that is not None
        try:
            evaluated(that, env.scope(ERROR_VALUE))
        except UserError as error:
            ex.report(error, env)
    ex.sequence(block.body, ERROR_VALUE, env)
