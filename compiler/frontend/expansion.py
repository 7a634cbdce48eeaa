"""Expansion of the steps of a spec into graph nodes, with its limits and diagnostics.

A failed step yields `ERROR_VALUE`, which suppresses follow-on diagnostics. Expansion continues, so
one run reports every independent error.

The meaning of keywords is in `step_dispatch.dispatch`, which is passed to an expansion. Loops,
joins and blocks call `Expansion.expand_sequence` for their inner steps.
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
    """The expanded steps, the pending steps, and whether the pending ones are being checked."""

    def __init__(self) -> None:
        self.is_checking = False
        self.expanded: set[int] = set()
        self.called_blocks: set[str] = set()
        self.pending: dict[int, tuple[Sequence, StepScope]] = {}
        # A separate budget: steps that are never reached must not exhaust that of the spec.
        self.budget = Budget()
        self._bound: dict[str, tuple[str, ...]] = {}

    def add(
        self, steps: Tree | None, env: StepScope, *loop_names: str, in_loop: bool = False
    ) -> None:
        """Add steps that are not expanded; `loop_names` are the names that their loop binds."""
        if isinstance(steps, Sequence) and id(steps) not in self.expanded:
            # The values of a loop variable are unknown; only the names are known.
            if in_loop:
                env = env.hide_names((), (*LOOP_NAMES, *loop_names))
            self.pending.setdefault(id(steps), (steps, env))

    def create_unknown_scope(self, env: StepScope, owner: Tree) -> StepScope:
        """Return a scope that knows the possible names, but no values.

        A branch that is not chosen may bind a name that another branch reads. So any name that
        `owner` (the enclosing block or graph) binds may be in scope.
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
    """A mapping that has one value for all names."""

    __slots__ = ("names", "value")

    def __init__(self, names: Mapping[str, object], value: T) -> None:
        self.names, self.value = names, value

    def __getitem__(self, name: str) -> T:
        """The value, for each known name."""
        if name in self.names:
            return self.value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names)

    def __len__(self) -> int:
        """The number of names."""
        return len(self.names)


def _iterate_bound_names(tree: Tree) -> Iterator[str]:
    """Yield each name that steps bind anywhere in a tree."""
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
"""Takes a step, its current value and its scope; returns its value and the scope after it."""

# Nested loops expand one line into millions of steps, so the limits are on the expansion, not only
# on the text. They count instead of measuring time, so that they give the same result everywhere.
MAX_NODES = 20_000
"""Most nodes of a graph; classifiers have some hundreds."""
MAX_STEPS = 200_000
"""Most steps, including those without a node."""
FEWER_ITERATIONS = "use fewer iterations in loops, or fewer steps in their bodies"
"""The fix for a spec that exceeds a limit."""
MAX_DEPTH = 100
"""Deepest nesting of steps; each level takes several Python stack frames."""
MAX_REPORTS = 1000
"""Most errors, including repeated ones in the iterations of a loop."""
FATAL_CODES = ("E0403", "E0406")
"""Errors that end the expansion."""


class ExpansionLimit(Exception):  # noqa: N818 - it is a limit, not a mistake by itself
    """Expansion ended at a limit; the reason is among the diagnostics."""


class Expansion:
    """Expands one spec; collects nodes with provisional names, and diagnostics."""

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
        # The parsed text of a step is the same in each iteration. It is cached by the identity of
        # its tree; trees live as long as this object.
        self._parsed_steps: dict[int, Step] = {}

    def find_bound_names(self, tree: Tree) -> BoundNames:
        """Return the names that a step or a loop body binds for later steps."""
        # Trees live as long as this object, so an identity is unique.
        if id(tree) not in self._bound:
            is_sequence = isinstance(tree, Sequence)
            self._bound[id(tree)] = (
                find_names_bound_in(tree, loops=True) if is_sequence else find_bound_names(tree)
            )
        return self._bound[id(tree)]

    # -- diagnostics ------------------------------------------------------------------------

    def report(self, error: UserError, env: StepScope) -> None:
        """Record the errors of a step with the chain of calls; count repeated ones."""
        for d in error.diagnostics:
            key = (d.code, d.at, d.message)
            # Already reported by the expansion; the check of unreached steps adds nothing.
            if self.unreached.is_checking and key in self.diagnostics:
                continue
            self.repeat_counts[key] = self.repeat_counts.get(key, 0) + 1
            self.diagnostics.setdefault(key, d.add_notes(*env.describe_calls()))
            self.report_count += 1
            # Unlimited recursion, for example: each further step would report it again.
            if d.code in FATAL_CODES:
                raise ExpansionLimit
        if len(self.diagnostics) >= MAX_REPORTED or self.report_count >= MAX_REPORTS:
            self.cut = True
            raise ExpansionLimit

    def collect_diagnostics(self) -> list[Diagnostic]:
        """Return the diagnostics, each with the number of its repetitions."""
        return [
            d.add_notes(f"the same error in further calls or iterations: {n - 1}")
            if (n := self.repeat_counts[key]) > 1
            else d
            for key, d in self.diagnostics.items()
        ]

    def stop_expansion(self, code: str, message: str, at: Span, env: StepScope, help: str) -> None:
        """Report a limit and end expansion."""
        self.report(fail(code, message, at, help=help), env)
        raise ExpansionLimit

    # -- sequences and steps ----------------------------------------------------------------

    def expand_sequence(
        self, steps: Sequence, current: GraphValue, env: StepScope
    ) -> tuple[GraphValue, StepScope]:
        """Expand steps in order; return the last value and the scope at the end."""
        if env.depth > MAX_DEPTH:
            message = f"steps are nested more than {MAX_DEPTH} deep"
            help = "write inner parts one after another, or nest fewer loops and blocks"
            self.stop_expansion("E0402", message, steps.span, env, help)
        self._count_step(steps.span, env)  # loops over empty bodies take time too
        self.unreached.expanded.add(id(steps))
        for tree in steps.items:
            current, env = self.expand_step(tree, current, env)
        return current, env

    def expand_step(
        self, tree: Tree, current: GraphValue, env: StepScope
    ) -> tuple[GraphValue, StepScope]:
        """Expand one step; return its value and the scope after it."""
        self._count_step(tree.span, env)
        if id(tree) in self.rejected_steps:  # already reported by the check of keywords
            return ERROR_VALUE, env.hide_names(*self.find_bound_names(tree))
        step = self._parsed_steps.get(id(tree))
        # A loop expands the same step in each iteration.
        if step is None:
            step = self._parsed_steps[id(tree)] = parse_step(tree)
        try:
            graph_value, env = self.dispatch(self, step, current, env)
        except UserError as error:
            self.report(error, env)
            # Check the inner steps of a failed step separately: they may have other errors.
            for nested in iterate_step_sequences(tree):
                self.unreached.add(nested, env, in_loop=True)
            return ERROR_VALUE, env.hide_names(*self.find_bound_names(tree))
        return graph_value, self.name_value(step.name, graph_value, env) if step.name else env

    def name_value(self, name: Scalar, graph_value: GraphValue, env: StepScope) -> StepScope:
        """Name a value, and record which values a location names."""
        # An error value is not in the graph.
        if graph_value.type is not None:
            self.values_by_span.setdefault(name.span, set()).add(graph_value.name)
        return env.name_value(str(name.value), graph_value)

    def add_node(self, node: Node, env: StepScope) -> GraphValue:
        """Add a node to the graph; return its value."""
        self.nodes.append(node)
        if len(self.nodes) > MAX_NODES:
            message = f"the graph has more than {MAX_NODES:,} nodes"
            self.stop_expansion("E0401", message, node.at, env, FEWER_ITERATIONS)
        return GraphValue(node.name, node.type)

    def _count_step(self, at: Span, env: StepScope) -> None:
        self.step_count += not self.unreached.is_checking
        if self.step_count > MAX_STEPS:
            message = f"the spec expands to more than {MAX_STEPS:,} steps"
            self.stop_expansion("E0404", message, at, env, FEWER_ITERATIONS)


def check_unreached(ex: Expansion, graph: Sequence) -> None:
    """Check the steps that were not expanded, with all values unknown."""
    unreached = ex.unreached
    unreached.is_checking = True
    _check_pending(ex, graph)
    for block in ex.blocks.values():
        problems = tuple(find_default_problems(block.params, unreached.budget, block.inputs))
        if problems:
            ex.report(UserError(problems), StepScope(PathNode("")))
        # Blocks in the order of the text. A block that another unreached block calls is
        # checked at that call.
        check_block(ex, block, (block.name,))
        _check_pending(ex, graph)


def _check_pending(ex: Expansion, graph: Sequence) -> None:
    pending = ex.unreached.pending
    while pending:
        # In order of insertion, so that errors are reported in the order of the text.
        steps, env = pending.pop(next(iter(pending)))
        owner = ex.blocks[env.calls[-1]].body if env.calls else graph
        if id(steps) not in ex.unreached.expanded:
            ex.expand_sequence(steps, ERROR_VALUE, ex.unreached.create_unknown_scope(env, owner))


def check_block(ex: Expansion, block: Block, calls: tuple[str, ...]) -> None:
    """Expand a block that was never called, with all values unknown."""
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
