"""From steps to nodes: blocks, loops and branches are resolved, so that the graph is static.

A step that fails leaves `POISON` behind, a value of which nothing more is said, and expansion
goes on: one run shows every independent error.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tcc.compiler.frontend.bindings import Bindings
from tcc.compiler.frontend.control import CONTROLS, COST_OF_NAME
from tcc.compiler.frontend.doubts.steps import doubtful_op
from tcc.compiler.frontend.expr import UNKNOWN, Unknown
from tcc.compiler.frontend.joins import branches
from tcc.compiler.frontend.library import Block
from tcc.compiler.frontend.parameters import bind, evaluated
from tcc.compiler.frontend.scope import POISON, Bound, Env, Place, Val, lookup
from tcc.compiler.frontend.steps import JOIN_WORDS, WORDS, Step, bound_by, bound_in, take_apart
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.graph import Node, make_node
from tcc.compiler.ops.base import Op, OpError
from tcc.compiler.signature import signature
from tcc.compiler.source import MAX_TOLD, Diagnostic, Span, UserError, fail, listed
from tcc.compiler.types import TensorType

MAX_NODES = 20_000
MAX_STEPS = 200_000
MAX_DEPTH = 100
MAX_ELEMENTS = 2**31 - 1
"""Most elements of one tensor: what a 32-bit device can index."""
MAX_REPORTS = 1000
"""Most mistakes that are found, the same in every turn of a loop included."""
FINAL = ("E0406",)
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
            return POISON, env.hidden(*self.bound_by(tree))
        return value, self.name(step.name, value, env) if step.name else env

    def name(self, name: Scalar, value: Val, env: Env) -> Env:
        """Name a value, and remember which value a place in the text names."""
        self.named.setdefault(name.span, set()).add(value.name)
        return env.name_value(str(name.value), value)

    def _count(self, at: Span, env: Env) -> None:
        self.steps += 1
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
            return self.call(step, self.blocks[step.word], inputs, env), env
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

    def call(self, step: Step, block: Block, inputs: tuple[Val, ...], env: Env) -> Val:
        """Expand a block's body in a scope of its own."""
        if block.name in env.calls:
            cycle = " -> ".join((*env.calls[env.calls.index(block.name) :], block.name))
            self.report(fail("E0403", "a block calls itself", step.at, label=cycle), env)
            raise TooMany
        wanted = max(1, len(block.inputs))
        if len(inputs) != wanted:
            given = ", ".join(block.inputs) or "one value"
            raise fail(
                "E0218",
                f"`{block.name}` takes {wanted} value{'s' * (wanted > 1)} ({given})",
                step.at,
                label=f"it is given {len(inputs)}",
                help=f"write `from: [{given}]`" if wanted > 1 else "",
            )
        where = f"{step.at}" + (f" ({env.loop})" if env.loop else "")
        inner = Env(
            place_of(step, env),
            values=Bindings(dict(zip(block.inputs, inputs, strict=False))),
            chain=(f"in block `{block.name}` called from {where}", *env.chain),
            calls=(*env.calls, block.name),
            depth=env.depth + 1,
            budget=env.budget,
        )
        env.spend(COST_OF_NAME * (len(block.params) + len(block.require)), step.at)
        names, problems = bind(
            block.params,
            step.args,
            env.scope(inputs[0]),
            lambda bound: replace(inner, names=Bindings(bound)).scope(inputs[0]),
        )
        if problems:
            self.report(UserError(tuple(problems)), env)
        inner = replace(inner, names=Bindings(names))
        self._require(block, inputs[0], inner, step.at)
        result, _ = self.sequence(block.body, inputs[0], inner)
        inner.place.result = result
        return result

    def _require(self, block: Block, current: Val, inner: Env, at: Span) -> None:
        """Check a block's contracts; a broken one is reported at the call."""
        for rule in block.require:
            that, message = rule.get("that"), rule.get("else")
            assert that is not None
            holds = evaluated(that, inner.scope(current))
            if holds is False:
                said = message.value if isinstance(message, Scalar) else "its contract is broken"
                text = that.value if isinstance(that, Scalar) else ""
                given = listed([f"{k} = {_brief(v)}" for k, v in inner.names.items()])
                raise fail(
                    "E0219",
                    f"`{block.name}` cannot be used so: {said}",
                    at,
                    label=f"`{text}` is false" + (f" ({given})" if given else ""),
                )
            if not isinstance(holds, bool | Unknown):
                raise fail("E0213", "a contract must be true or false", that.span)


def _brief(value: Any) -> str:
    return "?" if value is UNKNOWN else str(list(value) if isinstance(value, tuple) else value)[:40]


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


def place_of(step: Step, env: Env) -> Place:
    """Add the step's part of the path."""
    if step.id is not None:
        return env.place.child(str(step.id.value), step.id.span, fixed=True)
    return env.place.child(step.word, step.at)


def check_size(node: Node, types: tuple[TensorType, ...], at: Span) -> None:
    """Refuse tensors that no 32-bit device can index.

    Raises:
        UserError: The result or a weight has more than `MAX_ELEMENTS` elements.
    """
    result = node.type
    sizes = [
        ("the result", result.elements),
        *((p.role, _prod(p.shape)) for p in node.op.params(*types)),
    ]
    for what, elements in sizes:
        if elements > MAX_ELEMENTS:
            raise fail(
                "E0405",
                f"{what} of `{node.op.word}` is too large",
                at,
                label=f"{elements} elements, the limit is {MAX_ELEMENTS}",
            )


def _prod(shape: tuple[int, ...]) -> int:
    return TensorType(shape).elements
