"""What a step's word means: a control step, a join, a block, or an op, of which a node is made."""

from tcc.compiler.frontend.argument_values import bind
from tcc.compiler.frontend.block_calls import call, place_of
from tcc.compiler.frontend.block_library import JOIN_WORDS, WORDS
from tcc.compiler.frontend.control_flow import CONTROLS, COST_OF_NAME
from tcc.compiler.frontend.expansion import Expansion
from tcc.compiler.frontend.expr import Unknown
from tcc.compiler.frontend.join_branches import branches
from tcc.compiler.frontend.size_limits import check_size
from tcc.compiler.frontend.step_scope import ERROR_VALUE, GraphValue, StepScope, lookup
from tcc.compiler.frontend.step_syntax import Step
from tcc.compiler.frontend.warnings.step_warnings import doubtful_op
from tcc.compiler.ir.argument_declarations import signature
from tcc.compiler.ir.graph import make_node
from tcc.compiler.ir.op import Op, OpError
from tcc.compiler.support.diagnostics import UserError, fail


def dispatch(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """Expand one step by what its word means; return its value and the scope after it.

    Raises:
        UserError: The step is wrong by itself.
    """
    inputs = _sources(step, current, env)
    # Only blocks take several values besides arguments; ops that join take them from `from` alone.
    if len(inputs) > 1 and step.args is not None and step.word not in ex.blocks:
        raise _one_value(step, len(inputs))
    if step.word in CONTROLS:
        return CONTROLS[step.word](ex, step, inputs[0], env)
    if step.word in JOIN_WORDS:
        values = inputs if step.args is None else branches(ex, step, inputs[0], env)
        return _emit(ex, step, WORDS[step.word](), values, env), env
    if step.word in ex.blocks:
        return call(ex, step, ex.blocks[step.word], inputs, env), env
    bound, problems = bind(
        signature(WORDS[step.word]), step.args, env.scope(inputs[0]), lambda _: env.scope(current)
    )
    if problems:
        raise UserError(tuple(problems))
    # The argument rests on a mistake that was told: what it would lead to is not known.
    if any(isinstance(v, Unknown) for v in bound.values()):
        return ERROR_VALUE, env
    return _emit(ex, step, WORDS[step.word](**bound), inputs, env), env


def _sources(step: Step, current: GraphValue, env: StepScope) -> tuple[GraphValue, ...]:
    """Return the values that a step reads: `from:`, or the current one."""
    if not step.sources:
        return (current,)
    found = tuple(v for name in step.sources for v in lookup(name, current, env))
    if not found:
        at = step.sources[0].span
        raise fail("E0230", f"`{step.word}` reads no value", at, label="the list is empty")
    return found


def _emit(
    ex: Expansion, step: Step, op: Op, inputs: tuple[GraphValue, ...], env: StepScope
) -> GraphValue:
    """Add the node of an op; return its value, or its input's where the op is the identity."""
    place = place_of(step, env)
    # A `from` of a list of thousands of values is short text and long work.
    env.spend(COST_OF_NAME * len(inputs), step.at)
    fewest, most = op.arity
    if len(inputs) < fewest or (most is not None and len(inputs) > most):
        raise _one_value(step, len(inputs))
    types = tuple(v.type for v in inputs if v.type is not None)
    if len(types) < len(inputs):
        return ERROR_VALUE
    # Provisional: a path is known only when all siblings are. `%` is in no name of the language.
    name = f"%{len(ex.nodes)}"
    for doubt in doubtful_op(op, types, step.at):
        ex.doubts.setdefault((doubt.code, doubt.at), doubt)
    try:
        node = make_node(name, op, tuple(v.name for v in inputs), types, step.at)
    except OpError as e:
        raise fail(e.code, e.message, step.at, label=e.label, help=e.help) from None
    if node is None:
        place.result = inputs[0]
        return inputs[0]
    # While there is nothing but shapes: no memory of that size was ever asked for.
    check_size(node, types, step.at)
    place.node = name
    place.result = ex.add(node, env)
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
