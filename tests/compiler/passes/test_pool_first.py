"""Pools move before 1x1 convolutions."""

import numpy as np
import pytest

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Model, Output, verify
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.ops import AvgPool, BatchNorm, Conv, GlobalAvgPool, MaxPool, Op, Relu
from tcc.compiler.passes import FOLDED, INFERENCE, pool_first, run
from tcc.compiler.reference import float_program
from tcc.compiler.zoo.shipped import list_specs
from tcc.testing.nets import NetBuilder, create_span
from tcc.testing.op_cases import sample_inputs, sample_weights


def build_model(*ops: Op, shape: tuple[int, ...] = (6, 8, 8)) -> Model:
    add = NetBuilder(*shape)
    for index, op in enumerate(ops):
        add(f"{op.keyword}_{index}", op, at=create_span(index + 1))
    graph = add.build()
    return Model(graph, sample_weights(graph))


def list_op_names(of: Model) -> list[str]:
    return [node.op.keyword for node in of.graph.nodes]


def assert_agree(rewritten: Model, original: Model) -> None:
    verify(rewritten.graph)
    (x,) = sample_inputs(original, 1)
    (got,), (expected,) = float_program.run(rewritten, [x[0]]), float_program.run(original, [x[0]])
    for name, y in expected.items():
        bound = pool_first.bound * max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(got[name], y, rtol=0, atol=bound)


def test_the_convolution_gets_the_name_of_the_pool() -> None:
    original = build_model(Conv(4, (1, 1)), AvgPool((2, 2)))
    rewritten = pool_first(original)
    assert print_graph(rewritten.graph) == (
        "graph net {\n"
        "  input %image : float32[6x8x8]\n"
        "  %avg_pool_1/avg_pool = avg_pool(%image) {kernel=[2, 2], stride=[2, 2],"
        " padding=[0, 0, 0, 0], ceil=false, count_include_pad=true} : float32[6x4x4]\n"
        "  %avg_pool_1 = conv(%avg_pool_1/avg_pool) {filters=4, kernel=[1, 1], stride=[1, 1],"
        " padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, bias=true} : float32[4x4x4]\n"
        "  output logits = %avg_pool_1\n"
        "}\n"
    )
    assert [node.at for node in rewritten.graph.nodes] == [create_span(2), create_span(1)]
    assert list(rewritten.weights) == ["avg_pool_1.weight", "avg_pool_1.bias"]
    assert_agree(rewritten, original)


@pytest.mark.parametrize(
    ("conv", "pool"),
    [
        (Conv(4, (1, 1), groups=2), AvgPool((2, 2))),
        (Conv(6, (1, 1), groups=6), AvgPool((2, 2))),
        (Conv(5, (1, 1)), GlobalAvgPool()),
        (Conv(9, (1, 1)), AvgPool((3, 3), (2, 2))),
        (Conv(9, (1, 1)), AvgPool((3, 3), (2, 2), 1, count_include_pad=False)),
        (Conv(9, (1, 1)), AvgPool((3, 3), (2, 2), ceil=True)),
        (Conv(9, (1, 1), bias=False), AvgPool((3, 3), (2, 2), 1)),
    ],
)
def test_commuting_pools_are_moved(conv: Conv, pool: Op) -> None:
    original = build_model(conv, pool)
    rewritten = pool_first(original)
    assert list_op_names(rewritten) == [pool.keyword, "conv"]
    assert_agree(rewritten, original)


@pytest.mark.parametrize(
    "ops",
    [
        (Conv(9, (1, 1)), AvgPool((3, 3), (2, 2), 1)),  # the bias does not apply to the padding
        (Conv(9, (1, 1)), MaxPool((2, 2))),
        (Conv(9, (1, 1)), Relu(), AvgPool((2, 2))),
        (Conv(9, (1, 1), padding=1), AvgPool((2, 2))),
        (Conv(9, (1, 1), (2, 2)), AvgPool((2, 2))),
        (Conv(9, (3, 3)), AvgPool((2, 2))),
        (Conv(1, (1, 1)), AvgPool((5, 5), (1, 1))),  # six times the pooling saves few products
    ],
)
def test_non_commuting_and_unprofitable_pools_stay(ops: tuple[Op, ...]) -> None:
    original = build_model(*ops)
    assert pool_first(original).graph == original.graph


def test_a_pool_stays_if_the_convolution_has_other_readers() -> None:
    add = NetBuilder(6, 8, 8)
    add("conv", Conv(4, (1, 1)))
    add("pool", AvgPool((2, 2)))
    graph = add.build(Output("a", "pool"), Output("b", "conv"))
    assert pool_first(Model(graph, sample_weights(graph))).graph == graph


def test_a_pool_moves_before_two_convolutions() -> None:
    original = build_model(Conv(8, (1, 1)), BatchNorm(), Conv(6, (1, 1)), AvgPool((2, 2)))
    rewritten = run(original, (*FOLDED, pool_first, pool_first))
    assert list_op_names(rewritten) == ["avg_pool", "conv", "conv"]
    assert_agree(rewritten, original)


def test_ddsnet_needs_a_fifth_fewer_macs() -> None:
    graph = load(list_specs()["ddsnet"]).graph
    original = Model(graph, weights.make_placeholders(graph))
    assert compute_cost(run(original, FOLDED).graph).macs == 283_742_064
    assert compute_cost(run(original, INFERENCE).graph).macs == 221_404_656
