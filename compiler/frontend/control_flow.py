"""Loops, conditions and the other steps that leave no node of their own."""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.compiler.frontend.argument_values import evaluated, value_of
from tcc.compiler.frontend.expansion import Expansion
from tcc.compiler.frontend.expr import UNKNOWN, Unknown
from tcc.compiler.frontend.parameter_declarations import check_bindable
from tcc.compiler.frontend.step_scope import ERROR_VALUE, GraphValue, StepScope
from tcc.compiler.frontend.step_syntax import Step
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import Kind, Parameter

Control = Callable[[Expansion, Step, GraphValue, StepScope], tuple[GraphValue, StepScope]]

# Ten thousand turns of one layer are far beyond any network; more is a slip of the keyboard.
TIMES = Parameter("times", Kind.INT, low=0, high=10_000)
COST_OF_NAME = 20
"""What it costs to bind a name, measured in entries of lists."""
CONDITION = Parameter("if", Kind.BOOL)
LISTED = Parameter("of", Kind.LIST)


def _part(step: Step, key: str) -> Tree | None:
    return step.args.get(key) if isinstance(step.args, MappingTree) else None


def _argument(ex: Expansion, step: Step, p: Parameter, current: GraphValue, env: StepScope) -> Any:
    tree = _part(step, p.name)
    assert tree is not None
    value = value_of(p, tree, env.scope(current))
    # Steps that nothing reaches are looked over once, whatever their loops and conditions say.
    return UNKNOWN if ex.unreached.checking else value


def repeat(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`repeat: {times, body}`: each turn is a part of the path, `repeat_1` and so on."""
    times = _argument(ex, step, TIMES, current, env)
    body = _part(step, "body")
    assert isinstance(body, Sequence)
    if isinstance(times, Unknown):
        return ERROR_VALUE, _any_turns(ex, step, env)
    # A body that no turn reaches is checked all the same: a slip in it should not wait for other
    # settings.
    if not times:
        ex.unreached.add(body, env, turn=True)
    base, at = (str(step.id.value), step.id.span) if step.id else (step.word, step.at)
    ends, bound = [], env.carried(ex.bound_by(body))
    for index in range(times):
        place = env.place.child(base, at, numbered=True)
        turn = env.iteration("repeat", index, times, place, {})
        current, turn = ex.sequence(body, current, turn)
        place.result = current
        ends.append(current)
        env = env.carry(turn, bound)
    return current, _collected(step, ends, env)


def each(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`each: {of, as, body}`: no part of the path unless it has an id."""
    values = _argument(ex, step, LISTED, current, env)
    name, body = _part(step, "as"), _part(step, "body")
    assert isinstance(name, Scalar)
    assert isinstance(body, Sequence)
    check_bindable(str(name.value), name.span)
    if isinstance(values, Unknown):
        return ERROR_VALUE, _any_turns(ex, step, env, str(name.value))
    if not values:
        ex.unreached.add(body, env, str(name.value), turn=True)
    ends, bound = [], env.carried(ex.bound_by(body), str(name.value))
    for index, value in enumerate(values):
        place = env.place
        if step.id:
            place = place.child(str(step.id.value), step.id.span, numbered=True)
        turn = env.iteration("each", index, len(values), place, {str(name.value): value})
        current, turn = ex.sequence(body, current, turn)
        if step.id:
            turn.place.result = current
        ends.append(current)
        env = env.carry(turn, bound)
    return current, _collected(step, ends, env)


def _collected(step: Step, ends: list[GraphValue], env: StepScope) -> StepScope:
    """Name the list of what the turns of a loop ended with, if it has a name."""
    name = _part(step, "collect")
    return env.name_value(str(name.value), tuple(ends)) if isinstance(name, Scalar) else env


def _any_turns(ex: Expansion, step: Step, env: StepScope, *own: str) -> StepScope:
    """Return the scope after a loop of which nobody knows how often it turns."""
    body = _part(step, "body")
    assert body is not None
    ex.unreached.add(body, env, *own, turn=True)
    values, names = ex.bound_by(body)
    # `collect` names its list whatever turns there are; of the body's names only those in scope
    # before it are carried out.
    listed, _ = ex.bound_by(step.tree)
    return env.hidden(listed | values & env.values.keys(), names & env.names.keys())


def when(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`when: {if, then, else}`: the chosen steps stand where the `when` stands."""
    holds = _argument(ex, step, CONDITION, current, env)
    if holds is not True:
        ex.unreached.add(_part(step, "then"), env)
    if holds is not False:
        ex.unreached.add(_part(step, "else"), env)
    # Either side may have bound its names: nothing below is told that they are missing.
    if isinstance(holds, Unknown):
        return ERROR_VALUE, env.hidden(*ex.bound_by(step.tree))
    steps = _part(step, "then" if holds else "else")
    if not isinstance(steps, Sequence):
        return current, env
    current, inner = ex.sequence(steps, current, env.but(depth=env.depth + 1))
    return current, inner.but(depth=env.depth)


def seq(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`seq: [...]`: steps with names of their own; a part of the path if it has an id."""
    assert isinstance(step.args, Sequence)
    inner = env.but(depth=env.depth + 1)
    if step.id:
        inner = inner.at(env.place.child(str(step.id.value), step.id.span, fixed=True))
    current, _ = ex.sequence(step.args, current, inner)
    if step.id:
        inner.place.result = current
    return current, env


def let(
    _: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`let: {name: expression}`: names for the rest of the sequence; each sees those before it."""
    assert isinstance(step.args, MappingTree)
    env.spend(COST_OF_NAME * len(step.args.items), step.at)
    new: dict[str, Any] = {}
    scope = env.scope(current, new)
    for key, tree in step.args.items:
        name = str(key.value)
        check_bindable(name, key.span)
        new[name] = evaluated(tree, scope)
    return current, env.bind(new)


def side(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`side: {as, body}`: a named value beside the main line."""
    name, body = _part(step, "as"), _part(step, "body")
    assert isinstance(name, Scalar)
    assert isinstance(body, Sequence)
    inner = env.but(depth=env.depth + 1)
    if step.id:
        inner = inner.at(env.place.child(str(step.id.value), step.id.span, fixed=True))
    value, _ = ex.sequence(body, current, inner)
    return current, ex.name(name, value, env)


CONTROLS: Mapping[str, Control] = {
    "repeat": repeat,
    "each": each,
    "when": when,
    "seq": seq,
    "let": let,
    "side": side,
}
