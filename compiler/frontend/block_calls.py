"""The expansion of blocks."""

from typing import Any

from tcc.compiler.frontend.argument_values import bind, evaluated
from tcc.compiler.frontend.bindings import Bindings
from tcc.compiler.frontend.block_library import Block
from tcc.compiler.frontend.control_flow import COST_OF_NAME
from tcc.compiler.frontend.expansion import Expansion
from tcc.compiler.frontend.expr import UNKNOWN, Unknown
from tcc.compiler.frontend.step_scope import ERROR_VALUE, GraphValue, PathNode, StepScope
from tcc.compiler.frontend.step_syntax import Step
from tcc.compiler.frontend.unreached_checks import check_block
from tcc.compiler.frontend.yaml import Scalar
from tcc.compiler.support.diagnostics import Span, UserError, fail, listed


def call(
    ex: Expansion, step: Step, block: Block, inputs: tuple[GraphValue, ...], env: StepScope
) -> GraphValue:
    """Expand a block's body in a scope of its own."""
    # Any recursion, even one that a condition would end: loops say how often, and their turns are
    # bounded.
    if block.name in env.calls:
        cycle = " -> ".join((*env.calls[env.calls.index(block.name) :], block.name))
        ex.report(fail("E0403", "a block calls itself", step.at, label=cycle), env)
    # Where nothing is reached, it is not known how many values a list holds.
    if not (ex.unreached.checking and step.sources and len(inputs) < len(block.inputs)):
        _check_inputs(step, block, len(inputs))
    where = f"{step.at}" + (f" ({env.loop})" if env.loop else "")
    inner = env.but(
        # Steps in a block are named below the call, so that two calls have weights of their own.
        place=place_of(step, env),
        # A block sees what it is given and nothing of its caller: what it means does not depend on
        # who calls it.
        names=Bindings(),
        values=Bindings(dict(zip(block.inputs, inputs, strict=False))),
        chain=(f"in block `{block.name}` called from {where}", *env.chain),
        calls=(*env.calls, block.name),
        loop="",
        depth=env.depth + 1,
    )
    # Blocks without steps, called in loops, make no node and take time.
    env.spend(COST_OF_NAME * (len(block.params) + len(block.require)), step.at)
    names, problems = bind(
        block.params,
        step.args,
        env.scope(inputs[0]),
        lambda bound: inner.but(names=Bindings(bound)).scope(inputs[0]),
    )
    if problems:
        ex.report(UserError(tuple(problems)), env)
    inner = inner.but(names=Bindings(names))
    _require(block, inputs[0], inner, step.at)
    # A block's steps are looked over once, however many calls of it nothing reaches.
    if ex.unreached.checking:
        check_block(ex, block, (*env.calls, block.name))
        return ERROR_VALUE
    ex.unreached.called_blocks.add(block.name)
    result, _ = ex.sequence(block.body, inputs[0], inner)
    inner.place.result = result
    return result


def _check_inputs(step: Step, block: Block, given: int) -> None:
    wanted = max(1, len(block.inputs))
    if given != wanted:
        names = ", ".join(block.inputs) or "one value"
        raise fail(
            "E0218",
            f"`{block.name}` takes {wanted} value{'s' * (wanted > 1)} ({names})",
            step.at,
            label=f"it is given {given}",
            help=f"write `from: [{names}]`" if wanted > 1 else "",
        )


def _require(block: Block, current: GraphValue, inner: StepScope, at: Span) -> None:
    """Check a block's contracts; a broken one is reported at the call."""
    scope = inner.scope(current)
    for rule in block.require:
        that, message = rule.get("that"), rule.get("else")
        assert that is not None
        holds = evaluated(that, scope)
        if holds is True:
            continue
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
        if not isinstance(holds, Unknown):
            raise fail("E0213", "a contract must be true or false", that.span)


def _brief(value: Any) -> str:
    return "?" if value is UNKNOWN else str(list(value) if isinstance(value, tuple) else value)[:40]


def place_of(step: Step, env: StepScope) -> PathNode:
    """Add the step's part of the path."""
    if step.id is not None:
        return env.place.child(str(step.id.value), step.id.span, fixed=True)
    return env.place.child(step.word, step.at)
