"""Random graphs and weights: any fitting op, extreme scales and dead channels."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph
from tcc.compiler.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Flatten,
    Gelu,
    GlobalAvgPool,
    GlobalMaxPool,
    HardSigmoid,
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
    Scale,
    ScaleShift,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    Tanh,
)
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

T = TypeVar("T")
Array = NDArray[Any]
MAX_ELEMENTS = 600
"""Upper limit of elements per channel, and of channels."""

ACTIVATIONS: tuple[Op, ...] = (
    Relu(), Relu6(), LeakyRelu(0.2), Sigmoid(), Silu(), Tanh(), Gelu(), HardSigmoid(),
    HardSwish(), Scale(-0.7, 0.3),
)  # fmt: skip
MAPS: tuple[Op, ...] = (
    Conv(4, (1, 1)), Conv(3, (3, 3), padding=1, bias=False), Conv(5, (3, 2), (2, 2), (1, 0, 1, 1)),
    Conv(6, (2, 3), padding="same", dilation=(2, 1)), DepthwiseConv((3, 3), padding=1),
    DepthwiseConv((3, 3), (2, 2), 1, multiplier=2), BatchNorm(), ScaleShift(), MaxPool((2, 2)),
    MaxPool((3, 3), (2, 2), 1, ceil=True), AvgPool((2, 2)), AvgPool((3, 3), (1, 1), 1),
    AvgPool((3, 3), (2, 2), 1, ceil=True, count_include_pad=False), Pad((0, 1, 2, 0)),
    Pad(1, 0.7), Pad(1, -0.7), Slice(0, None, 2), Resize(scale=(2, 1)),
)  # fmt: skip
FLOATS: tuple[Op, ...] = (
    Softmax(), LayerNorm(), Resize(scale=(2, 2), mode="bilinear"), ConvTranspose(3, (2, 2), (2, 2)),
)  # fmt: skip
"""Ops without an integer form."""
FACTORS = (1.0, 1.0, 1.0, 0.0, 1e-9, 1e-4, 300.0)


def draw_graph(draw: Callable[[st.SearchStrategy[T]], T], floats: bool = False) -> Graph:
    """Return a random graph. `floats` also allows ops without an integer form."""
    size = st.integers(5, 12)
    add = NetBuilder(draw(st.integers(1, 4)), draw(size), draw(size))
    for i in range(draw(st.integers(1, 7))):
        _add_step(draw, add, f"n{i}", (*MAPS, *(FLOATS if floats else ())))
    if draw(st.booleans()):
        add("pool", draw(st.sampled_from((GlobalAvgPool(), GlobalMaxPool()))))
        add("flat", Flatten())
        add("fc", Linear(4))
        if draw(st.booleans()):
            add("act", draw(st.sampled_from(ACTIVATIONS)))
            add("fc2", Linear(3))
    return add.build()


def _add_step(draw: Callable[..., Any], add: NetBuilder, name: str, maps: tuple[Op, ...]) -> None:
    last_type = add.types[add.last_value]
    channels, height, width = last_type.shape
    like = [v for v, t in add.types.items() if t.shape == last_type.shape]
    same_size = [v for v, t in add.types.items() if t.shape[1:] == last_type.shape[1:]]
    match draw(
        st.sampled_from(("map", "map", "map", "act", "act", "join", "concat", "gate", "mix"))
    ):
        case "act":
            add(name, draw(st.sampled_from(ACTIVATIONS)))
        case "join":
            addends = draw(st.lists(st.sampled_from(like), min_size=1, max_size=2))
            add(
                name,
                draw(st.sampled_from((Add(), Mul()))) if len(addends) == 1 else Add(),
                add.last_value,
                *addends,
            )
        case "concat" if channels < 20:
            add(name, Concat(), add.last_value, draw(st.sampled_from(same_size)))
        case "gate":
            gate_input = add.last_value
            add(f"{name}/gap", GlobalAvgPool())
            add(f"{name}/conv", Conv(channels, (1, 1)))
            gate = add(f"{name}/gate", draw(st.sampled_from((Sigmoid(), HardSigmoid(), Relu()))))
            add(name, draw(st.sampled_from((Mul(), Add()))), gate_input, gate)
        case "mix" if channels % 2 == 0:
            add(name, ChannelShuffle(2))
        case _ if min(height, width) >= 3 and max(height * width, channels) < MAX_ELEMENTS:
            add(name, draw(st.sampled_from(maps)))


def draw_weights(draw: Callable[[st.SearchStrategy[T]], T], graph: Graph) -> Mapping[str, Array]:
    """Return weights as after training, with some extreme tensors and some zero filters."""
    weights: dict[str, Array] = {}
    for name, tensor in sample_weights(graph).items():
        if name.endswith(".var"):
            weights[name] = tensor
            continue
        dead = draw(st.sampled_from((None, None, 0, -1)))
        scaled = tensor * np.float32(draw(st.sampled_from(FACTORS)))
        if dead is not None:
            scaled[dead] = 0
        weights[name] = scaled
    return weights
