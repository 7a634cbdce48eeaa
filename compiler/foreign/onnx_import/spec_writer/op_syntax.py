"""An op as a person writes it: its word, and the arguments that are no defaults."""

from dataclasses import replace
from typing import Any

from tcc.compiler.ir.argument_declarations import Kind, signature
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Conv, DepthwiseConv, Op, Slice
from tcc.compiler.ops.pool import Pool

Arguments = dict[str, Any]


def written(op: Op, *inputs: TensorType) -> tuple[str, Arguments]:
    """Return the word and arguments that stand for an op on inputs of given types."""
    plain = _plain(op, *inputs)
    arguments: Arguments = {}
    for parameter in signature(type(plain)):
        value = getattr(plain, parameter.name)
        if parameter.kind in (Kind.PAIR, Kind.PADDING):
            value, default = _brief(value), _brief(parameter.default)
        else:
            default = parameter.default
        if value != default:
            arguments[parameter.name] = value
    return plain.word, arguments


def _plain(op: Op, *inputs: TensorType) -> Op:
    """Return an op in the form with the fewest arguments."""
    match op:
        case Conv(groups=groups) if groups > 1 and groups == inputs[0].shape[0]:
            # As many groups as channels has a word of its own in the language.
            return DepthwiseConv(
                op.kernel, op.stride, op.padding, op.dilation, op.bias, op.filters // groups
            )
        case Pool() if op.stride == op.kernel:
            # Windows side by side are what a pool does when no stride is said.
            return replace(op, stride=None)
        case Slice(stop=stop) if stop == inputs[0].shape[0]:
            return replace(op, stop=None)
    return op


def _brief(value: Any) -> Any:
    """Return sizes as few numbers: 1 for (1, 1) and (1, 1, 1, 1)."""
    match value:
        case (int(a), *rest) if all(n == a for n in rest):
            return a
        case (a, b, c, d) if (a, b) == (c, d):
            return [a, b]
        case tuple():
            return list(value)
    return value
