"""Move the normalization of an image into the network, so that its input is 8-bit pixels."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Input, Model, Node, bounded_pass, make_node
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    Replacement,
    RewriteContext,
    make_unused_name,
    rewrite,
)
from tcc.compiler.ir.types import Quad
from tcc.compiler.ops import Border, Conv, Op, Pad, ScaleShift
from tcc.compiler.passes.channel_affine import fold_affine_ahead

Array = NDArray[np.float64]


@bounded_pass(1e-4)
def raw_input(model: Model) -> Model:
    """Replace each image input by its pixels, and fold normalization into the first convolution.

    If that convolution has zero padding, a pad with the mean's pixel value replaces it, because
    zero is the mean after normalization. An input with other readers, or with a mean outside 0 to
    255, gets a scale and shift instead. Identity: within rounding; weights are computed in float64
    and rounded once. An input that is divided by its own maximum stays as it is: weights are the
    same for all images.
    """
    for network_input in model.graph.inputs:
        preprocess = network_input.preprocess
        if preprocess is not None and not preprocess.raw and preprocess.scale == "255":
            model = _make_input_raw(model, network_input, preprocess)
    return model


def _make_input_raw(model: Model, network_input: Input, preprocess: Preprocess) -> Model:
    scale, shift = _compute_normalization(preprocess, network_input.type.shape[0])
    reader = model.graph.find_sole_reader(network_input.name)
    if reader is not None and _can_normalize(reader.op, -shift / scale):

        def normalize_reader(node: Node, context: RewriteContext) -> Replacement | None:
            match node.op:
                case Conv() as conv if node.name == reader.name:
                    return _fold_normalization(conv, node, context, scale, shift)
            return None

        model = rewrite(model, normalize_reader)
    else:
        model = _insert_normalization(model, network_input, scale, shift)
    raw_source = replace(network_input, preprocess=replace(preprocess, raw=True))
    inputs = tuple(raw_source if i.name == network_input.name else i for i in model.graph.inputs)
    return Model(replace(model.graph, inputs=inputs), model.weights)


def _compute_normalization(preprocess: Preprocess, channels: int) -> tuple[Array, Array]:
    """Return the factor and shift that normalize a channel's pixels: pixel * scale + shift."""
    mean, std = (  # as float32, as in `preprocess.normalize`
        np.broadcast_to(np.array(v, np.float32).astype(np.float64), channels)
        for v in (preprocess.mean, preprocess.std)
    )
    # (pixel / 255 - mean) / std as one product and one sum.
    return 1 / (255 * std), -mean / std


def _can_normalize(op: Op, border_levels: Array) -> bool:
    """Whether an op can read pixel values, given the pixel values that its zero padding means."""
    are_levels_valid = bool(((border_levels >= 0) & (border_levels <= 255)).all())
    return isinstance(op, Conv) and (are_levels_valid or not any(op.pads))


def _fold_normalization(
    conv: Conv, node: Node, context: RewriteContext, scale: Array, shift: Array
) -> Replacement:
    tensors = fold_affine_ahead(conv, context.get_weights(node), scale, shift)
    inner = replace(conv, bias=True)
    if not (any(conv.pads) and shift.any()):
        return Replacement(inner, node.inputs, tensors, node.at)
    border = _build_border(conv.pads, -shift / scale)
    conv_step = ChainedOp(replace(inner, padding=(0, 0, 0, 0)), tensors, node.at)
    return Replacement(border, node.inputs, (), node.at, (conv_step,))


def _build_border(pads: Quad, gray_levels: Array) -> Op:
    """Return an op that pads each channel with its given pixel value."""
    fills = tuple(float(v) for v in gray_levels.astype(np.float32))
    return Pad(pads, fills[0]) if len(set(fills)) == 1 else Border(pads, fills)


def _insert_normalization(model: Model, network_input: Input, scale: Array, shift: Array) -> Model:
    """Return a model that reads a normalized input instead of the input."""
    graph = model.graph
    name = make_unused_name(f"{network_input.name}/normalized", graph.types)
    normalization = make_node(name, ScaleShift(), (network_input.name,), (network_input.type,))
    assert normalization is not None

    def rename_input(value: str) -> str:
        return name if value == network_input.name else value

    nodes = tuple(replace(n, inputs=tuple(map(rename_input, n.inputs))) for n in graph.nodes)
    outputs = tuple(replace(o, value=rename_input(o.value)) for o in graph.outputs)
    tensors = (v.astype(np.float32).reshape(-1, 1, 1) for v in (scale, shift))
    normalized_graph = replace(graph, nodes=(normalization, *nodes), outputs=outputs)
    return Model(
        normalized_graph, {**model.weights, **dict(zip(normalization.params, tensors, strict=True))}
    )
