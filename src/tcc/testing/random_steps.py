"""Random small graphs by seed: every op that int8 programs compute, and some others."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Output, make_node
from tcc.compiler.ir.op import OpError
from tcc.compiler.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Flatten,
    Gelu,
    GlobalAvgPool,
    GlobalMaxPool,
    HardSwish,
    LayerNorm,
    LeakyRelu,
    Linear,
    MaxPool,
    Mul,
    Op,
    Pad,
    Relu,
    Relu6,
    Resize,
    ScaleShift,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    Tanh,
)
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

MAX_ELEMENTS = 30_000
"""Every value has fewer elements than this."""


def sample_graph(
    seed: int, steps: int = 12, accepts: Callable[[Op], bool] = lambda _: True
) -> tuple[Graph, Mapping[str, NDArray[np.float32]]]:
    """Return a graph of randomly chosen ops, and weights of any magnitude for it.

    Args:
        seed: Seed of the random choices.
        steps: The number of nodes of the graph.
        accepts: Returns whether an op may be in the graph; other ops are replaced.
    """
    rng = np.random.default_rng(seed)
    add = NetBuilder(*(int(n) for n in (rng.integers(1, 13), *rng.integers(1, 20, 2))))
    while len(add.nodes) < steps:
        _add_random_node(rng, add, f"n{len(add.nodes)}", accepts)
    consumed_names = {value_name for node in add.nodes for value_name in node.inputs}
    output_names = [node.name for node in add.nodes if node.name not in consumed_names]
    graph = add.build(*(Output(f"y{i}", value_name) for i, value_name in enumerate(output_names)))
    weights = {
        name: (array * rng.choice([1, 1, 1, 1e-3, 30, 0])).astype(np.float32)
        if name.endswith("weight")
        else array
        for name, array in sample_weights(graph).items()
    }
    return graph, weights


def _add_random_node(
    rng: np.random.Generator, add: NetBuilder, name: str, accepts: Callable[[Op], bool]
) -> None:
    value_names = list(add.types)
    first_input = (
        value_names[-1] if rng.random() < 0.7 else value_names[int(rng.integers(len(value_names)))]
    )
    op = _sample_op(rng, add, first_input)
    if not accepts(op):
        return
    min_inputs, max_inputs = op.arity
    compatible = [
        v for v, kind in add.types.items() if kind.shape[1:] == add.types[first_input].shape[1:]
    ]
    count = 1 if max_inputs == 1 else int(rng.integers(max(min_inputs, 2), (max_inputs or 4) + 1))
    inputs = [
        first_input,
        *(compatible[int(rng.integers(len(compatible)))] for _ in range(count - 1)),
    ]
    try:
        node = make_node(
            name, op, tuple(inputs), tuple(add.types[input_name] for input_name in inputs)
        )
    except OpError:
        return
    if node is not None and 0 < node.type.elements < MAX_ELEMENTS:
        add(name, op, *inputs)


def _sample_op(rng: np.random.Generator, add: NetBuilder, input_name: str) -> Op:
    shape = add.types[input_name].shape
    anywhere: list[Op] = [
        Relu(), Relu6(), LeakyRelu(0.2), Sigmoid(), Silu(), Tanh(), Gelu(), HardSwish(),
        ScaleShift(), Add(), Add(), Mul(), Concat(), Concat(), Slice(0, None, 2), Slice(1),
    ]  # fmt: skip
    if len(shape) == 1:
        return _choose_op(rng, [*anywhere, Linear(int(rng.integers(1, 22))), Softmax()])
    channels = shape[0]
    pad_top, pad_left, pad_bottom, pad_right = (int(n) for n in rng.integers(0, 3, 4))
    pads = pad_top, pad_left, pad_bottom, pad_right
    kernel_height, kernel_width = kernel = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    pool_pads = (
        min(pad_top, kernel_height - 1),
        min(pad_left, kernel_width - 1),
        min(pad_bottom, kernel_height - 1),
        min(pad_right, kernel_width - 1),
    )
    stride = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    dilation = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    filters = int(rng.integers(1, 20))
    windows: list[Op] = [
        Conv(filters, kernel, stride, pads, dilation), Conv(filters, (1, 1)),
        Conv(filters, (3, 3), padding=1), Conv(filters, (7, 7), (2, 2), 3),
        Conv(groups * int(rng.integers(1, 4)), kernel, stride, pads, dilation, groups),
        DepthwiseConv(kernel, stride, pads), DepthwiseConv((3, 3), (1, 1), 1, multiplier=2),
        MaxPool(kernel, stride, pool_pads),
        AvgPool(kernel, stride), AvgPool((3, 3), (2, 2), 1, count_include_pad=False),
        AvgPool((3, 3), (2, 2), 1, ceil=True),
        GlobalAvgPool(), GlobalMaxPool(), Flatten(), Pad(pads, 0.5), Pad(pads),
        ChannelShuffle(groups), Resize(scale=(2, 1)), ConvTranspose(3, (2, 2), (2, 2)),
        Resize((shape[1] + 1, 5), mode="bilinear"), Softmax(), LayerNorm(),
    ]  # fmt: skip
    return _choose_op(rng, anywhere + windows + windows)


def _choose_op(rng: np.random.Generator, ops: list[Op]) -> Op:
    return ops[int(rng.integers(len(ops)))]
