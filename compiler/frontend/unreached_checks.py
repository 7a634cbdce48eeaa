"""The checks of steps that expansion did not reach: they are expanded with nothing known."""

from tcc.compiler.frontend.argument_values import evaluated
from tcc.compiler.frontend.block_library import Block
from tcc.compiler.frontend.expansion import Expansion
from tcc.compiler.frontend.expr import UNKNOWN
from tcc.compiler.frontend.parameter_declarations import default_problems
from tcc.compiler.frontend.step_scope import ERROR_VALUE, Bindings, PathNode, StepScope
from tcc.compiler.frontend.yaml import Sequence
from tcc.compiler.support.diagnostics import UserError


def check_unreached(ex: Expansion, graph: Sequence) -> None:
    """Expand what was left, with nothing known."""
    unreached = ex.unreached
    unreached.checking = True
    _check_pending(ex, graph)
    for block in ex.blocks.values():
        problems = tuple(default_problems(block.params, unreached.budget, block.inputs))
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
            ex.sequence(steps, ERROR_VALUE, ex.unreached.unknown(env, owner))


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
    env = ex.unreached.unknown(env, block.body)
    for rule in block.require:
        that = rule.get("that")
        assert that is not None
        try:
            evaluated(that, env.scope(ERROR_VALUE))
        except UserError as error:
            ex.report(error, env)
    ex.sequence(block.body, ERROR_VALUE, env)
