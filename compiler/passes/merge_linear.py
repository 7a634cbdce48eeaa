"""Merge two linear layers or convolutions in a row."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import NodeWeights, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, Linear, ScaleShift
from tcc.compiler.passes.channel_affine import extract_channel_affine, fold_affine_ahead, to_float32

WeightAndBias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The weight and the bias of a layer."""


@bounded_pass(1e-4)
def merge_linear(model: Model) -> Model:
    """Merge two layers in a row, if that needs no more multiplications.

    These are two linear layers, two scales, or two convolutions. One of the convolutions must have
    a 1x1 window, and both or the other one must not be grouped. They are merged only if the result
    needs no more multiplications than both. Identity: within rounding; the weights are computed in
    float64 and rounded once.
    """
    return rewrite(model, _merge_into_source)


def _merge_into_source(node: Node, context: RewriteContext) -> Replacement | None:
    source = context.find_sole_producer(node)
    replacement = _merge_layers(source, node, context) if source else None
    if source is None or replacement is None:
        return None
    input_type, middle_type = context.types[source.inputs[0]], context.types[source.name]
    # Two narrow layers often replace one wide layer to save multiplications, as in bottlenecks and
    # separable convolutions: merging them would cost more.
    separate_macs = source.op.macs(input_type) + node.op.macs(middle_type)
    return replacement if replacement.op.macs(input_type) <= separate_macs else None


def _merge_layers(source: Node, node: Node, context: RewriteContext) -> Replacement | None:
    match source.op, node.op:
        case Linear(), Linear() as linear:
            weight, bias = _fold_matrix(_get_tensors(source, context), _get_tensors(node, context))
            return _build_replacement(
                replace(linear, bias=True), source, to_float32(weight, bias), node
            )
        case Conv() as first_conv, Conv() as second_conv:
            replacement = (
                _merge_pointwise_after(first_conv, second_conv, source, node, context)
                if _is_pointwise(second_conv)
                else None
            )
            # A stride in the first one would put gaps between the taps of the second.
            if replacement is None and _is_pointwise(first_conv) and first_conv.stride == (1, 1):
                return _merge_pointwise_before(first_conv, second_conv, source, node, context)
            return replacement
    return _merge_scales(source, node, context)


def _build_replacement(
    op: Conv | Linear | ScaleShift, source: Node, tensors: NodeWeights, node: Node
) -> Replacement:
    return Replacement(op, source.inputs, tensors, node.at)


def _merge_scales(source: Node, node: Node, context: RewriteContext) -> Replacement | None:
    inner, outer = extract_channel_affine(source, context), extract_channel_affine(node, context)
    if inner is None or outer is None:
        return None
    shape = (-1, *(1 for _ in node.type.shape[1:]))
    tensors = to_float32(inner[0] * outer[0], inner[1] * outer[0] + outer[1])
    return _build_replacement(ScaleShift(), source, tuple(v.reshape(shape) for v in tensors), node)


def _merge_pointwise_after(
    conv: Conv, pointwise: Conv, source: Node, node: Node, context: RewriteContext
) -> Replacement | None:
    """Return the merger of a convolution and a 1x1 convolution after it; None if impossible."""
    strides = (conv.stride[0] * pointwise.stride[0], conv.stride[1] * pointwise.stride[1])
    op = replace(conv, filters=pointwise.filters, stride=strides, bias=True)
    conv_tensors, (weight, bias) = _get_tensors(source, context), _get_tensors(node, context)
    if pointwise.groups == pointwise.filters == conv.filters:
        factors = weight.reshape(-1)
        tensors = (conv_tensors[0] * factors.reshape(-1, 1, 1, 1), conv_tensors[1] * factors + bias)
    elif conv.groups == pointwise.groups == 1:
        tensors = _fold_matrix(conv_tensors, (weight[:, :, 0, 0], bias))
    else:
        return None
    return _build_replacement(op, source, to_float32(*tensors), node)


def _merge_pointwise_before(
    pointwise: Conv, conv: Conv, source: Node, node: Node, context: RewriteContext
) -> Replacement | None:
    """Return the merger of a convolution and a 1x1 convolution before it; None if impossible."""
    (weight, bias), conv_tensors = _get_tensors(source, context), _get_tensors(node, context)
    if any(conv.pads) and bias.any():  # zero padding does not have the bias
        return None
    op = replace(conv, bias=True)
    if pointwise.groups == pointwise.filters == context.types[source.inputs[0]].shape[0]:
        tensors = fold_affine_ahead(conv, context.get_weights(node), weight.reshape(-1), bias)
        return _build_replacement(op, source, tensors, node)
    if pointwise.groups == conv.groups == 1:
        merged_weight = np.einsum("fjhw,jc->fchw", conv_tensors[0], weight[:, :, 0, 0])
        merged_bias = np.einsum("fjhw,j->f", conv_tensors[0], bias) + conv_tensors[1]
        return _build_replacement(op, source, to_float32(merged_weight, merged_bias), node)
    return None


def _fold_matrix(layer: WeightAndBias, matrix: WeightAndBias) -> WeightAndBias:
    """Return the layer that equals a layer followed by a matrix (units, filters)."""
    weight = np.tensordot(matrix[0], layer[0], axes=1)
    return weight, matrix[0] @ layer[1] + matrix[1]


def _get_tensors(node: Node, context: RewriteContext) -> WeightAndBias:
    weight, *bias = (tensor.astype(np.float64) for tensor in context.get_weights(node))
    return weight, bias[0] if bias else np.zeros(weight.shape[0])


def _is_pointwise(conv: Conv) -> bool:
    return conv.kernel == (1, 1) and not any(conv.pads)
