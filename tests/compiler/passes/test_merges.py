"""Equal, consecutive and parallel nodes are merged."""

import numpy as np
import pytest
import torch
from passes_nets import list_op_names, make_chain, make_model, run_passes

from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    DepthwiseConv,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Op,
    Relu,
    Scale,
    ScaleShift,
)
from tcc.compiler.passes import (
    INFERENCE,
    INT8,
    common_subexpression,
    fold_scale,
    merge_linear,
    merge_parallel,
    merge_sum,
    run,
)
from tcc.testing.nets import NetBuilder


def build_fork(*ops: Op) -> NetBuilder:
    """Return each op on the input, and the sum of all."""
    add = NetBuilder(4, 6, 6)
    branch_outputs = [add(f"{op.keyword}_{i}", op, "image") for i, op in enumerate(ops)]
    add("join", Concat(), *branch_outputs)
    return add


def test_equal_steps_on_one_value_are_merged() -> None:
    add = build_fork(Relu(), MaxPool((3, 3), (1, 1), 1), Relu())
    first_relu = add("one", Relu(), "relu_0")
    second_relu = add("two", Relu(), "relu_2")
    add("sum", Add(), first_relu, second_relu)
    original = make_model(add.build(Output("a", "join"), Output("b", "sum"), Output("c", "two")))
    assert run_passes(original, common_subexpression) == [
        "relu",
        "max_pool",
        "concat",
        "relu",
        "add",
    ]
    assert common_subexpression(original).graph.outputs[2].value == "one"


def test_only_layers_with_equal_weights_are_merged() -> None:
    original = make_model(
        build_fork(Conv(4, (1, 1)), Conv(4, (1, 1)), Conv(4, (1, 1), bias=False)).build()
    )
    assert run_passes(original, common_subexpression) == list_op_names(original)
    w = dict(original.weights)
    w |= {f"conv_1.{role}": w[f"conv_0.{role}"].copy() for role in ("weight", "bias")}
    equal = Model(original.graph, w)
    assert run_passes(equal, common_subexpression) == ["conv", "conv", "concat"]
    assert "conv_1.weight" not in common_subexpression(equal).weights


@pytest.mark.parametrize(
    "ops",
    [
        (Conv(6, (3, 3), (2, 2), padding=1), Conv(3, (1, 1))),
        (Conv(4, (1, 1)), Conv(3, (1, 1), (2, 2), bias=False)),
        (Conv(7, (1, 1)), Conv(2, (3, 3))),
        (Conv(7, (1, 1), bias=False), Conv(2, (3, 3), padding=1)),
        (Conv(6, (3, 3), groups=3), DepthwiseConv((1, 1))),
        (DepthwiseConv((1, 1)), Conv(4, (3, 3), groups=2, bias=False)),
        (DepthwiseConv((1, 1), bias=False), DepthwiseConv((3, 3), padding=1)),
        (DepthwiseConv((1, 1)), Conv(4, (1, 1))),
        (DepthwiseConv((1, 1)), Conv(4, (1, 1), (2, 2), groups=2, bias=False)),
    ],
)
def test_convolutions_in_a_row_are_merged(ops: tuple[Op, ...]) -> None:
    original = make_chain(*ops)
    assert run_passes(original, merge_linear) == ["conv"]
    assert compute_cost(merge_linear(original).graph).macs < compute_cost(original.graph).macs


@pytest.mark.parametrize(
    "ops",
    [
        (Conv(1, (1, 1)), Conv(6, (1, 1))),  # a narrow middle layer is cheaper
        (DepthwiseConv((3, 3)), Conv(6, (1, 1))),
        (Conv(7, (1, 1)), Conv(2, (3, 3), padding=1)),  # the bias does not apply to the padding
        (Conv(4, (3, 3)), Conv(2, (3, 3))),
        (Conv(4, (1, 1), groups=2), Conv(2, (1, 1))),
        (Conv(4, (1, 1), (2, 2)), Conv(2, (3, 3))),
        (Conv(6, (1, 1)), Relu(), Conv(2, (1, 1))),
    ],
)
def test_unprofitable_and_impossible_merges_are_skipped(ops: tuple[Op, ...]) -> None:
    original = make_chain(*ops)
    assert run_passes(original, merge_linear) == list_op_names(original)


def test_linear_layers_in_a_row_are_merged() -> None:
    original = make_chain(Linear(9, bias=False), Linear(3), shape=(8,))
    assert run_passes(original, merge_linear) == ["linear"]
    wide = make_chain(Linear(1), Linear(8), shape=(8,))
    assert run_passes(wide, merge_linear) == ["linear", "linear"]


@pytest.mark.parametrize("shape", [(5, 4, 3), (5,)])
def test_scales_in_a_row_are_merged(shape: tuple[int, ...]) -> None:
    original = make_chain(BatchNorm(), Scale(2.0, -1.0), ScaleShift(), shape=shape)
    assert run_passes(original, merge_linear) == ["scale_shift"]


def test_a_layer_with_other_readers_stays() -> None:
    add = NetBuilder(4, 6, 6)
    add("one", Conv(4, (1, 1)))
    add("two", Conv(2, (1, 1)))
    original = make_model(add.build(Output("a", "two"), Output("b", "one")))
    assert run_passes(original, merge_linear) == ["conv", "conv"]


def test_parallel_convolutions_are_merged() -> None:
    original = make_model(
        build_fork(Conv(3, (1, 1)), Conv(2, (3, 3), padding=1), Conv(5, (1, 1), bias=False)).build()
    )
    assert run_passes(original, merge_parallel) == ["conv", "slice", "conv", "slice", "concat"]
    text = print_graph(merge_parallel(original).graph)
    assert "%conv_0/conv = conv(%image) {filters=8, kernel=[1, 1]" in text
    assert "%conv_0 = slice(%conv_0/conv) {start=0, stop=3, step=1}" in text
    assert "%conv_2 = slice(%conv_0/conv) {start=3, stop=8, step=1}" in text
    assert compute_cost(merge_parallel(original).graph).macs == compute_cost(original.graph).macs


def test_convolutions_with_other_strides_stay_separate() -> None:
    add = NetBuilder(4, 6, 6)
    add("one", Conv(3, (1, 1)), "image")
    add("two", Conv(3, (1, 1), (2, 2)), "image")
    add("three", Conv(4, (1, 1), groups=2), "image")
    original = make_model(add.build(*(Output(f"out_{n}", n) for n in ("one", "two", "three"))))
    assert run_passes(original, merge_parallel) == list_op_names(original)


def build_sum(*branches: tuple[Op, ...], shape: tuple[int, int, int] = (6, 9, 9)) -> Model:
    """Return the sum of chains on one value. An empty chain is the value itself."""
    add, branch_outputs = NetBuilder(*shape), []
    start = add("start", Relu(), "image")
    for i, branch in enumerate(branches):
        add.last_value = start
        for j, op in enumerate(branch):
            add(f"branch_{i}_{j}", op)
        branch_outputs.append(add.last_value)
    add("sum", Add(), *branch_outputs)
    add("end", Relu())
    return make_model(add.build())


REP_VGG = ((Conv(6, (3, 3), padding=1, bias=False), BatchNorm()),
           (Conv(6, (1, 1), bias=False), BatchNorm()))  # fmt: skip
MOBILE_ONE = ((DepthwiseConv((3, 3), padding=1, bias=False), BatchNorm()),
              (DepthwiseConv((1, 1), bias=False), BatchNorm()))  # fmt: skip


@pytest.mark.parametrize(
    "branches",
    [
        (*REP_VGG, (BatchNorm(),)),
        (*MOBILE_ONE, MOBILE_ONE[0], (BatchNorm(),)),
        (REP_VGG[1], REP_VGG[1], (BatchNorm(),)),
        ((Conv(6, (3, 3), (2, 2), 1),), (Conv(6, (1, 1), (2, 2)),)),
        ((Conv(6, (3, 3), padding=1),), (Conv(6, (3, 1), padding=(1, 0)),), (Conv(6, (1, 3), padding=(0, 1)),)),
        ((Conv(6, (5, 5), padding=2),), (Conv(6, (3, 3), padding=2, dilation=(2, 2)),), ()),
        ((Conv(6, (3, 3), padding=2, dilation=(2, 2), groups=2),), (Conv(6, (1, 1), groups=6),)),
        ((Conv(6, (4, 4), padding=(1, 1, 2, 2), groups=2),), (Conv(6, (1, 1), groups=2),), (Scale(-2.0, 1.0),)),
        ((Conv(6, (3, 3), padding=(0, 0, 2, 2)),), (Conv(6, (2, 2), padding=(0, 0, 1, 1)),), ()),
        ((Conv(6, (1, 1)),), (DepthwiseConv((1, 1)),), (ScaleShift(),)),
    ],
)  # fmt: skip
def test_branches_of_a_sum_are_merged(branches: tuple[tuple[Op, ...], ...]) -> None:
    original = build_sum(*branches)
    assert run_passes(original, *INFERENCE) == ["relu", "conv", "relu"]
    assert compute_cost(merge_sum(original).graph).macs <= compute_cost(original.graph).macs
    assert run_passes(original, *INT8).count("add") == 0


@pytest.mark.parametrize(
    "branches",
    [
        ((Conv(6, (3, 3), padding=1), Relu()), (Conv(6, (1, 1)),)),
        ((Conv(6, (1, 3), padding=(0, 1)),), (Conv(6, (3, 1), padding=(1, 0)),)),  # 9 taps
        ((DepthwiseConv((3, 3), padding=1),), (Conv(6, (1, 1)),)),  # 9 * 6 instead of 9 + 6
        ((Conv(6, (3, 3), padding=2, dilation=(2, 2)),), (Conv(6, (2, 2), padding=(0, 0, 1, 1)),)),
        ((BatchNorm(),), ()),
        ((Conv(6, (1, 1)),), (GlobalAvgPool(), Conv(6, (1, 1)))),  # one value for all pixels
    ],
)  # fmt: skip
def test_branches_without_an_enclosing_window_stay(branches: tuple[tuple[Op, ...], ...]) -> None:
    original = build_sum(*branches)
    assert run_passes(original, merge_sum) == list_op_names(original)


def test_other_summands_of_a_sum_stay() -> None:
    original = build_sum(*REP_VGG, (MaxPool((3, 3), (1, 1), 1),), (BatchNorm(),))
    assert run_passes(original, *INFERENCE) == ["relu", "max_pool", "conv", "add", "relu"]
    text = print_graph(merge_sum(original).graph)
    assert "%sum = add(" in text


def test_nested_sums_are_merged() -> None:
    add = NetBuilder(6, 9, 9)
    start = add("start", Relu(), "image")
    add("wide", Conv(6, (3, 3), padding=1), start)
    add("narrow", Conv(6, (1, 1)), start)
    add("norm", BatchNorm(), start)
    add("inner", Add(), "narrow", "norm")
    add("outer", Add(), "wide", "inner")
    assert run_passes(make_model(add.build()), merge_sum) == ["relu", "conv"]


def test_a_branch_with_other_readers_stays() -> None:
    add = NetBuilder(6, 9, 9)
    add("wide", Conv(6, (3, 3), padding=1), "image")
    add("narrow", Conv(6, (1, 1)), "image")
    add("sum", Add(), "wide", "narrow")
    original = make_model(add.build(Output("a", "sum"), Output("b", "narrow")))
    assert run_passes(original, merge_sum) == list_op_names(original)


def test_a_branch_summed_twice_counts_twice() -> None:
    add = NetBuilder(6, 9, 9)
    add("wide", Conv(6, (3, 3), padding=1), "image")
    add("twice", Add(), "wide", "wide")
    assert run_passes(make_model(add.build()), merge_sum) == ["conv"]


def create_random_sum(stream: np.random.Generator) -> Model:
    """Return a sum of a convolution and others with windows inside its window."""
    tall, broad, top_pad, left_pad, groups = (
        int(n) for n in stream.integers((1, 1, 0, 0, 1), (6, 6, 3, 3, 4))
    )
    step = (int(stream.integers(1, 3)), 1)
    full_conv = Conv(
        6, (tall, broad), step, (top_pad, left_pad, 2, 2), groups=groups, bias=bool(top_pad)
    )
    add, branch_outputs = NetBuilder(6, 8, 9), []
    for i in range(int(stream.integers(2, 5))):
        # One tap of the first convolution, or two with a gap. Negative padding is skipped.
        row, column = (
            int(stream.integers(0, min(side, pad + 1)))
            for side, pad in ((tall, top_pad), (broad, left_pad))
        )
        gap = 2 if row + 2 < tall and i % 2 else 0
        pads = (
            top_pad - row,
            left_pad - column,
            2 - (tall - 1 - row - gap),
            2 - (broad - 1 - column),
        )
        fits = i and min(pads) >= 0
        part = Conv(6, (2 if gap else 1, 1), step, pads, (max(gap, 1), 1), 6 if i == 2 else groups)
        branch_outputs.append(add(f"branch_{i}", part if fits else full_conv, "image"))
        if i != 1:
            branch_outputs[-1] = add(f"norm_{i}", BatchNorm())
    add("sum", Add(), *(branch_outputs[i] for i in stream.permutation(len(branch_outputs))))
    return make_model(add.build())


@pytest.mark.parametrize("seed", range(20))
def test_merged_random_sums_match_in_float64(seed: int) -> None:
    original = create_random_sum(np.random.default_rng(seed))
    merged = run(original, (fold_scale, merge_sum))
    assert list_op_names(merged) == ["conv"]
    x = torch.tensor(np.random.default_rng(seed).standard_normal((1, 6, 8, 9)))
    with torch.no_grad():
        expected, actual = (
            create_module(variant.graph, variant.weights).eval().double()(x)["logits"]
            for variant in (original, merged)
        )
    # Each weight and bias is rounded to float32 once.
    assert float((actual - expected).abs().max()) <= 3e-7 * max(1.0, float(expected.abs().max()))
