"""The printed form of a graph."""

from dataclasses import replace

from tcc.compiler.ir.graph import Graph, Input, Output, make_node, verify
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Conv, Linear, Relu, Softmax
from tcc.testing.nets import NetBuilder, build_dense


def test_a_graph_is_printed_as_a_program() -> None:
    add = NetBuilder(3, 8, 8, name="tiny")
    add("stem", Conv(4, (3, 3), (2, 2), 1, bias=False))
    add("block_1/relu", Relu())
    assert print_graph(add.build(Output("maps", "block_1/relu"))) == (
        "graph tiny {\n"
        "  input %image : float32[3x8x8]\n"
        "  %stem = conv(%image) {filters=4, kernel=[3, 3], stride=[2, 2], padding=[1, 1, 1, 1],"
        " dilation=[1, 1], groups=1, bias=false} : float32[4x4x4]\n"
        "  %block_1/relu = relu(%stem) : float32[4x4x4]\n"
        "  output maps = %block_1/relu\n"
        "}\n"
    )


def test_outputs_show_activation_and_training_only() -> None:
    lines = print_graph(build_dense()).splitlines()
    assert lines[-3:] == [
        "  output logits = %fc softmax",
        "  output aux = %aux_fc train_only",
        "}",
    ]


def test_shared_weights_are_marked() -> None:
    kind = TensorType((4,))
    first_linear = make_node("first", Linear(4), ("x",), (kind,))
    assert first_linear is not None
    second = replace(first_linear, name="second", inputs=("first",))
    graph = verify(
        Graph("tied", (Input("x", kind),), (first_linear, second), (Output("y", "second"),))
    )
    assert "%first = linear(%x) {units=4, bias=true} : float32[4]" in print_graph(graph)
    assert (
        "%second = linear(%first) {units=4, bias=true} params(first.weight, first.bias)"
        " : float32[4]" in print_graph(graph)
    )


def test_equal_graphs_print_the_same_without_locations() -> None:
    original = NetBuilder(4)
    original("softmax", Softmax())
    assert print_graph(original.build()) == print_graph(original.build())
    assert ".yaml" not in print_graph(build_dense())
