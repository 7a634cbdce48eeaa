"""Nodes that are equal, in a row or beside each other become one."""

import pytest
from nets import Steps
from passes_nets import after, chain, model, words

from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.printer import show
from tcc.compiler.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    DepthwiseConv,
    Linear,
    MaxPool,
    Op,
    Relu,
    Scale,
    ScaleShift,
)
from tcc.compiler.passes import common_subexpression, merge_linear, merge_parallel


def forked(*ops: Op) -> Steps:
    """Return each op on the input, and the sum of all."""
    add = Steps(4, 6, 6)
    ends = [add(f"{op.word}_{i}", op, "image") for i, op in enumerate(ops)]
    add("join", Concat(), *ends)
    return add


def test_the_same_step_on_the_same_value_is_done_once() -> None:
    add = forked(Relu(), MaxPool((3, 3), (1, 1), 1), Relu())
    one = add("one", Relu(), "relu_0")
    two = add("two", Relu(), "relu_2")
    add("sum", Add(), one, two)
    before = model(add.graph(Output("a", "join"), Output("b", "sum"), Output("c", "two")))
    assert after(before, common_subexpression) == ["relu", "max_pool", "concat", "relu", "add"]
    assert common_subexpression(before).graph.outputs[2].value == "one"


def test_equal_weights_make_layers_equal_and_others_do_not() -> None:
    before = model(forked(Conv(4, (1, 1)), Conv(4, (1, 1)), Conv(4, (1, 1), bias=False)).graph())
    assert after(before, common_subexpression) == words(before)
    w = dict(before.weights)
    w |= {f"conv_1.{role}": w[f"conv_0.{role}"].copy() for role in ("weight", "bias")}
    equal = Model(before.graph, w)
    assert after(equal, common_subexpression) == ["conv", "conv", "concat"]
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
    ],
)
def test_convolutions_in_a_row_become_one(ops: tuple[Op, ...]) -> None:
    before = chain(*ops)
    assert after(before, merge_linear) == ["conv"]
    assert cost(merge_linear(before).graph).macs < cost(before.graph).macs


@pytest.mark.parametrize(
    "ops",
    [
        (Conv(1, (1, 1)), Conv(6, (1, 1))),  # a narrow middle is cheaper
        (DepthwiseConv((3, 3)), Conv(6, (1, 1))),
        (Conv(7, (1, 1)), Conv(2, (3, 3), padding=1)),  # the border takes no bias
        (Conv(4, (3, 3)), Conv(2, (3, 3))),
        (Conv(4, (1, 1), groups=2), Conv(2, (1, 1))),
        (Conv(4, (1, 1), (2, 2)), Conv(2, (3, 3))),
        (Conv(6, (1, 1)), Relu(), Conv(2, (1, 1))),
    ],
)
def test_what_costs_more_or_cannot_be_one_stays(ops: tuple[Op, ...]) -> None:
    before = chain(*ops)
    assert after(before, merge_linear) == words(before)


def test_linear_layers_in_a_row_become_one() -> None:
    before = chain(Linear(9, bias=False), Linear(3), shape=(8,))
    assert after(before, merge_linear) == ["linear"]
    wide = chain(Linear(1), Linear(8), shape=(8,))
    assert after(wide, merge_linear) == ["linear", "linear"]


@pytest.mark.parametrize("shape", [(5, 4, 3), (5,)])
def test_scales_in_a_row_become_one(shape: tuple[int, ...]) -> None:
    before = chain(BatchNorm(), Scale(2.0, -1.0), ScaleShift(), shape=shape)
    assert after(before, merge_linear) == ["scale_shift"]


def test_a_layer_that_others_read_stays() -> None:
    add = Steps(4, 6, 6)
    add("one", Conv(4, (1, 1)))
    add("two", Conv(2, (1, 1)))
    before = model(add.graph(Output("a", "two"), Output("b", "one")))
    assert after(before, merge_linear) == ["conv", "conv"]


def test_convolutions_beside_each_other_become_one() -> None:
    before = model(
        forked(Conv(3, (1, 1)), Conv(2, (3, 3), padding=1), Conv(5, (1, 1), bias=False)).graph()
    )
    assert after(before, merge_parallel) == ["conv", "slice", "conv", "slice", "concat"]
    text = show(merge_parallel(before).graph)
    assert "%conv_0/conv = conv(%image) {filters=8, kernel=[1, 1]" in text
    assert "%conv_0 = slice(%conv_0/conv) {start=0, stop=3, step=1}" in text
    assert "%conv_2 = slice(%conv_0/conv) {start=3, stop=8, step=1}" in text
    assert cost(merge_parallel(before).graph).macs == cost(before.graph).macs


def test_those_that_step_otherwise_stay_apart() -> None:
    add = Steps(4, 6, 6)
    add("one", Conv(3, (1, 1)), "image")
    add("two", Conv(3, (1, 1), (2, 2)), "image")
    add("three", Conv(4, (1, 1), groups=2), "image")
    before = model(add.graph(*(Output(f"out_{n}", n) for n in ("one", "two", "three"))))
    assert after(before, merge_parallel) == words(before)
