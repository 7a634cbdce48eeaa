"""The expansion of a spec's steps into nodes: what it has collected, its limits, its diagnostics.

A step that fails leaves `ERROR_VALUE` behind, a value of which nothing more is said, and expansion
goes on: one run shows every independent error.

What a word means is not known here: `step_dispatch.dispatch`, which an expansion is given, knows,
and what a loop, a join or a block means calls `Expansion.sequence` again for the steps inside.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from tcc.compiler.frontend.argument_values import evaluate_tree
from tcc.compiler.frontend.block_library import Block
from tcc.compiler.frontend.expr import UNKNOWN
from tcc.compiler.frontend.expr.operators import Budget, GraphValue
from tcc.compiler.frontend.parameter_declarations import find_default_problems
from tcc.compiler.frontend.step_scope import (
    ERROR_VALUE,
    LOOP_NAMES,
    Bindings,
    BoundNames,
    PathNode,
    StepScope,
)
from tcc.compiler.frontend.step_syntax import (
    Step,
    find_bound_names,
    find_names_bound_in,
    iterate_step_sequences,
    parse_step,
)
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.graph import Node
from tcc.compiler.support.diagnostics import MAX_REPORTED, Diagnostic, Span, UserError, fail

T = TypeVar("T")


class UnreachedSteps:
    """The steps that were expanded, those that are pending, and whether these are being checked."""

    def __init__(self) -> None:
        self.is_checking = False
        self.expanded: set[int] = set()
        self.called_blocks: set[str] = set()
        self.pending: dict[int, tuple[Sequence, StepScope]] = {}
        # Of its own, so that a spec that is just within its budget is not refused for steps that it
        # never takes.
        self.budget = Budget()
        self._bound: dict[str, tuple[str, ...]] = {}

    def add(
        self, steps: Tree | None, env: StepScope, *loop_names: str, in_loop: bool = False
    ) -> None:
        """Note steps that are not expanded; `loop_names` are names that their loop would bind."""
        if isinstance(steps, Sequence) and id(steps) not in self.expanded:
            # Of a loop's turns nothing is known but that there are such names.
            if in_loop:
                env = env.hide_names((), (*LOOP_NAMES, *loop_names))
            self.pending.setdefault(id(steps), (steps, env))

    def create_unknown_scope(self, env: StepScope, owner: Tree) -> StepScope:
        """Return a scope in which nothing is known but which names there may be.

        A side that is not chosen here may bind what another one reads: any name that `owner`,
        the block or graph around both, binds somewhere may be in scope.
        """
        block_name = env.calls[-1] if env.calls else ""
        if block_name not in self._bound:
            self._bound[block_name] = tuple(dict.fromkeys(_iterate_bound_names(owner)))
        bound = self._bound[block_name]
        return replace(
            env,
            path_node=PathNode(""),
            names=Bindings(_ConstantMapping(env.names, UNKNOWN), dict.fromkeys(bound, UNKNOWN)),
            values=Bindings(
                _ConstantMapping(env.values, ERROR_VALUE), dict.fromkeys(bound, ERROR_VALUE)
            ),
            loop="",
            budget=self.budget,
        )


class _ConstantMapping(Mapping[str, T]):
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


def _iterate_bound_names(tree: Tree) -> Iterator[str]:
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
FATAL_CODES = ("E0403", "E0406")
"""Mistakes after which nothing more can be expanded."""


class ExpansionLimit(Exception):  # noqa: N818 - it is a limit, not a mistake by itself
    """Expansion ends here; the reason is among the diagnostics."""


class Expansion:
    """Expands one spec. Collects nodes under provisional names, and diagnostics."""

    def __init__(
        self, blocks: Mapping[str, Block], rejected_steps: set[int], dispatch: Dispatch
    ) -> None:
        self.blocks = blocks
        self.rejected_steps = rejected_steps
        self.dispatch = dispatch
        self.nodes: list[Node] = []
        self.diagnostics: dict[tuple[str, Span, str], Diagnostic] = {}
        self.repeat_counts: dict[tuple[str, Span, str], int] = {}
        self.values_by_span: dict[Span, set[str]] = {}
        self.warnings: dict[tuple[str, Span], Diagnostic] = {}
        self.unreached = UnreachedSteps()
        self.step_count = 0
        self.report_count = 0
        self.cut = False
        self._bound: dict[int, BoundNames] = {}
        # What a step's text says does not depend on the turn: it is taken apart once for each tree,
        # by the identity of trees that live as long as this does.
        self._parsed_steps: dict[int, Step] = {}

    def find_bound_names(self, tree: Tree) -> BoundNames:
        """Return the names that a step, or the body of a loop, binds for what comes after."""
        # Trees live as long as this expansion, so that an identity stays one tree's.
        if id(tree) not in self._bound:
            is_sequence = isinstance(tree, Sequence)
            self._bound[id(tree)] = (
                find_names_bound_in(tree, loops=True) if is_sequence else find_bound_names(tree)
            )
        return self._bound[id(tree)]

    # -- diagnostics ------------------------------------------------------------------------

    def report(self, error: UserError, env: StepScope) -> None:
        """Record a step's errors with the chain of calls; the same error of another call counts."""
        for d in error.diagnostics:
            key = (d.code, d.at, d.message)
            # Told where it was expanded; the second look at the same text adds nothing.
            if self.unreached.is_checking and key in self.diagnostics:
                continue
            self.repeat_counts[key] = self.repeat_counts.get(key, 0) + 1
            self.diagnostics.setdefault(key, d.add_notes(*env.describe_calls()))
            self.report_count += 1
            # Recursion without end and the like: every further step would meet it again.
            if d.code in FATAL_CODES:
                raise ExpansionLimit
        if len(self.diagnostics) >= MAX_REPORTED or self.report_count >= MAX_REPORTS:
            self.cut = True
            raise ExpansionLimit

    def collect_diagnostics(self) -> list[Diagnostic]:
        """Return the diagnostics, each with the number of further places it occurred in."""
        return [
            d.add_notes(f"and in {n - 1} more of these")
            if (n := self.repeat_counts[key]) > 1
            else d
            for key, d in self.diagnostics.items()
        ]

    def stop_expansion(self, code: str, message: str, at: Span, env: StepScope) -> None:
        """Report a limit and end expansion."""
        self.report(fail(code, message, at), env)
        raise ExpansionLimit

    # -- sequences and steps ----------------------------------------------------------------

    def expand_sequence(
        self, steps: Sequence, current: GraphValue, env: StepScope
    ) -> tuple[GraphValue, StepScope]:
        """Expand steps one after another; return the last value and the scope at the end."""
        if env.depth > MAX_DEPTH:
            self.stop_expansion(
                "E0402", f"steps are nested more than {MAX_DEPTH} deep", steps.span, env
            )
        self._count_step(steps.span, env)  # loops over nothing take time as well
        self.unreached.expanded.add(id(steps))
        for tree in steps.items:
            current, env = self.expand_step(tree, current, env)
        return current, env

    def expand_step(
        self, tree: Tree, current: GraphValue, env: StepScope
    ) -> tuple[GraphValue, StepScope]:
        """Expand one step; return its value and what is in scope after it."""
        self._count_step(tree.span, env)
        if id(tree) in self.rejected_steps:  # of which the check of words has spoken
            return ERROR_VALUE, env.hide_names(*self.find_bound_names(tree))
        step = self._parsed_steps.get(id(tree))
        # A loop meets the same step in every turn.
        if step is None:
            step = self._parsed_steps[id(tree)] = parse_step(tree)
        try:
            graph_value, env = self.dispatch(self, step, current, env)
        except UserError as error:
            self.report(error, env)
            # Steps inside one that failed are looked through by themselves: its mistake is not
            # theirs.
            for nested in iterate_step_sequences(tree):
                self.unreached.add(nested, env, in_loop=True)
            return ERROR_VALUE, env.hide_names(*self.find_bound_names(tree))
        return graph_value, self.name_value(step.name, graph_value, env) if step.name else env

    def name_value(self, name: Scalar, graph_value: GraphValue, env: StepScope) -> StepScope:
        """Name a value, and remember which value a place in the text names."""
        # An error's value names nothing that could be dead or alive.
        if graph_value.type is not None:
            self.values_by_span.setdefault(name.span, set()).add(graph_value.name)
        return env.name_value(str(name.value), graph_value)

    def add_node(self, node: Node, env: StepScope) -> GraphValue:
        """Add a node to the graph; return its value."""
        self.nodes.append(node)
        if len(self.nodes) > MAX_NODES:
            self.stop_expansion("E0401", f"the graph has more than {MAX_NODES} nodes", node.at, env)
        return GraphValue(node.name, node.type)

    def _count_step(self, at: Span, env: StepScope) -> None:
        self.step_count += not self.unreached.is_checking
        if self.step_count > MAX_STEPS:
            self.stop_expansion(
                "E0404", f"the spec expands to more than {MAX_STEPS} steps", at, env
            )


def check_unreached(ex: Expansion, graph: Sequence) -> None:
    """Expand what was left, with nothing known."""
    unreached = ex.unreached
    unreached.is_checking = True
    _check_pending(ex, graph)
    for block in ex.blocks.values():
        problems = tuple(find_default_problems(block.params, unreached.budget, block.inputs))
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
            ex.expand_sequence(steps, ERROR_VALUE, ex.unreached.create_unknown_scope(env, owner))


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
    env = ex.unreached.create_unknown_scope(env, block.body)
    for rule in block.require:
        that = rule.get("that")
        assert that is not None
        try:
            evaluate_tree(that, env.create_expression_scope(ERROR_VALUE))
        except UserError as error:
            ex.report(error, env)
    ex.expand_sequence(block.body, ERROR_VALUE, env)
