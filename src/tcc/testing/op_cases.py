"""The one table of op cases, and graphs of one op made from it.

Every op with every attribute that changes what it computes stands here once; whatever lowers
or runs graphs goes through the whole table. Activations are in it by themselves.
"""

from dataclasses import dataclass
from typing import assert_never
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, make_node, verify
from tcc.compiler.ir.op import Init, Param
from tcc.compiler.ir.types import Shape, TensorType
from tcc.compiler.ops import (
    ACTIVATIONS,
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Border,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Identity,
    LayerNorm,
    LeakyRelu,
    Linear,
    MaxPool,
    Mul,
    Op,
    Pad,
    Resize,
    Scale,
    ScaleShift,
    Slice,
    Softmax,
    StochasticDepth,
    Unflatten,
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """An op as a user writes it, and the shapes of its inputs without the batch axis."""

    op: Op
    shapes: tuple[Shape, ...]


def _case(op: Op, *shapes: Shape) -> Case:
    return Case(op, shapes)


CONVOLUTIONS = {
    "conv": _case(Conv(8, (3, 3)), (3, 9, 11)),
    "conv-no-bias": _case(Conv(8, (3, 3), bias=False), (3, 9, 11)),
    "conv-1x1": _case(Conv(16, (1, 1)), (8, 7, 7)),
    "conv-1x1-strided": _case(Conv(6, (1, 1), (2, 2)), (4, 7, 8)),
    "conv-1x1-padded": _case(Conv(4, (1, 1), padding=1), (3, 5, 4)),
    "conv-stem": _case(Conv(8, (7, 7), (2, 2), 3), (3, 32, 32)),
    "conv-valid-strided": _case(Conv(8, (3, 3), (2, 2), bias=False), (3, 32, 31)),
    "conv-kernel-1x7": _case(Conv(4, (1, 7), padding=(0, 3)), (4, 8, 9)),
    "conv-kernel-7x1": _case(Conv(4, (7, 1), padding=(3, 0)), (4, 8, 9)),
    "conv-kernel-3x2": _case(Conv(5, (3, 2), (1, 2)), (4, 8, 9)),
    "conv-kernel-even": _case(Conv(5, (2, 2), (2, 2)), (4, 9, 8)),
    "conv-kernel-5": _case(Conv(4, (5, 5), padding=2), (3, 6, 7)),
    "conv-stride-2x1": _case(Conv(4, (3, 3), (2, 1), 1), (3, 8, 9)),
    "conv-stride-3": _case(Conv(4, (2, 2), (3, 3)), (3, 10, 11)),
    "conv-padding-pair": _case(Conv(4, (3, 3), padding=(2, 1)), (3, 6, 7)),
    "conv-padding-quad": _case(Conv(4, (3, 3), padding=(0, 1, 2, 3)), (3, 6, 7)),
    "conv-padding-wide": _case(Conv(4, (2, 2), padding=3), (3, 4, 4)),
    "conv-same": _case(Conv(4, (3, 3), padding="same"), (3, 6, 7)),
    "conv-same-even": _case(Conv(4, (2, 4), padding="same"), (3, 6, 7)),
    "conv-same-strided": _case(Conv(4, (3, 3), (2, 2), "same"), (3, 8, 7)),
    "conv-same-stride-over-kernel": _case(Conv(4, (1, 1), (2, 2), "same"), (3, 8, 7)),
    "conv-dilated": _case(Conv(4, (3, 3), padding=2, dilation=(2, 2)), (3, 8, 9)),
    "conv-dilated-2x1": _case(Conv(4, (3, 2), dilation=(2, 1)), (3, 8, 9)),
    "conv-dilated-same-strided": _case(Conv(4, (3, 3), (2, 2), "same", (2, 3)), (3, 9, 9)),
    "conv-groups": _case(Conv(6, (3, 3), padding=1, groups=2), (4, 6, 5)),
    "conv-groups-1x1": _case(Conv(9, (1, 1), groups=3), (6, 6, 5)),
    "conv-depthwise-by-groups": _case(Conv(4, (3, 3), groups=4), (4, 6, 5)),
    "conv-one-channel": _case(Conv(1, (3, 3)), (1, 5, 5)),
    "conv-whole-image": _case(Conv(4, (5, 6)), (3, 5, 6)),
    "conv-1x1-image": _case(Conv(4, (1, 1)), (6, 1, 1)),
    "conv-3x3-on-1x1-image": _case(Conv(4, (3, 3), padding=1), (6, 1, 1)),
    "conv-row": _case(Conv(4, (1, 3)), (2, 1, 12)),
    "depthwise": _case(DepthwiseConv((3, 3), padding=1), (6, 7, 9)),
    "depthwise-1x1": _case(DepthwiseConv((1, 1)), (6, 5, 5)),
    "depthwise-5x5-strided": _case(DepthwiseConv((5, 5), (2, 2), 2), (4, 9, 9)),
    "depthwise-strided": _case(DepthwiseConv((3, 3), (2, 2), 1, bias=False), (8, 14, 14)),
    "depthwise-multiplier": _case(DepthwiseConv((3, 3), padding=1, multiplier=2), (3, 6, 6)),
    "depthwise-same": _case(DepthwiseConv((3, 3), (2, 2), "same"), (4, 8, 8)),
    "depthwise-dilated": _case(DepthwiseConv((3, 3), dilation=(2, 2), padding=2), (4, 8, 8)),
    "depthwise-one-channel": _case(DepthwiseConv((3, 3)), (1, 6, 6)),
    "depthwise-rectangular": _case(DepthwiseConv((1, 5), padding=(0, 2)), (3, 5, 8)),
    "conv_transpose": _case(ConvTranspose(4, (2, 2), (2, 2)), (3, 5, 6)),
    "conv_transpose-k3": _case(ConvTranspose(4, (3, 3)), (3, 5, 6)),
    "conv_transpose-padded": _case(ConvTranspose(4, (4, 4), (2, 2), (1, 1)), (3, 5, 6)),
    "conv_transpose-lopsided": _case(
        ConvTranspose(4, (3, 2), (2, 3), (1, 0), (1, 2), bias=False), (3, 5, 6)
    ),
    "conv_transpose-dilated": _case(ConvTranspose(4, (3, 3), dilation=(2, 1)), (3, 5, 6)),
    "conv_transpose-cut-less": _case(
        ConvTranspose(4, (3, 3), (2, 1), (2, 1), (2, 1), dilation=(3, 2)), (3, 5, 6)
    ),
    "conv_transpose-longer": _case(
        ConvTranspose(4, (2, 3), (1, 2), (1, 0), (2, 1), dilation=(3, 1)), (3, 5, 6)
    ),
    "conv_transpose-groups": _case(ConvTranspose(6, (3, 3), (2, 2), (1, 1), groups=2), (4, 5, 6)),
    "conv_transpose-depthwise": _case(ConvTranspose(4, (2, 2), (2, 2), groups=4), (4, 5, 6)),
    "linear": _case(Linear(5), (12,)),
    "linear-no-bias": _case(Linear(5, bias=False), (12,)),
    "linear-one": _case(Linear(1), (1,)),
}

POINTWISE = {
    **{a.word: _case(a(), (4, 5, 6)) for a in ACTIVATIONS},
    **{f"{a.word}-vector": _case(a(), (9,)) for a in ACTIVATIONS},
    "leaky_relu-steep": _case(LeakyRelu(0.3), (4, 5, 6)),
    "activation": _case(Activation("silu"), (4, 5, 6)),
    "softmax": _case(Softmax(), (7,)),
    "softmax-one": _case(Softmax(), (1,)),
    "softmax-map": _case(Softmax(), (5, 3, 4)),
    "batch_norm": _case(BatchNorm(), (6, 5, 4)),
    "batch_norm-eps": _case(BatchNorm(eps=1e-3), (6, 5, 4)),
    "batch_norm-1x1": _case(BatchNorm(), (6, 1, 1)),
    "batch_norm-one-channel": _case(BatchNorm(), (1, 5, 4)),
    "batch_norm-vector": _case(BatchNorm(), (6,)),
    "scale_shift": _case(ScaleShift(), (6, 5, 4)),
    "scale_shift-vector": _case(ScaleShift(), (6,)),
    "layer_norm": _case(LayerNorm(), (6, 5, 4)),
    "layer_norm-vector": _case(LayerNorm(eps=1e-3), (6,)),
    "scale": _case(Scale(2.5, -1.0), (3, 4, 5)),
    "scale-vector": _case(Scale(0.1), (7,)),
    "stochastic_depth": _case(StochasticDepth(0.3), (4, 3, 2)),
    "stochastic_depth-vector": _case(StochasticDepth(0.3), (5,)),
    "dropout": _case(Dropout(0.4), (4, 3, 2)),
    "dropout-vector": _case(Dropout(), (8,)),
    "identity": _case(Identity(), (4, 3, 2)),
}

POOLS = {
    "max_pool": _case(MaxPool((2, 2)), (4, 8, 6)),
    "max_pool-stem": _case(MaxPool((3, 3), (2, 2), 1), (4, 16, 16)),
    "max_pool-k3s2": _case(MaxPool((3, 3), (2, 2)), (4, 11, 10)),
    "max_pool-k3s1p1": _case(MaxPool((3, 3), (1, 1), 1), (4, 6, 5)),
    "max_pool-ceil": _case(MaxPool((3, 3), (2, 2), ceil=True), (4, 8, 12)),
    "max_pool-ceil-k2": _case(MaxPool((2, 2), (2, 2), ceil=True), (4, 7, 5)),
    "max_pool-ceil-exact": _case(MaxPool((3, 3), (2, 2), ceil=True), (4, 7, 9)),
    "max_pool-ceil-padded": _case(MaxPool((3, 3), (2, 2), 1, ceil=True), (4, 8, 6)),
    "max_pool-ceil-drops-last": _case(MaxPool((2, 2), (2, 2), 1, ceil=True), (4, 5, 7)),
    "max_pool-ceil-stride-over-kernel": _case(MaxPool((2, 2), (3, 3), ceil=True), (4, 8, 9)),
    "max_pool-ceil-drops-stride-3": _case(MaxPool((2, 3), (3, 3), 1, ceil=True), (2, 8, 6)),
    "max_pool-rectangular": _case(MaxPool((3, 1), (2, 3)), (4, 8, 9)),
    "max_pool-padding-pair": _case(MaxPool((3, 5), (2, 2), (1, 2)), (4, 8, 9)),
    "max_pool-lopsided": _case(MaxPool((3, 3), (2, 2), (0, 1, 1, 0)), (4, 8, 9)),
    "max_pool-lopsided-ceil": _case(MaxPool((3, 3), (2, 2), (0, 1, 2, 0), ceil=True), (4, 6, 8)),
    "max_pool-wide-padding": _case(MaxPool((3, 3), (2, 2), 2), (4, 6, 6)),
    "max_pool-wide-padding-ceil": _case(MaxPool((3, 3), (2, 2), 2, ceil=True), (4, 5, 6)),
    "max_pool-same": _case(MaxPool((3, 3), (2, 2), "same"), (4, 8, 7)),
    "max_pool-1x1": _case(MaxPool((1, 1), (2, 2)), (4, 5, 6)),
    "max_pool-one-channel": _case(MaxPool((2, 2)), (1, 4, 4)),
    "avg_pool": _case(AvgPool((2, 2)), (4, 8, 6)),
    "avg_pool-k3s1p1": _case(AvgPool((3, 3), (1, 1), 1), (4, 6, 5)),
    "avg_pool-k3s1p1-inside": _case(AvgPool((3, 3), (1, 1), 1, count_include_pad=False), (4, 6, 5)),
    "avg_pool-rectangular": _case(AvgPool((3, 2), (2, 1), (1, 0)), (4, 8, 9)),
    "avg_pool-inside-rectangular": _case(
        AvgPool((3, 2), (2, 1), (1, 0), count_include_pad=False), (4, 8, 9)
    ),
    "avg_pool-ceil": _case(AvgPool((3, 3), (2, 2), ceil=True), (4, 8, 12)),
    "avg_pool-ceil-inside": _case(
        AvgPool((3, 3), (2, 2), ceil=True, count_include_pad=False), (4, 8, 12)
    ),
    "avg_pool-ceil-exact": _case(AvgPool((3, 3), (2, 2), 1, ceil=True), (4, 7, 9)),
    "avg_pool-ceil-padded": _case(AvgPool((3, 3), (2, 2), 1, ceil=True), (4, 8, 6)),
    "avg_pool-ceil-padded-one-axis": _case(AvgPool((3, 3), (2, 2), 1, ceil=True), (4, 8, 7)),
    "avg_pool-ceil-padded-inside": _case(
        AvgPool((3, 3), (2, 2), 1, ceil=True, count_include_pad=False), (4, 8, 6)
    ),
    "avg_pool-ceil-drops-last": _case(AvgPool((2, 2), (2, 2), 1, ceil=True), (4, 5, 7)),
    "avg_pool-ceil-drops-last-inside": _case(
        AvgPool((2, 2), (2, 2), 1, ceil=True, count_include_pad=False), (4, 5, 7)
    ),
    "avg_pool-ceil-k5s3": _case(AvgPool((5, 4), (3, 3), (2, 1), ceil=True), (2, 9, 10)),
    "avg_pool-lopsided": _case(AvgPool((3, 3), (2, 2), (0, 1, 1, 0)), (4, 8, 9)),
    "avg_pool-lopsided-ceil": _case(AvgPool((3, 3), (2, 2), (1, 0, 0, 1), ceil=True), (4, 7, 8)),
    "avg_pool-lopsided-inside": _case(
        AvgPool((3, 3), (2, 2), (0, 1, 1, 0), count_include_pad=False), (4, 8, 9)
    ),
    "avg_pool-lopsided-ceil-inside": _case(
        AvgPool((3, 3), (2, 2), (1, 0, 0, 2), ceil=True, count_include_pad=False), (4, 7, 8)
    ),
    "avg_pool-wide-padding": _case(AvgPool((3, 3), (2, 2), 2), (4, 6, 6)),
    "avg_pool-wide-padding-inside": _case(
        AvgPool((3, 3), (2, 2), 2, count_include_pad=False), (4, 6, 6)
    ),
    "avg_pool-same": _case(AvgPool((2, 2), (1, 1), "same"), (4, 5, 6)),
    "avg_pool-same-inside": _case(
        AvgPool((2, 2), (1, 1), "same", count_include_pad=False), (4, 5, 6)
    ),
    "avg_pool-whole-image": _case(AvgPool((5, 6)), (4, 5, 6)),
    "global_avg_pool": _case(GlobalAvgPool(), (6, 5, 7)),
    "global_avg_pool-1x1": _case(GlobalAvgPool(), (6, 1, 1)),
    "global_max_pool": _case(GlobalMaxPool(), (6, 5, 7)),
    "adaptive_avg_pool": _case(AdaptiveAvgPool((2, 3)), (4, 8, 6)),
    "adaptive_avg_pool-one": _case(AdaptiveAvgPool((1, 1)), (4, 8, 6)),
}

JOINS = {
    **{
        f"concat-{n}": _case(Concat(), *((c, 4, 5) for c in (3, 1, 4, 1, 5)[:n]))
        for n in range(1, 6)
    },
    "concat-vectors": _case(Concat(), (3,), (4,), (2,)),
    "concat-1x1": _case(Concat(), (3, 1, 1), (4, 1, 1)),
    **{f"add-{n}": _case(Add(), *[(3, 4, 5)] * n) for n in (2, 3, 4)},
    **{f"mul-{n}": _case(Mul(), *[(3, 4, 5)] * n) for n in (2, 3, 4)},
    "add-vectors": _case(Add(), (6,), (6,)),
    "mul-vectors": _case(Mul(), (6,), (6,)),
    "add-gate": _case(Add(), (3, 4, 5), (3, 1, 1)),
    "mul-gate": _case(Mul(), (3, 4, 5), (3, 1, 1)),
    "mul-gate-first": _case(Mul(), (3, 1, 1), (3, 4, 5)),
    "mul-spatial-gate": _case(Mul(), (3, 4, 5), (1, 4, 5)),
    "mul-outer": _case(Mul(), (3, 1, 1), (1, 4, 5)),
    "mul-3-gates": _case(Mul(), (3, 4, 5), (3, 1, 1), (1, 4, 5)),
    "add-1x1": _case(Add(), (3, 1, 1), (3, 1, 1)),
}

LAYOUT = {
    "flatten": _case(Flatten(), (3, 4, 5)),
    "flatten-1x1": _case(Flatten(), (7, 1, 1)),
    "flatten-vector": _case(Flatten(), (7,)),
    "slice": _case(Slice(1, 4), (6, 3, 4)),
    "slice-to-end": _case(Slice(2), (6, 3, 4)),
    "slice-from-start": _case(Slice(stop=2), (6, 3, 4)),
    "slice-step": _case(Slice(1, step=2), (7, 3, 4)),
    "slice-negative": _case(Slice(-4, -1), (6, 3, 4)),
    "slice-beyond": _case(Slice(-99, 99), (6, 3, 4)),
    "slice-one": _case(Slice(5), (6, 3, 4)),
    "slice-vector": _case(Slice(1, 6, 2), (8,)),
    "channel_shuffle": _case(ChannelShuffle(3), (6, 3, 4)),
    "channel_shuffle-all": _case(ChannelShuffle(6), (6, 3, 4)),
    "channel_shuffle-1x1": _case(ChannelShuffle(2), (6, 1, 1)),
    "pad": _case(Pad(1), (3, 4, 5)),
    "pad-quad": _case(Pad((0, 1, 2, 3)), (3, 4, 5)),
    "pad-pair": _case(Pad((2, 0)), (3, 4, 5)),
    "pad-value": _case(Pad((1, 0, 0, 1), -1.5), (3, 4, 5)),
    "pad-none": _case(Pad(0), (3, 4, 5)),
    "resize-nearest": _case(Resize(scale=(2, 3)), (3, 4, 5)),
    "resize-nearest-down": _case(Resize((2, 3)), (3, 4, 9)),
    "resize-nearest-both": _case(Resize((2, 10)), (3, 4, 5)),
    "resize-bilinear": _case(Resize(scale=(2, 2), mode="bilinear"), (3, 4, 5)),
    "resize-bilinear-down": _case(Resize((2, 3), mode="bilinear"), (3, 5, 7)),
    "resize-bilinear-size": _case(Resize((7, 9), mode="bilinear"), (3, 4, 5)),
    "resize-bilinear-one": _case(Resize((4, 4), mode="bilinear"), (3, 1, 1)),
}

CASES: dict[str, Case] = {**CONVOLUTIONS, **POINTWISE, **POOLS, **JOINS, **LAYOUT}

INTERNAL_CASES: dict[str, Case] = {
    "unflatten": _case(Unflatten(), (7,)),
    "border": _case(Border((1, 1, 1, 1), (124.5, -3.0, 0.1)), (3, 4, 5)),
    "border-lopsided": _case(Border((0, 1, 2, 3), (0.5, 7.0)), (2, 4, 5)),
    "border-one-channel": _case(Border((2, 0, 0, 2), (1.5,)), (1, 4, 5)),
}
"""Ops that passes make, which not every target runs."""


def one_op(case: Case) -> Model:
    """Return the model of one op: inputs `x0`, `x1`..., node `op`, output `y`."""
    sources = tuple(Input(f"x{i}", TensorType(s)) for i, s in enumerate(case.shapes))
    return _model(case, sources, (), tuple(s.name for s in sources))


def one_input(case: Case) -> Model:
    """Return the same with one input, `x0`, which the inputs of the op are cut out of.

    For what runs graphs of one input only; the cutting is slices and global pools.
    """
    if len(case.shapes) == 1:
        return one_op(case)
    size = tuple(max(sizes) for sizes in zip(*(s[1:] for s in case.shapes), strict=True))
    whole = Input("x0", TensorType((sum(s[0] for s in case.shapes), *size)))
    cuts: list[Node] = []
    values: list[str] = []
    start = 0
    for i, shape in enumerate(case.shapes):
        cuts.append(_node(f"cut{i}", Slice(start, start + shape[0]), whole.name, whole.type))
        if shape[1:] != size:
            cuts.append(_node(f"pool{i}", GlobalAvgPool(), cuts[-1].name, cuts[-1].type))
        start += shape[0]
        values.append(cuts[-1].name)
    return _model(case, (whole,), tuple(cuts), tuple(values))


def tensors(model: Model, batch: int = 2) -> tuple[Array, ...]:
    """Return random inputs of a model, wide enough to reach every bend of the activations."""
    return tuple(_noise(i.name, (batch, *i.type.shape)) * 4 for i in model.graph.inputs)


def trained(graph: Graph) -> dict[str, Array]:
    """Return random weights as after training: no bias or batch norm tensor is trivial."""
    return {name: _trained(name, param) for name, param in graph.params.items()}


def _model(
    case: Case, sources: tuple[Input, ...], before: tuple[Node, ...], values: tuple[str, ...]
) -> Model:
    kinds = {source.name: source.type for source in sources}
    kinds |= {cut.name: cut.type for cut in before}
    node = make_node("op", case.op, values, tuple(kinds[v] for v in values))
    assert node is not None, "the case is the identity"
    graph = verify(Graph("case", sources, (*before, node), (Output("y", "op"),)))
    return Model(graph, trained(graph))


def _node(name: str, op: Op, value: str, kind: TensorType) -> Node:
    node = make_node(name, op, (value,), (kind,))
    assert node is not None
    return node


def _trained(name: str, param: Param) -> Array:
    noise = _noise(name, param.shape)
    if name.endswith(".var"):
        return np.asarray(np.float32(0.25) + noise * noise, np.float32)
    match param.init:
        case Init.KAIMING:
            return np.asarray(noise / np.float32(np.sqrt(param.fan_in)), np.float32)
        case Init.ONES:
            return np.asarray(np.float32(1) + noise / 2, np.float32)
        case Init.ZEROS:
            return noise
        case _:
            assert_never(param.init)


def _noise(key: str, shape: Shape) -> Array:
    return np.random.default_rng(crc32(key.encode())).standard_normal(shape, np.float32)
