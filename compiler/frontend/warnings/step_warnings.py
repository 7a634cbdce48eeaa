"""Warnings about single steps without effect, or with less effect than it seems."""

from collections.abc import Callable, Iterator

from tcc.compiler.frontend.block_library import JOIN_NAMES
from tcc.compiler.frontend.step_syntax import Step
from tcc.compiler.frontend.warnings.warning_kinds import create_warning
from tcc.compiler.frontend.yaml import Mapping, Scalar, Sequence, Tree
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Op, Slice
from tcc.compiler.support.diagnostics import Diagnostic, Span

IsList = Callable[[Scalar], bool]
_NEUTRAL_ARGUMENTS = {
    ("dropout", "rate"): 0,
    ("stochastic_depth", "rate"): 0,
    ("channel_shuffle", "groups"): 1,
    ("pad", "padding"): 0,
    ("resize", "scale"): 1,
}
"""Arguments that make an op return its input."""


def find_step_warnings(step: Step, is_list: IsList) -> Iterator[Diagnostic]:
    """Yield warnings about the text of a step."""
    if step.keyword in JOIN_NAMES:
        yield from _check_join(step, is_list)
    elif isinstance(step.args, Mapping):
        yield from _check_constants(step, step.args)
    elif step.keyword == "seq" and isinstance(step.args, Sequence) and not step.args.items:
        yield _create_no_effect_warning("`seq` has no steps", step.at)


def _check_join(step: Step, is_list: IsList) -> Iterator[Diagnostic]:
    branches: tuple[Tree, ...] = step.sources
    if isinstance(step.args, Sequence):
        branches = step.args.items
    elif isinstance(step.args, Mapping):
        times = step.args.get("times")
        branches = (times,) if isinstance(times, Scalar) and times.value == 1 else ()
    match branches:
        case (Scalar(value=str()) as name,) if is_list(name):
            return
        case (_,):
            message = f"`{step.keyword}` has one branch, so it has no effect"
            help = "write `[]` for the current value, or the name of an earlier value"
            yield create_warning("single-branch", message, step.at, help=help)
        case _:
            pass


def _check_constants(step: Step, args: Mapping) -> Iterator[Diagnostic]:
    """Yield warnings about constant loops and conditions, and about neutral arguments."""
    times, condition, body = args.get("times"), args.get("if"), args.get("body")
    if step.keyword == "repeat" and isinstance(times, Scalar) and times.value == 0:
        yield _create_no_effect_warning("this loop has no iterations", times.span)
    of = args.get("of")
    if step.keyword == "each" and isinstance(of, Sequence) and not of.items:
        yield _create_no_effect_warning("this loop has no iterations", of.span)
    if step.keyword in ("repeat", "each") and isinstance(body, Sequence) and not body.items:
        yield _create_no_effect_warning("the body of this loop is empty", body.span)
    if step.keyword == "when" and isinstance(condition, Scalar):
        yield from _check_condition(args, condition)
    for name, argument in args.items:
        neutral = _NEUTRAL_ARGUMENTS.get((step.keyword, str(name.value)))
        literal = argument.value if isinstance(argument, Scalar) else None
        if neutral is not None and not isinstance(literal, bool) and literal == neutral:
            yield _create_no_effect_warning(
                f"`{step.keyword}` with this `{name.value}` does nothing", argument.span
            )


def _check_condition(args: Mapping, condition: Scalar) -> Iterator[Diagnostic]:
    if condition.value in (True, False, "true", "false"):
        yield _create_no_effect_warning(
            f"this condition is always {str(condition.value).lower()}", condition.span
        )
    branches = [args.get(branch) for branch in ("then", "else")]
    if not any(isinstance(branch, Sequence) and branch.items for branch in branches):
        yield _create_no_effect_warning("neither `then` nor `else` has steps", condition.span)


def _create_no_effect_warning(message: str, at: Span) -> Diagnostic:
    return create_warning("no-effect", message, at, help="remove it, or fix the value")


def find_op_warnings(op: Op, types: tuple[TensorType, ...], at: Span) -> Iterator[Diagnostic]:
    """Yield warnings about the arguments of an op for the types of its inputs."""
    if not isinstance(op, Slice):
        return
    channels = types[0].shape[0]
    for name, bound in (("start", op.start), ("stop", op.stop)):
        if bound is not None and not -channels <= bound <= channels:
            message = f"`slice` selects fewer channels than it states: `{name}` is {bound}"
            label = f"the input has {channels} channels"
            help = f"bounds are at most {channels}; without `stop` it goes to the last channel"
            yield create_warning("slice-beyond-end", message, at, label=label, help=help)
