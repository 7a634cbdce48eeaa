"""Removal of training-only parts."""

import pytest

from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.ops import Conv, Relu
from tcc.compiler.passes import drop_train_only
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights


def test_training_heads_are_dropped_with_their_producers() -> None:
    original = build_dense()
    pruned = drop_train_only(Model(original, sample_weights(original)))
    lines = print_graph(original).splitlines()
    assert print_graph(pruned.graph).splitlines() == [line for line in lines if "aux" not in line]
    kept_params = [name for name in original.params if not name.startswith("aux")]
    assert list(pruned.weights) == kept_params


def test_dead_nodes_are_dropped_with_their_weights() -> None:
    add = NetBuilder(3, 4, 4)
    add("conv", Conv(2, (1, 1)))
    add("unread", Conv(5, (1, 1)))
    add("unread_relu", Relu())
    add("relu", Relu(), "conv")
    original = add.build()
    weights = {**sample_weights(original), "stray.weight": sample_weights(original)["conv.bias"]}
    pruned = drop_train_only(Model(original, weights))
    assert [node.name for node in pruned.graph.nodes] == ["conv", "relu"]
    assert list(pruned.weights) == ["conv.weight", "conv.bias"]


@pytest.mark.parametrize("outputs", [("conv",), ("image",)])
def test_unread_inputs_stay(outputs: tuple[str, ...]) -> None:
    add = NetBuilder(3, 4, 4)
    add("conv", Conv(2, (1, 1)))
    original = add.build(*(Output(f"out_{name}", name) for name in outputs))
    pruned = drop_train_only(Model(original, sample_weights(original)))
    assert pruned.graph.inputs == original.inputs
    assert [node.name for node in pruned.graph.nodes] == [n for n in outputs if n != "image"]


@pytest.mark.parametrize("graph", [build_gated()])
def test_a_graph_without_dead_parts_is_unchanged(graph: Graph) -> None:
    pruned = drop_train_only(Model(graph, sample_weights(graph)))
    assert pruned.graph == graph
    assert pruned.weights.keys() == graph.params.keys()
