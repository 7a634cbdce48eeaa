"""Let the network normalise its image itself, so that its input is 8-bit pixels."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Input, Model, Node, make_node, within
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.rewrite import (
    ChainedOp,
    Replacement,
    RewriteContext,
    rewrite,
    unused_name,
)
from tcc.compiler.ir.types import Quad
from tcc.compiler.ops import Border, Conv, Op, Pad, ScaleShift
from tcc.compiler.passes.channel_affine import ahead

Array = NDArray[np.float64]


@within(1e-4)
def raw_input(model: Model) -> Model:
    """Make each image input its grey levels, and the first convolution normalise them.

    Where that convolution has a border of zeros, which are pixels of the mean, a border of these
    comes before it. An input that is read by anything else, or whose mean is no grey level, gets
    a scale and shift. Identity: within rounding; weights are computed in float64 and rounded once.
    An input that is divided by its own maximum stays as it is: weights are the same for all images.
    """
    for source in model.graph.inputs:
        pre = source.preprocess
        if pre is not None and not pre.raw and pre.scale == "255":
            model = _raw(model, source, pre)
    return model


def _raw(model: Model, source: Input, pre: Preprocess) -> Model:
    scale, shift = _levels(pre, source.type.shape[0])
    reader = model.graph.sole_reader(source.name)
    if reader is not None and _can_normalize(reader.op, -shift / scale):

        def rule(node: Node, view: RewriteContext) -> Replacement | None:
            match node.op:
                case Conv() as conv if node.name == reader.name:
                    return _normalizing(conv, node, view, scale, shift)
            return None

        model = rewrite(model, rule)
    else:
        model = _normalized(model, source, scale, shift)
    raw = replace(source, preprocess=replace(pre, raw=True))
    inputs = tuple(raw if i.name == source.name else i for i in model.graph.inputs)
    return Model(replace(model.graph, inputs=inputs), model.weights)


def _levels(pre: Preprocess, channels: int) -> tuple[Array, Array]:
    """Return what normalises the grey levels of each channel: level * scale + shift."""
    mean, std = (  # as float32, as `preprocess.normalized` has them
        np.broadcast_to(np.array(v, np.float32).astype(np.float64), channels)
        for v in (pre.mean, pre.std)
    )
    # (level / 255 - mean) / std as one product and one sum.
    return 1 / (255 * std), -mean / std


def _can_normalize(op: Op, zeros: Array) -> bool:
    """Whether an op can read grey levels, given those that were zeros, as its border is."""
    held = bool(((zeros >= 0) & (zeros <= 255)).all())
    return isinstance(op, Conv) and (held or not any(op.pads))


def _normalizing(
    conv: Conv, node: Node, view: RewriteContext, scale: Array, shift: Array
) -> Replacement:
    tensors = ahead(conv, view.values(node), scale, shift)
    inner = replace(conv, bias=True)
    if not (any(conv.pads) and shift.any()):
        return Replacement(inner, node.inputs, tensors, node.at)
    border = _border(conv.pads, -shift / scale)
    last = ChainedOp(replace(inner, padding=(0, 0, 0, 0)), tensors, node.at)
    return Replacement(border, node.inputs, (), node.at, (last,))


def _border(pads: Quad, levels: Array) -> Op:
    """Return what puts a border of the given grey level around each channel."""
    values = tuple(float(v) for v in levels.astype(np.float32))
    return Pad(pads, values[0]) if len(set(values)) == 1 else Border(pads, values)


def _normalized(model: Model, source: Input, scale: Array, shift: Array) -> Model:
    """Return a model that reads a normalisation of an input instead of the input."""
    graph = model.graph
    name = unused_name(f"{source.name}/normalized", graph.types)
    first = make_node(name, ScaleShift(), (source.name,), (source.type,))
    assert first is not None

    def read(value: str) -> str:
        return name if value == source.name else value

    nodes = tuple(replace(n, inputs=tuple(map(read, n.inputs))) for n in graph.nodes)
    outputs = tuple(replace(o, value=read(o.value)) for o in graph.outputs)
    tensors = (v.astype(np.float32).reshape(-1, 1, 1) for v in (scale, shift))
    after = replace(graph, nodes=(first, *nodes), outputs=outputs)
    return Model(after, {**model.weights, **dict(zip(first.params, tensors, strict=True))})
