"""The table of all op cases, and graphs of one op made from it.

It has one case for every op and every attribute that changes the result. Each test of lowering or
running graphs uses the complete table. Activations are added automatically.
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
    """An op as in a spec, and the shapes of its inputs without the batch axis."""

    op: Op
    shapes: tuple[Shape, ...]


def _create_case(op: Op, *shapes: Shape) -> Case:
    return Case(op, shapes)


CONVOLUTIONS = {
    "conv": _create_case(Conv(8, (3, 3)), (3, 9, 11)),
    "conv-no-bias": _create_case(Conv(8, (3, 3), bias=False), (3, 9, 11)),
    "conv-1x1": _create_case(Conv(16, (1, 1)), (8, 7, 7)),
    "conv-1x1-strided": _create_case(Conv(6, (1, 1), (2, 2)), (4, 7, 8)),
    "conv-1x1-padded": _create_case(Conv(4, (1, 1), padding=1), (3, 5, 4)),
    "conv-stem": _create_case(Conv(8, (7, 7), (2, 2), 3), (3, 32, 32)),
    "conv-valid-strided": _create_case(Conv(8, (3, 3), (2, 2), bias=False), (3, 32, 31)),
    "conv-kernel-1x7": _create_case(Conv(4, (1, 7), padding=(0, 3)), (4, 8, 9)),
    "conv-kernel-7x1": _create_case(Conv(4, (7, 1), padding=(3, 0)), (4, 8, 9)),
    "conv-kernel-3x2": _create_case(Conv(5, (3, 2), (1, 2)), (4, 8, 9)),
    "conv-kernel-even": _create_case(Conv(5, (2, 2), (2, 2)), (4, 9, 8)),
    "conv-kernel-5": _create_case(Conv(4, (5, 5), padding=2), (3, 6, 7)),
    "conv-stride-2x1": _create_case(Conv(4, (3, 3), (2, 1), 1), (3, 8, 9)),
    "conv-stride-3": _create_case(Conv(4, (2, 2), (3, 3)), (3, 10, 11)),
    "conv-padding-pair": _create_case(Conv(4, (3, 3), padding=(2, 1)), (3, 6, 7)),
    "conv-padding-quad": _create_case(Conv(4, (3, 3), padding=(0, 1, 2, 3)), (3, 6, 7)),
    "conv-padding-wide": _create_case(Conv(4, (2, 2), padding=3), (3, 4, 4)),
    "conv-same": _create_case(Conv(4, (3, 3), padding="same"), (3, 6, 7)),
    "conv-same-even": _create_case(Conv(4, (2, 4), padding="same"), (3, 6, 7)),
    "conv-same-strided": _create_case(Conv(4, (3, 3), (2, 2), "same"), (3, 8, 7)),
    "conv-same-stride-over-kernel": _create_case(Conv(4, (1, 1), (2, 2), "same"), (3, 8, 7)),
    "conv-dilated": _create_case(Conv(4, (3, 3), padding=2, dilation=(2, 2)), (3, 8, 9)),
    "conv-dilated-2x1": _create_case(Conv(4, (3, 2), dilation=(2, 1)), (3, 8, 9)),
    "conv-dilated-same-strided": _create_case(Conv(4, (3, 3), (2, 2), "same", (2, 3)), (3, 9, 9)),
    "conv-groups": _create_case(Conv(6, (3, 3), padding=1, groups=2), (4, 6, 5)),
    "conv-groups-1x1": _create_case(Conv(9, (1, 1), groups=3), (6, 6, 5)),
    "conv-depthwise-by-groups": _create_case(Conv(4, (3, 3), groups=4), (4, 6, 5)),
    "conv-one-channel": _create_case(Conv(1, (3, 3)), (1, 5, 5)),
    "conv-whole-image": _create_case(Conv(4, (5, 6)), (3, 5, 6)),
    "conv-1x1-image": _create_case(Conv(4, (1, 1)), (6, 1, 1)),
    "conv-3x3-on-1x1-image": _create_case(Conv(4, (3, 3), padding=1), (6, 1, 1)),
    "conv-row": _create_case(Conv(4, (1, 3)), (2, 1, 12)),
    "depthwise": _create_case(DepthwiseConv((3, 3), padding=1), (6, 7, 9)),
    "depthwise-1x1": _create_case(DepthwiseConv((1, 1)), (6, 5, 5)),
    "depthwise-5x5-strided": _create_case(DepthwiseConv((5, 5), (2, 2), 2), (4, 9, 9)),
    "depthwise-strided": _create_case(DepthwiseConv((3, 3), (2, 2), 1, bias=False), (8, 14, 14)),
    "depthwise-multiplier": _create_case(DepthwiseConv((3, 3), padding=1, multiplier=2), (3, 6, 6)),
    "depthwise-same": _create_case(DepthwiseConv((3, 3), (2, 2), "same"), (4, 8, 8)),
    "depthwise-dilated": _create_case(DepthwiseConv((3, 3), dilation=(2, 2), padding=2), (4, 8, 8)),
    "depthwise-one-channel": _create_case(DepthwiseConv((3, 3)), (1, 6, 6)),
    "depthwise-rectangular": _create_case(DepthwiseConv((1, 5), padding=(0, 2)), (3, 5, 8)),
    "conv_transpose": _create_case(ConvTranspose(4, (2, 2), (2, 2)), (3, 5, 6)),
    "conv_transpose-k3": _create_case(ConvTranspose(4, (3, 3)), (3, 5, 6)),
    "conv_transpose-padded": _create_case(ConvTranspose(4, (4, 4), (2, 2), (1, 1)), (3, 5, 6)),
    "conv_transpose-lopsided": _create_case(
        ConvTranspose(4, (3, 2), (2, 3), (1, 0), (1, 2), bias=False), (3, 5, 6)
    ),
    "conv_transpose-dilated": _create_case(ConvTranspose(4, (3, 3), dilation=(2, 1)), (3, 5, 6)),
    "conv_transpose-cut-less": _create_case(
        ConvTranspose(4, (3, 3), (2, 1), (2, 1), (2, 1), dilation=(3, 2)), (3, 5, 6)
    ),
    "conv_transpose-longer": _create_case(
        ConvTranspose(4, (2, 3), (1, 2), (1, 0), (2, 1), dilation=(3, 1)), (3, 5, 6)
    ),
    "conv_transpose-groups": _create_case(
        ConvTranspose(6, (3, 3), (2, 2), (1, 1), groups=2), (4, 5, 6)
    ),
    "conv_transpose-depthwise": _create_case(ConvTranspose(4, (2, 2), (2, 2), groups=4), (4, 5, 6)),
    "linear": _create_case(Linear(5), (12,)),
    "linear-no-bias": _create_case(Linear(5, bias=False), (12,)),
    "linear-one": _create_case(Linear(1), (1,)),
}

POINTWISE = {
    **{a.keyword: _create_case(a(), (4, 5, 6)) for a in ACTIVATIONS},
    **{f"{a.keyword}-vector": _create_case(a(), (9,)) for a in ACTIVATIONS},
    "leaky_relu-steep": _create_case(LeakyRelu(0.3), (4, 5, 6)),
    "activation": _create_case(Activation("silu"), (4, 5, 6)),
    "softmax": _create_case(Softmax(), (7,)),
    "softmax-one": _create_case(Softmax(), (1,)),
    "softmax-map": _create_case(Softmax(), (5, 3, 4)),
    "batch_norm": _create_case(BatchNorm(), (6, 5, 4)),
    "batch_norm-eps": _create_case(BatchNorm(eps=1e-3), (6, 5, 4)),
    "batch_norm-1x1": _create_case(BatchNorm(), (6, 1, 1)),
    "batch_norm-one-channel": _create_case(BatchNorm(), (1, 5, 4)),
    "batch_norm-vector": _create_case(BatchNorm(), (6,)),
    "scale_shift": _create_case(ScaleShift(), (6, 5, 4)),
    "scale_shift-vector": _create_case(ScaleShift(), (6,)),
    "layer_norm": _create_case(LayerNorm(), (6, 5, 4)),
    "layer_norm-vector": _create_case(LayerNorm(eps=1e-3), (6,)),
    "scale": _create_case(Scale(2.5, -1.0), (3, 4, 5)),
    "scale-vector": _create_case(Scale(0.1), (7,)),
    "stochastic_depth": _create_case(StochasticDepth(0.3), (4, 3, 2)),
    "stochastic_depth-vector": _create_case(StochasticDepth(0.3), (5,)),
    "dropout": _create_case(Dropout(0.4), (4, 3, 2)),
    "dropout-vector": _create_case(Dropout(), (8,)),
    "identity": _create_case(Identity(), (4, 3, 2)),
}

POOLS = {
    "max_pool": _create_case(MaxPool((2, 2)), (4, 8, 6)),
    "max_pool-stem": _create_case(MaxPool((3, 3), (2, 2), 1), (4, 16, 16)),
    "max_pool-k3s2": _create_case(MaxPool((3, 3), (2, 2)), (4, 11, 10)),
    "max_pool-k3s1p1": _create_case(MaxPool((3, 3), (1, 1), 1), (4, 6, 5)),
    "max_pool-ceil": _create_case(MaxPool((3, 3), (2, 2), ceil=True), (4, 8, 12)),
    "max_pool-ceil-k2": _create_case(MaxPool((2, 2), (2, 2), ceil=True), (4, 7, 5)),
    "max_pool-ceil-exact": _create_case(MaxPool((3, 3), (2, 2), ceil=True), (4, 7, 9)),
    "max_pool-ceil-padded": _create_case(MaxPool((3, 3), (2, 2), 1, ceil=True), (4, 8, 6)),
    "max_pool-ceil-drops-last": _create_case(MaxPool((2, 2), (2, 2), 1, ceil=True), (4, 5, 7)),
    "max_pool-ceil-stride-over-kernel": _create_case(MaxPool((2, 2), (3, 3), ceil=True), (4, 8, 9)),
    "max_pool-ceil-drops-stride-3": _create_case(MaxPool((2, 3), (3, 3), 1, ceil=True), (2, 8, 6)),
    "max_pool-rectangular": _create_case(MaxPool((3, 1), (2, 3)), (4, 8, 9)),
    "max_pool-padding-pair": _create_case(MaxPool((3, 5), (2, 2), (1, 2)), (4, 8, 9)),
    "max_pool-lopsided": _create_case(MaxPool((3, 3), (2, 2), (0, 1, 1, 0)), (4, 8, 9)),
    "max_pool-lopsided-ceil": _create_case(
        MaxPool((3, 3), (2, 2), (0, 1, 2, 0), ceil=True), (4, 6, 8)
    ),
    "max_pool-wide-padding": _create_case(MaxPool((3, 3), (2, 2), 2), (4, 6, 6)),
    "max_pool-wide-padding-ceil": _create_case(MaxPool((3, 3), (2, 2), 2, ceil=True), (4, 5, 6)),
    "max_pool-same": _create_case(MaxPool((3, 3), (2, 2), "same"), (4, 8, 7)),
    "max_pool-1x1": _create_case(MaxPool((1, 1), (2, 2)), (4, 5, 6)),
    "max_pool-one-channel": _create_case(MaxPool((2, 2)), (1, 4, 4)),
    "avg_pool": _create_case(AvgPool((2, 2)), (4, 8, 6)),
    "avg_pool-k3s1p1": _create_case(AvgPool((3, 3), (1, 1), 1), (4, 6, 5)),
    "avg_pool-k3s1p1-inside": _create_case(
        AvgPool((3, 3), (1, 1), 1, count_include_pad=False), (4, 6, 5)
    ),
    "avg_pool-rectangular": _create_case(AvgPool((3, 2), (2, 1), (1, 0)), (4, 8, 9)),
    "avg_pool-inside-rectangular": _create_case(
        AvgPool((3, 2), (2, 1), (1, 0), count_include_pad=False), (4, 8, 9)
    ),
    "avg_pool-ceil": _create_case(AvgPool((3, 3), (2, 2), ceil=True), (4, 8, 12)),
    "avg_pool-ceil-inside": _create_case(
        AvgPool((3, 3), (2, 2), ceil=True, count_include_pad=False), (4, 8, 12)
    ),
    "avg_pool-ceil-exact": _create_case(AvgPool((3, 3), (2, 2), 1, ceil=True), (4, 7, 9)),
    "avg_pool-ceil-padded": _create_case(AvgPool((3, 3), (2, 2), 1, ceil=True), (4, 8, 6)),
    "avg_pool-ceil-padded-one-axis": _create_case(AvgPool((3, 3), (2, 2), 1, ceil=True), (4, 8, 7)),
    "avg_pool-ceil-padded-inside": _create_case(
        AvgPool((3, 3), (2, 2), 1, ceil=True, count_include_pad=False), (4, 8, 6)
    ),
    "avg_pool-ceil-drops-last": _create_case(AvgPool((2, 2), (2, 2), 1, ceil=True), (4, 5, 7)),
    "avg_pool-ceil-drops-last-inside": _create_case(
        AvgPool((2, 2), (2, 2), 1, ceil=True, count_include_pad=False), (4, 5, 7)
    ),
    "avg_pool-ceil-k5s3": _create_case(AvgPool((5, 4), (3, 3), (2, 1), ceil=True), (2, 9, 10)),
    "avg_pool-lopsided": _create_case(AvgPool((3, 3), (2, 2), (0, 1, 1, 0)), (4, 8, 9)),
    "avg_pool-lopsided-ceil": _create_case(
        AvgPool((3, 3), (2, 2), (1, 0, 0, 1), ceil=True), (4, 7, 8)
    ),
    "avg_pool-lopsided-inside": _create_case(
        AvgPool((3, 3), (2, 2), (0, 1, 1, 0), count_include_pad=False), (4, 8, 9)
    ),
    "avg_pool-lopsided-ceil-inside": _create_case(
        AvgPool((3, 3), (2, 2), (1, 0, 0, 2), ceil=True, count_include_pad=False), (4, 7, 8)
    ),
    "avg_pool-wide-padding": _create_case(AvgPool((3, 3), (2, 2), 2), (4, 6, 6)),
    "avg_pool-wide-padding-inside": _create_case(
        AvgPool((3, 3), (2, 2), 2, count_include_pad=False), (4, 6, 6)
    ),
    "avg_pool-same": _create_case(AvgPool((2, 2), (1, 1), "same"), (4, 5, 6)),
    "avg_pool-same-inside": _create_case(
        AvgPool((2, 2), (1, 1), "same", count_include_pad=False), (4, 5, 6)
    ),
    "avg_pool-whole-image": _create_case(AvgPool((5, 6)), (4, 5, 6)),
    "global_avg_pool": _create_case(GlobalAvgPool(), (6, 5, 7)),
    "global_avg_pool-1x1": _create_case(GlobalAvgPool(), (6, 1, 1)),
    "global_max_pool": _create_case(GlobalMaxPool(), (6, 5, 7)),
    "adaptive_avg_pool": _create_case(AdaptiveAvgPool((2, 3)), (4, 8, 6)),
    "adaptive_avg_pool-one": _create_case(AdaptiveAvgPool((1, 1)), (4, 8, 6)),
}

JOINS = {
    **{
        f"concat-{n}": _create_case(Concat(), *((c, 4, 5) for c in (3, 1, 4, 1, 5)[:n]))
        for n in range(1, 6)
    },
    "concat-vectors": _create_case(Concat(), (3,), (4,), (2,)),
    "concat-1x1": _create_case(Concat(), (3, 1, 1), (4, 1, 1)),
    **{f"add-{n}": _create_case(Add(), *[(3, 4, 5)] * n) for n in (2, 3, 4)},
    **{f"mul-{n}": _create_case(Mul(), *[(3, 4, 5)] * n) for n in (2, 3, 4)},
    "add-vectors": _create_case(Add(), (6,), (6,)),
    "mul-vectors": _create_case(Mul(), (6,), (6,)),
    "add-gate": _create_case(Add(), (3, 4, 5), (3, 1, 1)),
    "mul-gate": _create_case(Mul(), (3, 4, 5), (3, 1, 1)),
    "mul-gate-first": _create_case(Mul(), (3, 1, 1), (3, 4, 5)),
    "mul-spatial-gate": _create_case(Mul(), (3, 4, 5), (1, 4, 5)),
    "mul-outer": _create_case(Mul(), (3, 1, 1), (1, 4, 5)),
    "mul-3-gates": _create_case(Mul(), (3, 4, 5), (3, 1, 1), (1, 4, 5)),
    "add-1x1": _create_case(Add(), (3, 1, 1), (3, 1, 1)),
}

LAYOUT = {
    "flatten": _create_case(Flatten(), (3, 4, 5)),
    "flatten-1x1": _create_case(Flatten(), (7, 1, 1)),
    "flatten-vector": _create_case(Flatten(), (7,)),
    "slice": _create_case(Slice(1, 4), (6, 3, 4)),
    "slice-to-end": _create_case(Slice(2), (6, 3, 4)),
    "slice-from-start": _create_case(Slice(stop=2), (6, 3, 4)),
    "slice-step": _create_case(Slice(1, step=2), (7, 3, 4)),
    "slice-negative": _create_case(Slice(-4, -1), (6, 3, 4)),
    "slice-beyond": _create_case(Slice(-99, 99), (6, 3, 4)),
    "slice-one": _create_case(Slice(5), (6, 3, 4)),
    "slice-vector": _create_case(Slice(1, 6, 2), (8,)),
    "channel_shuffle": _create_case(ChannelShuffle(3), (6, 3, 4)),
    "channel_shuffle-all": _create_case(ChannelShuffle(6), (6, 3, 4)),
    "channel_shuffle-1x1": _create_case(ChannelShuffle(2), (6, 1, 1)),
    "pad": _create_case(Pad(1), (3, 4, 5)),
    "pad-quad": _create_case(Pad((0, 1, 2, 3)), (3, 4, 5)),
    "pad-pair": _create_case(Pad((2, 0)), (3, 4, 5)),
    "pad-value": _create_case(Pad((1, 0, 0, 1), -1.5), (3, 4, 5)),
    "pad-none": _create_case(Pad(0), (3, 4, 5)),
    "resize-nearest": _create_case(Resize(scale=(2, 3)), (3, 4, 5)),
    "resize-nearest-down": _create_case(Resize((2, 3)), (3, 4, 9)),
    "resize-nearest-both": _create_case(Resize((2, 10)), (3, 4, 5)),
    "resize-bilinear": _create_case(Resize(scale=(2, 2), mode="bilinear"), (3, 4, 5)),
    "resize-bilinear-down": _create_case(Resize((2, 3), mode="bilinear"), (3, 5, 7)),
    "resize-bilinear-size": _create_case(Resize((7, 9), mode="bilinear"), (3, 4, 5)),
    "resize-bilinear-one": _create_case(Resize((4, 4), mode="bilinear"), (3, 1, 1)),
}

CASES: dict[str, Case] = {**CONVOLUTIONS, **POINTWISE, **POOLS, **JOINS, **LAYOUT}

INTERNAL_CASES: dict[str, Case] = {
    "unflatten": _create_case(Unflatten(), (7,)),
    "border": _create_case(Border((1, 1, 1, 1), (124.5, -3.0, 0.1)), (3, 4, 5)),
    "border-lopsided": _create_case(Border((0, 1, 2, 3), (0.5, 7.0)), (2, 4, 5)),
    "border-one-channel": _create_case(Border((2, 0, 0, 2), (1.5,)), (1, 4, 5)),
}
"""Ops that passes create; not every target runs them."""


def build_op_model(case: Case) -> Model:
    """Return the model of one op: inputs `x0`, `x1`..., node `op`, output `y`."""
    sources = tuple(Input(f"x{i}", TensorType(s)) for i, s in enumerate(case.shapes))
    return _build_model(case, sources, (), tuple(s.name for s in sources))


def build_one_input_model(case: Case) -> Model:
    """Return the model of one op with one input, `x0`; the op's inputs are cut out of it.

    It is for targets that run graphs with one input only. Slices and global pools cut the input.
    """
    if len(case.shapes) == 1:
        return build_op_model(case)
    size = tuple(max(sizes) for sizes in zip(*(s[1:] for s in case.shapes), strict=True))
    joint_input = Input("x0", TensorType((sum(s[0] for s in case.shapes), *size)))
    cuts: list[Node] = []
    input_names: list[str] = []
    start = 0
    for i, shape in enumerate(case.shapes):
        cuts.append(
            _create_node(
                f"cut{i}", Slice(start, start + shape[0]), joint_input.name, joint_input.type
            )
        )
        if shape[1:] != size:
            cuts.append(_create_node(f"pool{i}", GlobalAvgPool(), cuts[-1].name, cuts[-1].type))
        start += shape[0]
        input_names.append(cuts[-1].name)
    return _build_model(case, (joint_input,), tuple(cuts), tuple(input_names))


def sample_inputs(model: Model, batch: int = 2) -> tuple[Array, ...]:
    """Return random inputs of a model, wide enough for every part of the activations."""
    return tuple(_sample_noise(i.name, (batch, *i.type.shape)) * 4 for i in model.graph.inputs)


def sample_weights(graph: Graph) -> dict[str, Array]:
    """Return random weights like those after training: no bias or batch norm tensor is trivial."""
    return {name: _sample_param(name, param) for name, param in graph.params.items()}


def _build_model(
    case: Case,
    sources: tuple[Input, ...],
    slice_nodes: tuple[Node, ...],
    input_names: tuple[str, ...],
) -> Model:
    kinds = {source.name: source.type for source in sources}
    kinds |= {cut.name: cut.type for cut in slice_nodes}
    node = make_node("op", case.op, input_names, tuple(kinds[v] for v in input_names))
    assert node is not None, "the case is the identity"
    graph = verify(Graph("case", sources, (*slice_nodes, node), (Output("y", "op"),)))
    return Model(graph, sample_weights(graph))


def _create_node(name: str, op: Op, input_name: str, tensor_type: TensorType) -> Node:
    node = make_node(name, op, (input_name,), (tensor_type,))
    assert node is not None
    return node


def _sample_param(name: str, param: Param) -> Array:
    noise = _sample_noise(name, param.shape)
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


def _sample_noise(key: str, shape: Shape) -> Array:
    return np.random.default_rng(crc32(key.encode())).standard_normal(shape, np.float32)
