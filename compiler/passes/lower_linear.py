"""Replace linear layers by convolutions, and the vectors between them by 1x1 maps."""

import numpy as np

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.op import Param
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    NodeWeights,
    Replacement,
    RewriteContext,
    rewrite,
)
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Conv, Flatten, Linear, Op, Softmax, Unflatten
from tcc.compiler.ops.elementwise import Elementwise


@bounded_pass(1e-4)
def lower_linear(model: Model) -> Model:
    """Replace each linear layer by a convolution.

    The convolution reads the map that was flattened before the layer, with a kernel of its size,
    or a vector as a 1x1 map. Other ops on flattened 1x1 maps run on the maps, and their result is
    flattened. Identity: within rounding, because of the order of the sums; the rest is exact.
    """
    return rewrite(model, lower_linear_node)


def lower_linear_node(node: Node, context: RewriteContext) -> Replacement | None:
    """Return the replacement of a node, for passes that replace only some linear layers."""
    # Only vectors: maps need no other form.
    if len(node.type.shape) != 1:
        return None
    maps = tuple(find_flattened_map(value, context) for value in node.inputs)
    match node.op:
        case Flatten():
            return None
        case Linear() as linear:
            return _build_convolution(linear, node, maps[0], context)
    source_maps = tuple(value for value in maps if value is not None)
    if len(source_maps) < len(maps) or not _can_run_on_maps(node.op, source_maps, context):
        return None
    types = tuple(context.types[value] for value in source_maps)
    tensors = _reshape_weights(context.get_weights(node), node.op.params(*types))
    return Replacement(node.op, source_maps, tensors, node.at, (ChainedOp(Flatten(), (), node.at),))


def find_flattened_map(value: str, context: RewriteContext) -> str | None:
    """Return the feature map that a vector was flattened from, if any."""
    producer = context.find_producer(value)
    if producer is None or not isinstance(producer.op, Flatten):
        return None
    (source,) = producer.inputs
    return source if len(context.types[source].shape) == 3 else find_flattened_map(source, context)


def _can_run_on_maps(op: Op, maps: tuple[str, ...], context: RewriteContext) -> bool:
    """Whether an op computes the same on maps as on their vectors."""
    # Softmax divides by a sum over the channels, which in a larger map are not all features.
    is_single_pixel = all(context.types[value].shape[1:] == (1, 1) for value in maps)
    return is_single_pixel or (isinstance(op, Elementwise) and not isinstance(op, Softmax))


def _build_convolution(
    linear: Linear, node: Node, source_map: str | None, context: RewriteContext
) -> Replacement:
    """Return a convolution for a linear layer, with its output flattened.

    `source_map` is the feature map that the layer's input was flattened from, if any.
    """
    weight, *optional_bias = context.get_weights(node)
    bias = optional_bias[0] if optional_bias else np.zeros(linear.units, np.float32)
    x = context.types[source_map or node.inputs[0]]
    size = _get_map_size(x)
    conv = Conv(linear.units, size, padding=(0, 0, 0, 0))
    # Flattening goes channel by channel, row by row, so the matrix's columns are in kernel order.
    tensors = (weight.reshape(linear.units, x.shape[0], *size), bias)
    flatten = ChainedOp(Flatten(), (), node.at)
    if source_map is not None:
        return Replacement(conv, (source_map,), tensors, node.at, (flatten,))
    return Replacement(
        Unflatten(), node.inputs, (), node.at, (ChainedOp(conv, tensors, node.at), flatten)
    )


def _get_map_size(x: TensorType) -> tuple[int, int]:
    match x.shape:
        case (_, height, width):
            return height, width
    return 1, 1


def _reshape_weights(tensors: NodeWeights, params: tuple[Param, ...]) -> NodeWeights:
    return tuple(t.reshape(p.shape) for t, p in zip(tensors, params, strict=True))
