"""Make one layer of two in a row, where that takes no more work."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import NodeWeights, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, Linear, ScaleShift
from tcc.compiler.passes.channel_affine import ahead, rounded, scaling

Tensors = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The weight and the bias of a layer."""


@within(1e-4)
def merge_linear(model: Model) -> Model:
    """Make one layer of two in a row, where that multiplies no more.

    Two linear layers, two scales, or two convolutions of which one has a 1x1 window and both or
    the other are not grouped. Only where the result multiplies no more than both did. Identity:
    within rounding; the weights are computed in float64 and rounded once.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    source = view.source(node)
    found = _joined(source, node, view) if source else None
    if source is None or found is None:
        return None
    before, between = view.types[source.inputs[0]], view.types[source.name]
    # Two narrow layers are often one wide layer taken apart so that it multiplies less, as in
    # bottlenecks and separable convolutions: put together again they would cost more.
    apart = source.op.macs(before) + node.op.macs(between)
    return found if found.op.macs(before) <= apart else None


def _joined(source: Node, node: Node, view: RewriteContext) -> Replacement | None:
    match source.op, node.op:
        case Linear(), Linear() as linear:
            weight, bias = _chained(_tensors(source, view), _tensors(node, view))
            return _merged(replace(linear, bias=True), source, rounded(weight, bias), node)
        case Conv() as one, Conv() as two:
            found = _behind(one, two, source, node, view) if _pointwise(two) else None
            # A stride in the first would put gaps between the taps of the second.
            if found is None and _pointwise(one) and one.stride == (1, 1):
                return _before(one, two, source, node, view)
            return found
    return _scales(source, node, view)


def _merged(
    op: Conv | Linear | ScaleShift, source: Node, tensors: NodeWeights, node: Node
) -> Replacement:
    return Replacement(op, source.inputs, tensors, node.at)


def _scales(source: Node, node: Node, view: RewriteContext) -> Replacement | None:
    inner, outer = scaling(source, view), scaling(node, view)
    if inner is None or outer is None:
        return None
    shape = (-1, *(1 for _ in node.type.shape[1:]))
    both = rounded(inner[0] * outer[0], inner[1] * outer[0] + outer[1])
    return _merged(ScaleShift(), source, tuple(v.reshape(shape) for v in both), node)


def _behind(
    one: Conv, two: Conv, source: Node, node: Node, view: RewriteContext
) -> Replacement | None:
    """Return a convolution that does what a 1x1 one behind it did as well."""
    strides = (one.stride[0] * two.stride[0], one.stride[1] * two.stride[1])
    op = replace(one, filters=two.filters, stride=strides, bias=True)
    first, (weight, bias) = _tensors(source, view), _tensors(node, view)
    if two.groups == two.filters == one.filters:
        factors = weight.reshape(-1)
        both = (first[0] * factors.reshape(-1, 1, 1, 1), first[1] * factors + bias)
    elif one.groups == two.groups == 1:
        both = _chained(first, (weight[:, :, 0, 0], bias))
    else:
        return None
    return _merged(op, source, rounded(*both), node)


def _before(
    one: Conv, two: Conv, source: Node, node: Node, view: RewriteContext
) -> Replacement | None:
    """Return a convolution that does what a 1x1 one before it did as well."""
    (weight, bias), second = _tensors(source, view), _tensors(node, view)
    if any(two.pads) and bias.any():  # the border of zeros has no bias
        return None
    op = replace(two, bias=True)
    if one.groups == one.filters == view.types[source.inputs[0]].shape[0]:
        tensors = ahead(two, view.values(node), weight.reshape(-1), bias)
        return _merged(op, source, tensors, node)
    if one.groups == two.groups == 1:
        joined = np.einsum("fjhw,jc->fchw", second[0], weight[:, :, 0, 0])
        added = np.einsum("fjhw,j->f", second[0], bias) + second[1]
        return _merged(op, source, rounded(joined, added), node)
    return None


def _chained(first: Tensors, second: Tensors) -> Tensors:
    """Return the layer that a matrix (units, filters) after a layer of these filters makes."""
    weight = np.tensordot(second[0], first[0], axes=1)
    return weight, second[0] @ first[1] + second[1]


def _tensors(node: Node, view: RewriteContext) -> Tensors:
    weight, *bias = (tensor.astype(np.float64) for tensor in view.values(node))
    return weight, bias[0] if bias else np.zeros(weight.shape[0])


def _pointwise(conv: Conv) -> bool:
    return conv.kernel == (1, 1) and not any(conv.pads)
