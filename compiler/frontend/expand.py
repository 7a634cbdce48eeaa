"""From steps to nodes: blocks, loops and branches are resolved, so that the graph is static.

A step that fails leaves `POISON` behind, a value of which nothing more is said, and expansion
goes on: one run shows every independent error.
"""

from collections.abc import Mapping

from tcc.compiler.frontend.argument_values import bind
from tcc.compiler.frontend.block_calls import call, place_of
from tcc.compiler.frontend.block_library import JOIN_WORDS, WORDS, Block
from tcc.compiler.frontend.control_flow import CONTROLS, COST_OF_NAME
from tcc.compiler.frontend.expr import Unknown
from tcc.compiler.frontend.join_branches import branches
from tcc.compiler.frontend.limits import check_size
from tcc.compiler.frontend.scope import POISON, Bound, Env, Val, lookup
from tcc.compiler.frontend.steps import Step, bound_by, bound_in, nested_in, take_apart
from tcc.compiler.frontend.unreached import Untried
from tcc.compiler.frontend.warnings.steps import doubtful_op
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.graph import Node, make_node
from tcc.compiler.ir.op import Op, OpError
from tcc.compiler.ir.signature import signature
from tcc.compiler.support.diagnostics import MAX_TOLD, Diagnostic, Span, UserError, fail

MAX_NODES = 20_000
MAX_STEPS = 200_000
MAX_DEPTH = 100
MAX_REPORTS = 1000
"""Most mistakes that are found, the same in every turn of a loop included."""
FINAL = ("E0403", "E0406")
"""Mistakes after which nothing more can be expanded."""


class TooMany(Exception):  # noqa: N818 - it is a limit that ends expansion, not a mistake by itself
    """Expansion ends here; the reason is among the diagnostics."""


class Expander:
    """Expands one spec. Collects nodes under provisional names, and diagnostics."""

    def __init__(self, blocks: Mapping[str, Block], bad: set[int]) -> None:
        self.blocks = blocks
        self.bad = bad
        self.nodes: list[Node] = []
        self.diagnostics: dict[tuple[str, Span, str], Diagnostic] = {}
        self.repeats: dict[tuple[str, Span, str], int] = {}
        self.named: dict[Span, set[str]] = {}
        self.doubts: dict[tuple[str, Span], Diagnostic] = {}
        self.untried = Untried()
        self.steps = 0
        self.reports = 0
        self._bound: dict[int, Bound] = {}

    def bound_by(self, tree: Tree) -> Bound:
        """Return the names that a step, or the body of a loop, binds for what comes after."""
        if id(tree) not in self._bound:
            body = isinstance(tree, Sequence)
            self._bound[id(tree)] = bound_in(tree, loops=True) if body else bound_by(tree)
        return self._bound[id(tree)]

    # -- diagnostics ------------------------------------------------------------------------

    def report(self, error: UserError, env: Env) -> None:
        """Record a step's errors with the chain of calls; the same error of another call counts."""
        for d in error.diagnostics:
            key = (d.code, d.at, d.message)
            if self.untried.trying and key in self.diagnostics:
                continue
            self.repeats[key] = self.repeats.get(key, 0) + 1
            self.diagnostics.setdefault(key, d.noted(*env.notes()))
            self.reports += 1
            if d.code in FINAL:
                raise TooMany
        if len(self.diagnostics) >= MAX_TOLD or self.reports >= MAX_REPORTS:
            raise TooMany

    def found(self) -> list[Diagnostic]:
        """Return the diagnostics, each with the number of further places it occurred in."""
        return [
            d.noted(f"and in {n - 1} more of these") if (n := self.repeats[key]) > 1 else d
            for key, d in self.diagnostics.items()
        ]

    # -- sequences and steps ----------------------------------------------------------------

    def sequence(self, steps: Sequence, current: Val, env: Env) -> tuple[Val, Env]:
        """Expand steps one after another; return the last value and the scope at the end."""
        if env.depth > MAX_DEPTH:
            self.stop("E0402", f"steps are nested more than {MAX_DEPTH} deep", steps.span, env)
        self._count(steps.span, env)  # loops over nothing take time as well
        self.untried.reached.add(id(steps))
        for tree in steps.items:
            current, env = self.step(tree, current, env)
        return current, env

    def stop(self, code: str, message: str, at: Span, env: Env) -> None:
        """Report a limit and end expansion."""
        self.report(fail(code, message, at), env)
        raise TooMany

    def step(self, tree: Tree, current: Val, env: Env) -> tuple[Val, Env]:
        """Expand one step; return its value and what is in scope after it."""
        self._count(tree.span, env)
        if id(tree) in self.bad:  # of which the check of words has spoken
            return POISON, env.hidden(*self.bound_by(tree))
        step = take_apart(tree)
        try:
            value, env = self._dispatch(step, current, env)
        except UserError as error:
            self.report(error, env)
            for nested in nested_in(tree):
                self.untried.leave(nested, env, turn=True)
            return POISON, env.hidden(*self.bound_by(tree))
        return value, self.name(step.name, value, env) if step.name else env

    def name(self, name: Scalar, value: Val, env: Env) -> Env:
        """Name a value, and remember which value a place in the text names."""
        if value.type is not None:
            self.named.setdefault(name.span, set()).add(value.name)
        return env.name_value(str(name.value), value)

    def _count(self, at: Span, env: Env) -> None:
        self.steps += not self.untried.trying
        if self.steps > MAX_STEPS:
            self.stop("E0404", f"the spec expands to more than {MAX_STEPS} steps", at, env)

    def _dispatch(self, step: Step, current: Val, env: Env) -> tuple[Val, Env]:
        inputs = self.sources(step, current, env)
        if len(inputs) > 1 and step.args is not None and step.word not in self.blocks:
            raise _one_value(step, len(inputs))
        if step.word in CONTROLS:
            return CONTROLS[step.word](self, step, inputs[0], env)
        if step.word in JOIN_WORDS:
            values = inputs if step.args is None else branches(self, step, inputs[0], env)
            return self.emit(step, WORDS[step.word](), values, env), env
        if step.word in self.blocks:
            return call(self, step, self.blocks[step.word], inputs, env), env
        bound, problems = bind(
            signature(WORDS[step.word]),
            step.args,
            env.scope(inputs[0]),
            lambda _: env.scope(current),
        )
        if problems:
            raise UserError(tuple(problems))
        if any(isinstance(v, Unknown) for v in bound.values()):
            return POISON, env
        return self.emit(step, WORDS[step.word](**bound), inputs, env), env

    def sources(self, step: Step, current: Val, env: Env) -> tuple[Val, ...]:
        """Return the values that a step reads: `from:`, or the current one."""
        if not step.sources:
            return (current,)
        found = tuple(v for name in step.sources for v in lookup(name, current, env))
        if not found:
            at = step.sources[0].span
            raise fail("E0230", f"`{step.word}` reads no value", at, label="the list is empty")
        return found

    # -- ops and blocks ---------------------------------------------------------------------

    def emit(self, step: Step, op: Op, inputs: tuple[Val, ...], env: Env) -> Val:
        """Add the node of an op; return its value."""
        place = place_of(step, env)
        env.spend(COST_OF_NAME * len(inputs), step.at)
        fewest, most = op.arity
        if len(inputs) < fewest or (most is not None and len(inputs) > most):
            raise _one_value(step, len(inputs))
        types = tuple(v.type for v in inputs if v.type is not None)
        if len(types) < len(inputs):
            return POISON
        name = f"%{len(self.nodes)}"
        for doubt in doubtful_op(op, types, step.at):
            self.doubts.setdefault((doubt.code, doubt.at), doubt)
        try:
            node = make_node(name, op, tuple(v.name for v in inputs), types, step.at)
        except OpError as e:
            raise fail(e.code, e.message, step.at, label=e.label, help=e.help) from None
        if node is None:
            place.result = inputs[0]
            return inputs[0]
        check_size(node, types, step.at)
        self.nodes.append(node)
        place.node = name
        place.result = Val(name, node.type)
        if len(self.nodes) > MAX_NODES:
            self.stop("E0401", f"the graph has more than {MAX_NODES} nodes", step.at, env)
        return place.result


def _one_value(step: Step, given: int) -> UserError:
    help = "join them first with `concat`, `add` or `mul`"
    if step.word in JOIN_WORDS:
        help = f"leave the branches away to {step.word} the values of `from`"
    return fail(
        "E0218",
        f"`{step.word}` takes one value",
        step.at,
        label=f"`from` names {given}",
        help=help,
    )
