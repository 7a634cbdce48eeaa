"""What a step's word means: a control step, a join, a block, or an op, of which a node is made."""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.compiler.frontend.argument_values import bind, evaluated, value_of
from tcc.compiler.frontend.block_library import JOIN_WORDS, WORDS, Block
from tcc.compiler.frontend.expansion import Expansion, check_block
from tcc.compiler.frontend.expr import UNKNOWN, Unknown
from tcc.compiler.frontend.expr.operators import GraphValue
from tcc.compiler.frontend.parameter_declarations import check_bindable
from tcc.compiler.frontend.size_limits import check_size
from tcc.compiler.frontend.step_scope import (
    ERROR_VALUE,
    Bindings,
    PathNode,
    StepScope,
    lookup,
)
from tcc.compiler.frontend.step_syntax import Step
from tcc.compiler.frontend.warnings.step_warnings import doubtful_op
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import Kind, Parameter, signature
from tcc.compiler.ir.graph import make_node
from tcc.compiler.ir.op import Op, OpError
from tcc.compiler.support.diagnostics import Span, UserError, fail, listed

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


def branches(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """Return the values that a join joins: written one by one, or computed."""
    match step.args:
        case Sequence(items=items):
            found = tuple(v for b in items for v in _branch(ex, step.word, b, current, env))
            return found or _none(step.word, step.at)
        case MappingTree():
            return _computed(ex, step, step.args, current, env)
        case _:
            raise fail("E0204", f"`{step.word}` needs a list of branches", step.at)


def _none(word: str, at: Span) -> tuple[GraphValue, ...]:
    raise fail("E0230", f"`{word}` has no branch", at, label="the count is 0")


def _branch(
    ex: Expansion, word: str, tree: Tree, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """Return the value of a branch, or those of a list that is named in its place."""
    if isinstance(tree, Scalar):
        # In a list of branches a bare word names a value; whoever means an op by it is told the
        # brackets.
        if str(tree.value) not in env.values and (tree.value in ex.blocks or tree.value in WORDS):
            raise fail(
                "E0217",
                f"no value is called `{tree.value}`",
                tree.span,
                help=f"to apply the op in a branch of `{word}`, write [{tree.value}]",
            )
        return lookup(tree, current, env)
    assert isinstance(tree, Sequence)
    value, _ = ex.sequence(tree, current, env.but(depth=env.depth + 1))
    return (value,)


def _computed(
    ex: Expansion, step: Step, args: MappingTree, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """`{times: n, branch: [...]}` or `{of: list, as: x, branch: [...]}`."""
    times, of, name = args.get("times"), args.get("of"), args.get("as")
    steps = args.get("branch")
    assert isinstance(steps, Sequence)
    if of is not None and not isinstance(name, Scalar):
        raise fail("E0215", f"`{step.word}` with `of` needs `as`", step.at, help="add `as: name`")
    parameter, tree = (TIMES, times) if times is not None else (LISTED, of)
    if tree is None or (times is not None and of is not None):
        raise fail("E0205", f"`{step.word}` needs either `times` or `of` with `branch`", step.at)
    if isinstance(name, Scalar):
        check_bindable(str(name.value), name.span)
    given = value_of(parameter, tree, env.scope(current))
    # How many branches there are is not known: the steps of one are looked through once, for
    # mistakes that no count would mend.
    if isinstance(given, Unknown) or ex.unreached.checking:
        own = (str(name.value),) if isinstance(name, Scalar) else ()
        ex.unreached.add(steps, env, *own, turn=True)
        return (ERROR_VALUE,)
    values = range(given) if parameter is TIMES else given
    if not values:
        return _none(step.word, step.at)
    results = []
    # Each branch starts from the current value, with a place and names of its own.
    for index, value in enumerate(values):
        own_name = {str(name.value): value} if isinstance(name, Scalar) else {}
        inner = env.iteration("branch", index, len(values), env.place, own_name)
        results.append(ex.sequence(steps, current, inner)[0])
    return tuple(results)


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
