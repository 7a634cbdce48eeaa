"""Small random networks: a feature map through random steps, forks and joins, then a head."""

from hypothesis import strategies as st

from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardSwish,
    Identity,
    LeakyRelu,
    Linear,
    MaxPool,
    Mul,
    Op,
    Pad,
    Relu,
    Relu6,
    Scale,
    ScaleShift,
    Sigmoid,
    Slice,
)
from tcc.testing.nets import NetBuilder


def same_shape(channels: int) -> st.SearchStrategy[Op]:
    """Return steps that keep the shape of a map."""
    every = [
        BatchNorm(), ScaleShift(), Scale(0.5, -1.0), Scale(2.0), Relu(), Relu(), Relu6(),
        Sigmoid(), LeakyRelu(0.2), HardSwish(), Dropout(), Identity(),
        Slice(0, channels), ChannelShuffle(channels), Pad(0),
        Conv(channels, (1, 1)), Conv(channels, (1, 1)), Conv(channels, (3, 3), padding=1, bias=False),
        Conv(channels, (3, 3), padding=1, groups=channels), Conv(channels, (1, 1), groups=channels),
        MaxPool((3, 3), (1, 1), 1),
        AvgPool((3, 3), (1, 1), 1), AvgPool((3, 3), (1, 1), 1, count_include_pad=False),
    ]  # fmt: skip
    return st.sampled_from(every)


def other_shape(channels: int) -> st.SearchStrategy[Op]:
    """Return steps that change the shape of a map of at least 4x4."""
    every = [
        Conv(channels + 2, (1, 1)), Conv(6, (1, 1), bias=False), Conv(4, (3, 3), (2, 2), 1),
        Conv(2 * channels, (1, 1), groups=channels), ConvTranspose(4, (2, 2)),
        AvgPool((2, 2)), AvgPool((3, 3), (2, 2), ceil=True), MaxPool((2, 2)), Pad(1), Pad(1, 0.5),
        Slice(0, None, 2),
    ]  # fmt: skip
    return st.sampled_from(every)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return a graph with one input of three channels and one or two outputs."""
    size = draw(st.integers(6, 9))
    add = NetBuilder(3, size, size)
    names = iter(f"n{i}" for i in range(1000))
    for _ in range(draw(st.integers(1, 5))):
        _add_block(draw, add, names)
    middle = add.last_value
    if draw(st.booleans()):
        _add_head(draw, add, names)
    outputs = [Output("logits", add.last_value)]
    if draw(st.booleans()) and middle != add.last_value:
        outputs.append(Output("middle", middle))
    return add.build(*outputs)


def _add_block(draw, add: NetBuilder, names) -> None:
    channels, *size = add.types[add.last_value].shape
    match draw(st.sampled_from(["same", "other", "fork"])):
        case "other" if min(size) >= 4:
            add(next(names), draw(other_shape(channels)))
        case "fork":
            start, branch_outputs = add.last_value, []
            for _ in range(draw(st.integers(2, 3))):
                add.last_value = start
                for _ in range(draw(st.integers(0, 2))):
                    add(next(names), draw(same_shape(channels)))
                branch_outputs.append(add.last_value)
            add(next(names), draw(st.sampled_from([Add(), Mul(), Concat()])), *branch_outputs)
        case _:
            for _ in range(draw(st.integers(1, 3))):
                add(next(names), draw(same_shape(channels)))


def _add_head(draw, add: NetBuilder, names) -> None:
    if draw(st.booleans()):
        add(next(names), GlobalAvgPool())
    add(next(names), Flatten())
    for _ in range(draw(st.integers(1, 2))):
        add(next(names), Linear(draw(st.integers(1, 5)), draw(st.booleans())))
        between = [Relu(), BatchNorm(), Dropout(), ScaleShift(), Scale(2.0, 1.0)]
        for op in draw(st.lists(st.sampled_from(between), max_size=2)):
            add(next(names), op)
