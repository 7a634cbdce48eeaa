"""Meaning of the keyword of a step: a control step, a join, a block or an op."""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.compiler.frontend.argument_values import bind_arguments, evaluate_argument, evaluate_tree
from tcc.compiler.frontend.block_library import JOIN_NAMES, OPS_BY_NAME, Block
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
from tcc.compiler.frontend.warnings.step_warnings import find_op_warnings
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import Kind, Parameter, list_parameters
from tcc.compiler.ir.graph import make_node
from tcc.compiler.ir.op import Op, OpError
from tcc.compiler.support.diagnostics import Span, UserError, fail, join_names

Control = Callable[[Expansion, Step, GraphValue, StepScope], tuple[GraphValue, StepScope]]

# No network repeats a layer ten thousand times; a larger count is a typing error.
TIMES = Parameter("times", Kind.INT, low=0, high=10_000)
NAME_COST = 20
"""Cost of binding a name, in entries of lists."""
CONDITION = Parameter("if", Kind.BOOL)
ELEMENTS = Parameter("of", Kind.LIST)


def _get_part(step: Step, key: str) -> Tree | None:
    return step.args.get(key) if isinstance(step.args, MappingTree) else None


def _evaluate_part(
    ex: Expansion, step: Step, p: Parameter, current: GraphValue, env: StepScope
) -> Any:
    tree = _get_part(step, p.name)
    assert tree is not None
    value = evaluate_argument(p, tree, env.create_expression_scope(current))
    # Unreached steps are checked once, whatever their loops and conditions are.
    return UNKNOWN if ex.unreached.is_checking else value


def expand_repeat(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`repeat: {times, body}`; each iteration is a part of the path, such as `repeat_1`."""
    times = _evaluate_part(ex, step, TIMES, current, env)
    body = _get_part(step, "body")
    assert isinstance(body, Sequence)
    if isinstance(times, Unknown):
        return ERROR_VALUE, _skip_unknown_loop(ex, step, env)
    # An unreached body is checked too, because other settings may reach it.
    if not times:
        ex.unreached.add(body, env, in_loop=True)
    base, at = (str(step.id.value), step.id.span) if step.id else (step.keyword, step.at)
    outputs, bound = [], env.select_carried_names(ex.find_bound_names(body))
    for index in range(times):
        path_node = env.path_node.add_child(base, at, numbered=True)
        inner = env.enter_iteration("repeat", index, times, path_node, {})
        current, inner = ex.expand_sequence(body, current, inner)
        path_node.output = current
        outputs.append(current)
        env = env.merge_iteration(inner, bound)
    return current, _bind_collected(step, outputs, env)


def expand_each(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`each: {of, as, body}`; iterations are a part of the path only if the step has an id."""
    loop_values = _evaluate_part(ex, step, ELEMENTS, current, env)
    name, body = _get_part(step, "as"), _get_part(step, "body")
    assert isinstance(name, Scalar)
    assert isinstance(body, Sequence)
    check_bindable(str(name.value), name.span)
    if isinstance(loop_values, Unknown):
        return ERROR_VALUE, _skip_unknown_loop(ex, step, env, str(name.value))
    if not loop_values:
        ex.unreached.add(body, env, str(name.value), in_loop=True)
    outputs, bound = [], env.select_carried_names(ex.find_bound_names(body), str(name.value))
    for index, loop_value in enumerate(loop_values):
        path_node = env.path_node
        if step.id:
            path_node = path_node.add_child(str(step.id.value), step.id.span, numbered=True)
        inner = env.enter_iteration(
            "each", index, len(loop_values), path_node, {str(name.value): loop_value}
        )
        current, inner = ex.expand_sequence(body, current, inner)
        if step.id:
            inner.path_node.output = current
        outputs.append(current)
        env = env.merge_iteration(inner, bound)
    return current, _bind_collected(step, outputs, env)


def _bind_collected(step: Step, outputs: list[GraphValue], env: StepScope) -> StepScope:
    """Bind the list of the results of a loop's iterations to the name in `collect`, if any."""
    name = _get_part(step, "collect")
    return env.name_value(str(name.value), tuple(outputs)) if isinstance(name, Scalar) else env


def _skip_unknown_loop(ex: Expansion, step: Step, env: StepScope, *loop_names: str) -> StepScope:
    """Return the scope after a loop with an unknown number of iterations."""
    body = _get_part(step, "body")
    assert body is not None
    ex.unreached.add(body, env, *loop_names, in_loop=True)
    value_names, names = ex.find_bound_names(body)
    # `collect` binds its name in any case. Of the names of the body, only those bound before the
    # loop are visible after it.
    collected_names, _ = ex.find_bound_names(step.tree)
    return env.hide_names(
        collected_names | value_names & env.values.keys(), names & env.names.keys()
    )


def expand_when(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`when: {if, then, else}`; the chosen steps replace the `when`."""
    condition = _evaluate_part(ex, step, CONDITION, current, env)
    if condition is not True:
        ex.unreached.add(_get_part(step, "then"), env)
    if condition is not False:
        ex.unreached.add(_get_part(step, "else"), env)
    # Either branch may bind its names, so later steps must not report them as missing.
    if isinstance(condition, Unknown):
        return ERROR_VALUE, env.hide_names(*ex.find_bound_names(step.tree))
    steps = _get_part(step, "then" if condition else "else")
    if not isinstance(steps, Sequence):
        return current, env
    current, inner = ex.expand_sequence(steps, current, env.replace_fields(depth=env.depth + 1))
    return current, inner.replace_fields(depth=env.depth)


def expand_seq(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`seq: [...]`; steps with their own names; a part of the path if it has an id."""
    assert isinstance(step.args, Sequence)
    inner = env.replace_fields(depth=env.depth + 1)
    if step.id:
        inner = inner.enter_path(
            env.path_node.add_child(str(step.id.value), step.id.span, fixed=True)
        )
    current, _ = ex.expand_sequence(step.args, current, inner)
    if step.id:
        inner.path_node.output = current
    return current, env


def expand_let(
    _: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`let: {name: expression}`; names for the rest of the sequence; each sees earlier ones."""
    assert isinstance(step.args, MappingTree)
    env.use_budget(NAME_COST * len(step.args.items), step.at)
    new: dict[str, Any] = {}
    scope = env.create_expression_scope(current, new)
    for key, tree in step.args.items:
        name = str(key.value)
        check_bindable(name, key.span)
        new[name] = evaluate_tree(tree, scope)
    return current, env.bind(new)


def expand_side(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """`side: {as, body}`; a named value that does not change the current value."""
    name, body = _get_part(step, "as"), _get_part(step, "body")
    assert isinstance(name, Scalar)
    assert isinstance(body, Sequence)
    inner = env.replace_fields(depth=env.depth + 1)
    if step.id:
        inner = inner.enter_path(
            env.path_node.add_child(str(step.id.value), step.id.span, fixed=True)
        )
    graph_value, _ = ex.expand_sequence(body, current, inner)
    return current, ex.name_value(name, graph_value, env)


CONTROLS: Mapping[str, Control] = {
    "repeat": expand_repeat,
    "each": expand_each,
    "when": expand_when,
    "seq": expand_seq,
    "let": expand_let,
    "side": expand_side,
}


def expand_call(
    ex: Expansion, step: Step, block: Block, inputs: tuple[GraphValue, ...], env: StepScope
) -> GraphValue:
    """Expand the body of a block in its own scope."""
    # All recursion is refused, even with an end condition: loops have a bounded count.
    if block.name in env.calls:
        cycle = " -> ".join((*env.calls[env.calls.index(block.name) :], block.name))
        help = "repeat steps with `repeat` or `each`"
        ex.report(fail("E0403", "a block calls itself", step.at, label=cycle, help=help), env)
    # In unreached steps, the length of a list is unknown.
    if not (ex.unreached.is_checking and step.sources and len(inputs) < len(block.inputs)):
        _check_inputs(step, block, len(inputs))
    call_site = f"{step.at}" + (f" ({env.loop})" if env.loop else "")
    inner = env.replace_fields(
        # Names of inner steps contain the call, so each call has its own weights.
        path_node=add_path_node(step, env),
        # A block only sees its arguments and inputs, so its meaning does not depend on the caller.
        names=Bindings(),
        values=Bindings(dict(zip(block.inputs, inputs, strict=False))),
        chain=(f"in block `{block.name}` called from {call_site}", *env.chain),
        calls=(*env.calls, block.name),
        loop="",
        depth=env.depth + 1,
    )
    # Blocks without steps, called in loops, add no nodes but take time.
    env.use_budget(NAME_COST * (len(block.params) + len(block.require)), step.at)
    names, problems = bind_arguments(
        block.params,
        step.args,
        env.create_expression_scope(inputs[0]),
        lambda bound: inner.replace_fields(names=Bindings(bound)).create_expression_scope(
            inputs[0]
        ),
    )
    if problems:
        ex.report(UserError(tuple(problems)), env)
    inner = inner.replace_fields(names=Bindings(names))
    _check_requirements(block, inputs[0], inner, step.at)
    # The steps of an unreached block are checked once for all its calls.
    if ex.unreached.is_checking:
        check_block(ex, block, (*env.calls, block.name))
        return ERROR_VALUE
    ex.unreached.called_blocks.add(block.name)
    output, _ = ex.expand_sequence(block.body, inputs[0], inner)
    inner.path_node.output = output
    return output


def _check_inputs(step: Step, block: Block, actual_count: int) -> None:
    expected_count = max(1, len(block.inputs))
    if actual_count != expected_count:
        names = ", ".join(block.inputs) or "one value"
        raise fail(
            "E0218",
            f"`{block.name}` takes {expected_count} value{'s' * (expected_count > 1)} ({names})",
            step.at,
            label=f"it gets {actual_count}",
            help=f"write `from: [{names}]`" if expected_count > 1 else "",
        )


def _check_requirements(block: Block, current: GraphValue, inner: StepScope, at: Span) -> None:
    """Check the `require` conditions of a block; a failed one is reported at the call."""
    scope = inner.create_expression_scope(current)
    for rule in block.require:
        that, message = rule.get("that"), rule.get("else")
        assert that is not None
        condition = evaluate_tree(that, scope)
        if condition is True:
            continue
        if condition is False:
            reason = message.value if isinstance(message, Scalar) else "its `require` is not met"
            text = that.value if isinstance(that, Scalar) else ""
            arguments = join_names([f"{k} = {_format_briefly(v)}" for k, v in inner.names.items()])
            raise fail(
                "E0219",
                f"`{block.name}` cannot be used like this: {reason}",
                at,
                label=f"`{text}` is false" + (f" ({arguments})" if arguments else ""),
                help=f"choose arguments for which `{text}` is true" if text else "",
            )
        if not isinstance(condition, Unknown):
            raise fail("E0213", "a condition in `require` must be true or false", that.span)


def _format_briefly(value: Any) -> str:
    return "?" if value is UNKNOWN else str(list(value) if isinstance(value, tuple) else value)[:40]


def add_path_node(step: Step, env: StepScope) -> PathNode:
    """Add and return the path node of a step."""
    if step.id is not None:
        return env.path_node.add_child(str(step.id.value), step.id.span, fixed=True)
    return env.path_node.add_child(step.keyword, step.at)


def expand_branches(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """Return the values that a join takes, from a list of branches or a computed one."""
    match step.args:
        case Sequence(items=items):
            graph_values = tuple(
                v for b in items for v in _expand_branch(ex, step.keyword, b, current, env)
            )
            return graph_values or _reject_no_branch(step.keyword, step.at)
        case MappingTree():
            return _expand_computed_branches(ex, step, step.args, current, env)
        case _:
            message = f"`{step.keyword}` needs a list of branches"
            help = f"write `{step.keyword}: [[], earlier]`, where `[]` is the current value"
            raise fail("E0204", message, step.at, help=help)


def _reject_no_branch(join_name: str, at: Span) -> tuple[GraphValue, ...]:
    raise fail(
        "E0230",
        f"`{join_name}` has no branch",
        at,
        label="the number of branches is 0",
        help="add a branch, or skip this step with `when`",
    )


def _expand_branch(
    ex: Expansion, join_name: str, tree: Tree, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """Return the value of a branch, or the values of the list that it names."""
    if isinstance(tree, Scalar):
        # A bare word in a list of branches is the name of a value; an op needs brackets.
        if str(tree.value) not in env.values and (
            tree.value in ex.blocks or tree.value in OPS_BY_NAME
        ):
            raise fail(
                "E0217",
                f"no value is called `{tree.value}`",
                tree.span,
                help=f"to apply the op in a branch of `{join_name}`, write [{tree.value}]",
            )
        return lookup(tree, current, env)
    assert isinstance(tree, Sequence)
    graph_value, _ = ex.expand_sequence(tree, current, env.replace_fields(depth=env.depth + 1))
    return (graph_value,)


def _expand_computed_branches(
    ex: Expansion, step: Step, args: MappingTree, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """`{times: n, branch: [...]}` or `{of: list, as: x, branch: [...]}`."""
    times, of, name = args.get("times"), args.get("of"), args.get("as")
    steps = args.get("branch")
    assert isinstance(steps, Sequence)
    if of is not None and not isinstance(name, Scalar):
        raise fail(
            "E0215", f"`{step.keyword}` with `of` needs `as`", step.at, help="add `as: name`"
        )
    parameter, tree = (TIMES, times) if times is not None else (ELEMENTS, of)
    if tree is None or (times is not None and of is not None):
        raise fail("E0205", f"`{step.keyword}` needs either `times` or `of` with `branch`", step.at)
    if isinstance(name, Scalar):
        check_bindable(str(name.value), name.span)
    argument = evaluate_argument(parameter, tree, env.create_expression_scope(current))
    # The number of branches is unknown: check the steps once, for errors that any number would
    # have.
    if isinstance(argument, Unknown) or ex.unreached.is_checking:
        loop_names = (str(name.value),) if isinstance(name, Scalar) else ()
        ex.unreached.add(steps, env, *loop_names, in_loop=True)
        return (ERROR_VALUE,)
    loop_values = range(argument) if parameter is TIMES else argument
    if not loop_values:
        return _reject_no_branch(step.keyword, step.at)
    branch_outputs = []
    # Each branch starts from the current value and has its own names and path.
    for index, loop_value in enumerate(loop_values):
        own_name = {str(name.value): loop_value} if isinstance(name, Scalar) else {}
        inner = env.enter_iteration("branch", index, len(loop_values), env.path_node, own_name)
        branch_outputs.append(ex.expand_sequence(steps, current, inner)[0])
    return tuple(branch_outputs)


def dispatch_step(
    ex: Expansion, step: Step, current: GraphValue, env: StepScope
) -> tuple[GraphValue, StepScope]:
    """Expand one step according to its keyword; return its value and the scope after it.

    Raises:
        UserError: The step has an error.
    """
    inputs = _lookup_sources(step, current, env)
    # Only blocks take several values and arguments; joins take several only from `from`.
    if len(inputs) > 1 and step.args is not None and step.keyword not in ex.blocks:
        raise _create_arity_error(step, len(inputs))
    if step.keyword in CONTROLS:
        return CONTROLS[step.keyword](ex, step, inputs[0], env)
    if step.keyword in JOIN_NAMES:
        joined_values = inputs if step.args is None else expand_branches(ex, step, inputs[0], env)
        return _emit_node(ex, step, OPS_BY_NAME[step.keyword](), joined_values, env), env
    if step.keyword in ex.blocks:
        return expand_call(ex, step, ex.blocks[step.keyword], inputs, env), env
    bound, problems = bind_arguments(
        list_parameters(OPS_BY_NAME[step.keyword]),
        step.args,
        env.create_expression_scope(inputs[0]),
        lambda _: env.create_expression_scope(current),
    )
    if problems:
        raise UserError(tuple(problems))
    # The argument depends on an error that is already reported.
    if any(isinstance(v, Unknown) for v in bound.values()):
        return ERROR_VALUE, env
    return _emit_node(ex, step, OPS_BY_NAME[step.keyword](**bound), inputs, env), env


def _lookup_sources(step: Step, current: GraphValue, env: StepScope) -> tuple[GraphValue, ...]:
    """Return the values that a step reads: those of `from:`, or the current one."""
    if not step.sources:
        return (current,)
    graph_values = tuple(v for name in step.sources for v in lookup(name, current, env))
    if not graph_values:
        at = step.sources[0].span
        raise fail(
            "E0230",
            f"`{step.keyword}` reads no value",
            at,
            label="this list of values is empty",
            help="name at least one value in `from`",
        )
    return graph_values


def _emit_node(
    ex: Expansion, step: Step, op: Op, inputs: tuple[GraphValue, ...], env: StepScope
) -> GraphValue:
    """Add the node of an op; return its value, or its input if the op is the identity."""
    path_node = add_path_node(step, env)
    # `from` can name thousands of values in a short text.
    env.use_budget(NAME_COST * len(inputs), step.at)
    min_inputs, max_inputs = op.arity
    if len(inputs) < min_inputs or (max_inputs is not None and len(inputs) > max_inputs):
        raise _create_arity_error(step, len(inputs))
    types = tuple(v.type for v in inputs if v.type is not None)
    if len(types) < len(inputs):
        return ERROR_VALUE
    # Provisional: the path depends on all siblings. Names in a spec never contain `%`.
    name = f"%{len(ex.nodes)}"
    for warning in find_op_warnings(op, types, step.at):
        ex.warnings.setdefault((warning.code, warning.at), warning)
    try:
        node = make_node(name, op, tuple(v.name for v in inputs), types, step.at)
    except OpError as e:
        raise fail(e.code, e.message, step.at, label=e.label, help=e.help) from None
    if node is None:
        path_node.output = inputs[0]
        return inputs[0]
    # Only shapes exist at this point, so no memory of that size was allocated.
    check_size(node, types, step.at)
    path_node.node = name
    path_node.output = ex.add_node(node, env)
    return path_node.output


def _create_arity_error(step: Step, actual_count: int) -> UserError:
    help = "join them first with `concat`, `add` or `mul`"
    if step.keyword in JOIN_NAMES:
        help = f"remove the branches to {step.keyword} the values of `from`"
    return fail(
        "E0218",
        f"`{step.keyword}` takes one value",
        step.at,
        label=f"`from` names {actual_count}",
        help=help,
    )
