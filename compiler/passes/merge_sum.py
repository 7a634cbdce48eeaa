"""Make one convolution of those that read one value and are summed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    NodeWeights,
    Replacement,
    RewriteContext,
    rewrite,
)
from tcc.compiler.ops import Add, Conv
from tcc.compiler.passes.channel_affine import rounded, scaling

Tensor = NDArray[np.float64]


@within(1e-4)
def merge_sum(model: Model) -> Model:
    """Make one convolution of those that read one value and are summed.

    One of them holds all: their windows lie in its own, their groups in its groups, and they step
    alike, so that it multiplies no more than before. What a scale or batch norm makes of the value,
    and the value itself, are convolutions by one tap. RepVGG (Ding et al., arXiv:2101.03697) and
    MobileOne are put together so for inference. Identity: within rounding; the weights are
    computed in float64 and rounded once.
    """
    return rewrite(model, _rule)


# By identity: a sum may read one value twice.
@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """What a sum reads, `value`, as a convolution of `source`; `real` if it is one."""

    value: str
    source: str
    conv: Conv
    weight: Tensor
    bias: Tensor
    real: bool


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    # What is broadcast is no branch: a gate's one number for each channel, say.
    shapes = {view.types[value].shape for value in node.inputs}
    if not isinstance(node.op, Add) or shapes != {node.type.shape} or len(node.type.shape) != 3:
        return None
    branches = [_branch(value, node, view) for value in node.inputs]
    for source in dict.fromkeys(branch.source for branch in branches):
        beside = [branch for branch in branches if branch.source == source]
        whole = max(beside, key=_reach)
        inside = [branch for branch in beside if _holds(whole.conv, branch.conv)]
        # Scales alone would gain nothing by it.
        if len(inside) > 1 and any(branch.real for branch in inside):
            rest = tuple(branch.value for branch in branches if branch not in inside)
            then = (ChainedOp(node.op, (), node.at, rest),) if rest else ()
            op = replace(whole.conv, bias=True)
            return Replacement(op, (source,), _summed(op, inside), node.at, then)
    return None


def _branch(value: str, node: Node, view: RewriteContext) -> _Branch:
    """Return what a sum reads as a convolution: of the value itself, if nothing else fits."""
    source = view.producer(value)
    if source is not None and view.graph.sole_reader(value):
        match source.op, scaling(source, view):
            case Conv() as conv, _:
                weight, *bias = (tensor.astype(np.float64) for tensor in view.values(source))
                added = bias[0] if bias else np.zeros(conv.filters)
                return _Branch(value, source.inputs[0], conv, weight, added, real=True)
            case _, (scale, shift):
                return _one_tap(value, source.inputs[0], scale, shift)
    channels = node.type.shape[0]
    return _one_tap(value, value, np.ones(channels), np.zeros(channels))


def _one_tap(value: str, source: str, scale: Tensor, shift: Tensor) -> _Branch:
    channels = scale.shape[0]
    conv = Conv(channels, (1, 1), padding=(0, 0, 0, 0), groups=channels)
    return _Branch(value, source, conv, scale.reshape(-1, 1, 1, 1), shift, real=False)


def _reach(branch: _Branch) -> tuple[int, int]:
    """Return how large a window is, and of equal ones how few groups it has."""
    height, width = branch.conv.kernel
    return height * width, -branch.conv.groups


def _holds(wide: Conv, own: Conv) -> bool:
    """Whether a convolution can do what another one does as well."""
    taps = all(place is not None for axis in (0, 1) for place in _places(wide, own, axis))
    return taps and wide.stride == own.stride and own.groups % wide.groups == 0


def _places(wide: Conv, own: Conv, axis: int) -> Iterator[int | None]:
    """Yield, for each tap along an axis, which tap of the wide window reads the same pixel."""
    # Pixel of a tap: stride * place - padding before + dilation * tap.
    for tap in range(own.kernel[axis]):
        place, between = divmod(
            wide.pads[axis] - own.pads[axis] + own.dilation[axis] * tap, wide.dilation[axis]
        )
        yield place if not between and 0 <= place < wide.kernel[axis] else None


def _summed(whole: Conv, inside: list[_Branch]) -> NodeWeights:
    """Return weight and bias of the convolution that all branches are."""
    weight = reduce(np.add, (_embedded(branch, whole) for branch in inside))
    return rounded(weight, reduce(np.add, (branch.bias for branch in inside)))


def _embedded(branch: _Branch, wide: Conv) -> Tensor:
    """Return a branch's weight as one of the wide window and of its groups."""
    own = branch.conv
    rows, columns = (_placement(wide, own, axis) for axis in (0, 1))
    weight: Tensor = np.einsum("fcij,iy,jx->fcyx", branch.weight, rows, columns)
    filters, depth = branch.weight.shape[:2]
    parts = own.groups // wide.groups
    if parts == 1:
        return weight
    # Groups within a wider group read their own channels of it, and no other.
    apart = weight.reshape(wide.groups, parts, filters // own.groups, depth, *wide.kernel)
    beside = np.einsum("gpfcyx,pq->gpfqcyx", apart, np.eye(parts))
    found: Tensor = beside.reshape(filters, parts * depth, *wide.kernel)
    return found


def _placement(wide: Conv, own: Conv, axis: int) -> Tensor:
    """Return a matrix with a 1 where a tap of one window is a tap of the other."""
    found = np.zeros((own.kernel[axis], wide.kernel[axis]))
    for tap, place in enumerate(_places(wide, own, axis)):
        assert place is not None
        found[tap, place] = 1.0
    return found
