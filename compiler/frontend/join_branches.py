"""The branches of `concat`, `add` and `mul`."""

from tcc.compiler.frontend.argument_values import value_of
from tcc.compiler.frontend.block_library import WORDS
from tcc.compiler.frontend.control_flow import LISTED, TIMES
from tcc.compiler.frontend.expansion import Expansion
from tcc.compiler.frontend.expr import Unknown
from tcc.compiler.frontend.parameter_declarations import check_bindable
from tcc.compiler.frontend.step_scope import ERROR_VALUE, GraphValue, StepScope, lookup
from tcc.compiler.frontend.step_syntax import Step
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.support.diagnostics import Span, fail


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
