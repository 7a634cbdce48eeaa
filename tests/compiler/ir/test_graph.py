"""Derived properties of a graph, and findings of the verifier."""

from dataclasses import FrozenInstanceError, replace

import pytest

from tcc.compiler.ir.graph import Graph, GraphError, Input, Node, Output, make_node, verify
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Add, BatchNorm, Concat, Conv, Linear, Relu
from tcc.testing.nets import NetBuilder, build_dense, build_gated

MAP = TensorType((4, 6, 6))


def build_small_graph() -> Graph:
    add = NetBuilder(4, 6, 6)
    add("conv", Conv(4, (1, 1)))
    add("relu", Relu())
    add("sum", Add(), "conv", "relu", "conv")
    return add.build()


def replace_node(node: str, **fields: object) -> Graph:
    graph = build_small_graph()
    nodes = tuple(replace(n, **fields) if n.name == node else n for n in graph.nodes)
    return replace(graph, nodes=nodes)


BROKEN = {
    "net: two inputs are named image": replace(
        build_small_graph(), inputs=build_small_graph().inputs * 2
    ),
    "net: conv is defined twice": replace_node("relu", name="conv"),
    "net: image is defined twice": replace_node("conv", name="image"),
    "net: relu reads later, which no earlier node defines": replace_node("relu", inputs=("later",)),
    "net: conv reads relu, which no earlier node defines": replace_node("conv", inputs=("relu",)),
    "net: relu has 2 inputs": replace_node("relu", inputs=("conv", "image")),
    "net: sum has 0 inputs": replace_node("sum", inputs=()),
    "net: conv is 4x6x6, but its op infers 8x6x6": replace_node("conv", op=Conv(8, (1, 1))),
    "net: relu is 4x6x5, but its op infers 4x6x6": replace_node("relu", type=TensorType((4, 6, 5))),
    "net: conv: a window of height 9 does not fit the input: the input is 6x6, padded height 6": (
        replace_node("conv", op=Conv(4, (9, 9)))
    ),
    "net: conv has 1 weight tensors": replace_node("conv", params=("conv.weight",)),
    "net: two outputs share a name": replace(
        build_small_graph(), outputs=(Output("y", "sum"), Output("y", "relu"))
    ),
    "net: output y is not defined": replace(build_small_graph(), outputs=(Output("y", "nothing"),)),
    "net: output image has the name of an input": replace(
        build_small_graph(), outputs=(Output("image", "sum"),)
    ),
}


@pytest.mark.parametrize(("message", "graph"), BROKEN.items(), ids=BROKEN)
def test_the_verifier_names_the_broken_rule(message: str, graph: Graph) -> None:
    with pytest.raises(GraphError) as caught:
        verify(graph)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "graph", [build_small_graph(), build_dense(), build_gated()], ids=lambda g: g.name
)
def test_a_valid_graph_is_returned_unchanged(graph: Graph) -> None:
    assert verify(graph) is graph


def test_types_are_those_of_inputs_and_nodes() -> None:
    graph = build_small_graph()
    assert dict(graph.types) == dict.fromkeys(("image", "conv", "relu", "sum"), MAP)
    assert graph.get_input_types(graph.nodes[2]) == (MAP, MAP, MAP)


def test_readers_are_listed_once_and_in_order() -> None:
    readers = {
        value: [n.name for n in nodes] for value, nodes in build_small_graph().readers.items()
    }
    assert readers == {"image": ["conv"], "conv": ["relu", "sum"], "relu": ["sum"], "sum": []}


def test_a_sole_reader_is_the_only_use_of_a_value() -> None:
    graph = build_small_graph()
    assert graph.find_sole_reader("relu") is graph.nodes[2]
    assert graph.find_sole_reader("conv") is None
    assert graph.find_sole_reader("sum") is None
    extended = replace(graph, outputs=(*graph.outputs, Output("middle", "relu")))
    assert extended.find_sole_reader("relu") is None


def test_params_are_in_order_of_first_use() -> None:
    graph = build_dense()
    assert list(graph.params)[:8] == [
        "stem.weight",
        "stem.bias",
        "stem_bn.weight",
        "stem_bn.bias",
        "stem_bn.mean",
        "stem_bn.var",
        "layer/depthwise.weight",
        "layer/bn.weight",
    ]
    assert graph.params["layer/depthwise.weight"].shape == (8, 1, 3, 3)
    assert [graph.params[f"bn.{role}"].trainable for role in ("weight", "var")] == [True, False]


def test_weights_may_be_shared() -> None:
    first_linear = make_node("first", Linear(4), ("x",), (TensorType((4,)),))
    assert first_linear is not None
    second = replace(first_linear, name="second", inputs=("first",))
    graph = verify(
        Graph(
            "tied",
            (Input("x", TensorType((4,))),),
            (first_linear, second),
            (Output("y", "second"),),
        )
    )
    assert list(graph.params) == ["first.weight", "first.bias"]


def test_a_graph_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        build_small_graph().name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        build_small_graph().nodes[0].name = "other"  # type: ignore[misc]


def test_weight_names_come_from_the_node_path() -> None:
    node = make_node("block/bn", BatchNorm(), ("x",), (MAP,))
    assert node == Node(
        "block/bn",
        BatchNorm(),
        ("x",),
        ("block/bn.weight", "block/bn.bias", "block/bn.mean", "block/bn.var"),
        MAP,
    )


def test_type_inference_uses_all_inputs() -> None:
    node = make_node("concat", Concat(), ("a", "b"), (MAP, TensorType((3, 6, 6))))
    assert node is not None
    assert node.type == TensorType((7, 6, 6))
