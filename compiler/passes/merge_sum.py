"""Merge convolutions that read one value and are summed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    NodeWeights,
    Replacement,
    RewriteContext,
    rewrite,
)
from tcc.compiler.ops import Add, Conv
from tcc.compiler.passes.channel_affine import extract_channel_affine, to_float32

Tensor = NDArray[np.float64]


@bounded_pass(1e-4)
def merge_sum(model: Model) -> Model:
    """Merge convolutions that read one value and are summed.

    One of them absorbs the others: it covers their windows and groups, and all have the same
    stride, so that it needs no more multiplications than before. A scale or batch norm of the
    value, and the value itself, count as 1x1 convolutions. This merges the branches of RepVGG (Ding
    et al., arXiv:2101.03697) and MobileOne for inference. Identity: within rounding; the weights
    are computed in float64 and rounded once.
    """
    return rewrite(model, _merge_branches)


# Compared by identity: a sum may read one value twice.
@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """An input `value` of a sum, as a convolution of `source`; `is_conv` if it is one."""

    value: str
    source: str
    conv: Conv
    weight: Tensor
    bias: Tensor
    is_conv: bool


def _merge_branches(node: Node, context: RewriteContext) -> Replacement | None:
    # Broadcast inputs are not branches, such as a gate with one number per channel.
    shapes = {context.types[value].shape for value in node.inputs}
    if not isinstance(node.op, Add) or shapes != {node.type.shape} or len(node.type.shape) != 3:
        return None
    branches = [_build_branch(value, node, context) for value in node.inputs]
    for source in dict.fromkeys(branch.source for branch in branches):
        siblings = [branch for branch in branches if branch.source == source]
        widest = max(siblings, key=_measure_window)
        covered = [branch for branch in siblings if _can_embed(widest.conv, branch.conv)]
        # Merging scales alone would gain nothing.
        if len(covered) > 1 and any(branch.is_conv for branch in covered):
            other_values = tuple(branch.value for branch in branches if branch not in covered)
            chain = (ChainedOp(node.op, (), node.at, other_values),) if other_values else ()
            op = replace(widest.conv, bias=True)
            return Replacement(op, (source,), _sum_weights(op, covered), node.at, chain)
    return None


def _build_branch(value: str, node: Node, context: RewriteContext) -> _Branch:
    """Return an input of a sum as a convolution: of the value itself, if nothing else fits."""
    source = context.find_producer(value)
    if source is not None and context.graph.find_sole_reader(value):
        match source.op, extract_channel_affine(source, context):
            case Conv() as conv, _:
                weight, *bias = (
                    tensor.astype(np.float64) for tensor in context.get_weights(source)
                )
                branch_bias = bias[0] if bias else np.zeros(conv.filters)
                return _Branch(value, source.inputs[0], conv, weight, branch_bias, is_conv=True)
            case _, (scale, shift):
                return _build_pointwise_branch(value, source.inputs[0], scale, shift)
    channels = node.type.shape[0]
    return _build_pointwise_branch(value, value, np.ones(channels), np.zeros(channels))


def _build_pointwise_branch(value: str, source: str, scale: Tensor, shift: Tensor) -> _Branch:
    channels = scale.shape[0]
    conv = Conv(channels, (1, 1), padding=(0, 0, 0, 0), groups=channels)
    return _Branch(value, source, conv, scale.reshape(-1, 1, 1, 1), shift, is_conv=False)


def _measure_window(branch: _Branch) -> tuple[int, int]:
    """Return a sort key: the window's size, then the fewest groups."""
    height, width = branch.conv.kernel
    return height * width, -branch.conv.groups


def _can_embed(wide: Conv, narrow: Conv) -> bool:
    """Whether a convolution can be extended to compute another one as well."""
    are_taps_covered = all(
        wide_tap is not None for axis in (0, 1) for wide_tap in _map_taps(wide, narrow, axis)
    )
    return are_taps_covered and wide.stride == narrow.stride and narrow.groups % wide.groups == 0


def _map_taps(wide: Conv, narrow: Conv, axis: int) -> Iterator[int | None]:
    """Yield, for each tap along an axis, the tap of the wide window that reads the same pixel."""
    # Pixel of a tap: stride * position - padding before + dilation * tap.
    for tap in range(narrow.kernel[axis]):
        wide_tap, remainder = divmod(
            wide.pads[axis] - narrow.pads[axis] + narrow.dilation[axis] * tap, wide.dilation[axis]
        )
        yield wide_tap if not remainder and 0 <= wide_tap < wide.kernel[axis] else None


def _sum_weights(wide: Conv, branches: list[_Branch]) -> NodeWeights:
    """Return weight and bias of the convolution that equals all branches together."""
    weight = reduce(np.add, (_expand_weight(branch, wide) for branch in branches))
    return to_float32(weight, reduce(np.add, (branch.bias for branch in branches)))


def _expand_weight(branch: _Branch, wide: Conv) -> Tensor:
    """Return a branch's weight with the window and the groups of the wide convolution."""
    narrow = branch.conv
    rows, columns = (_build_tap_matrix(wide, narrow, axis) for axis in (0, 1))
    weight: Tensor = np.einsum("fcij,iy,jx->fcyx", branch.weight, rows, columns)
    filters, depth = branch.weight.shape[:2]
    parts = narrow.groups // wide.groups
    if parts == 1:
        return weight
    # Groups within a wider group read only their own channels of it.
    by_group = weight.reshape(wide.groups, parts, filters // narrow.groups, depth, *wide.kernel)
    block_diagonal = np.einsum("gpfcyx,pq->gpfqcyx", by_group, np.eye(parts))
    expanded: Tensor = block_diagonal.reshape(filters, parts * depth, *wide.kernel)
    return expanded


def _build_tap_matrix(wide: Conv, narrow: Conv, axis: int) -> Tensor:
    """Return a matrix with a 1 where a tap of one window is a tap of the other."""
    matrix = np.zeros((narrow.kernel[axis], wide.kernel[axis]))
    for tap, wide_tap in enumerate(_map_taps(wide, narrow, axis)):
        assert wide_tap is not None
        matrix[tap, wide_tap] = 1.0
    return matrix
