"""Redundant clamps are removed, and others move to the cheapest position."""

import pytest
from passes_nets import make_chain, make_model, run_passes

from tcc.compiler.ir.graph import Output
from tcc.compiler.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mul,
    Op,
    Pad,
    Relu,
    Relu6,
    Resize,
    Scale,
    Sigmoid,
    Slice,
    Softmax,
)
from tcc.compiler.passes import fuse_clamps
from tcc.testing.nets import NetBuilder


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ((Relu(), Relu()), ["relu"]),
        ((Relu6(), Relu6()), ["relu6"]),
        ((Relu6(), Relu()), ["relu6"]),
        ((Relu(), Relu6()), ["relu6"]),
        ((Relu(), LeakyRelu()), ["relu"]),
        ((LeakyRelu(), Relu()), ["relu"]),
        ((LeakyRelu(), Relu6()), ["relu6"]),
        ((LeakyRelu(-0.5), Relu()), ["leaky_relu", "relu"]),
        ((Sigmoid(), Relu6()), ["sigmoid"]),
        ((HardSigmoid(), Relu()), ["hard_sigmoid"]),
        ((Softmax(), Relu6()), ["softmax"]),
        ((HardSwish(), Relu()), ["hard_swish", "relu"]),
        ((Relu(), Scale(2.0), Relu()), ["relu", "scale", "relu"]),
        ((Relu(), MaxPool((3, 3), (1, 1), 1), Relu()), ["relu", "max_pool"]),
        ((Relu(), AvgPool((2, 2)), Relu()), ["relu", "avg_pool"]),
        ((Relu6(), AvgPool((2, 2)), Relu6()), ["relu6", "avg_pool", "relu6"]),
        ((Relu(), GlobalAvgPool(), Relu()), ["relu", "global_avg_pool"]),
        ((Relu6(), GlobalMaxPool(), Relu6()), ["relu6", "global_max_pool"]),
        ((Relu(), Slice(0, 3), ChannelShuffle(3), Flatten(), Relu()),
         ["relu", "slice", "channel_shuffle", "flatten"]),
        ((Relu(), Resize(scale=(2, 2), mode="bilinear"), Relu()), ["relu", "resize"]),
        ((Relu6(), Resize(scale=(2, 2)), Relu6()), ["relu6", "resize"]),
        ((Relu(), Pad(1, 0.5), Relu()), ["relu", "pad"]),
        ((Relu(), Pad(1, -0.5), Relu()), ["relu", "pad", "relu"]),
        ((Relu6(), Pad(1, 7.0), Relu6()), ["relu6", "pad", "relu6"]),
        ((Pad(1), Relu()), ["pad", "relu"]),
    ],
)  # fmt: skip
def test_clamps_of_values_in_range_are_removed(ops: tuple[Op, ...], expected: list[str]) -> None:
    assert run_passes(make_chain(*ops), fuse_clamps) == expected


@pytest.mark.parametrize("join", [Add(), Mul(), Concat()])
def test_joins_of_nonnegative_values_are_not_clamped(join: Op) -> None:
    add = NetBuilder(4, 5, 5)
    left_branch, right_branch = add("one", Relu()), add("two", Sigmoid(), "image")
    add("join", join, left_branch, right_branch)
    add("relu", Relu())
    assert run_passes(make_model(add.build()), fuse_clamps) == ["relu", "sigmoid", join.keyword]


def test_a_join_with_a_negative_value_is_clamped() -> None:
    add = NetBuilder(4, 5, 5)
    left_branch = add("one", Relu())
    add("join", Add(), left_branch, "image")
    add("relu", Relu())
    assert run_passes(make_model(add.build()), fuse_clamps) == ["relu", "add", "relu"]


@pytest.mark.parametrize("clamp", [Relu(), Relu6()])
def test_a_clamp_moves_before_a_max_pool(clamp: Op) -> None:
    original = make_chain(Conv(4, (1, 1)), MaxPool((3, 3), (2, 2), 1), clamp)
    assert run_passes(original, fuse_clamps) == ["conv", clamp.keyword, "max_pool"]
    name = f"{clamp.keyword}_2"
    assert [n.name for n in fuse_clamps(original).graph.nodes][1:] == [
        f"{name}/{clamp.keyword}",
        name,
    ]


def test_a_clamp_that_cannot_be_fused_stays_in_place() -> None:
    assert run_passes(make_chain(MaxPool((2, 2)), Relu()), fuse_clamps) == ["max_pool", "relu"]
    add = NetBuilder(4, 6, 6)
    conv = add("conv", Conv(4, (1, 1)))
    add("pool", MaxPool((2, 2)))
    add("relu", Relu())
    original = make_model(add.build(Output("a", "relu"), Output("b", conv)))
    assert run_passes(original, fuse_clamps) == ["conv", "max_pool", "relu"]
