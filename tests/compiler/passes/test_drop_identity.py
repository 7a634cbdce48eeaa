"""Removing what does nothing at inference."""

import torch
from nets import Steps, gated
from op_cases import CASES, one_op, trained

from tcc.compiler.graph import Model, Output
from tcc.compiler.lower.torch import module
from tcc.compiler.ops import Add, Conv, Dropout, Identity, Relu
from tcc.compiler.ops.base import Call
from tcc.compiler.passes import drop_identity
from tcc.compiler.text import show


def test_readers_read_the_input_instead() -> None:
    add = Steps(2, 4, 4, name="drops")
    add("start", Identity())
    add("conv", Conv(2, (1, 1), bias=False))
    add("drop_1", Dropout())
    add("drop_2", Dropout(0.2))
    add("relu", Relu())
    add("sum", Add(), "drop_1", "relu", "start")
    add("end", Identity())
    before = add.graph(Output("logits", "end"), Output("middle", "drop_2"))
    model = Model(before, trained(before))
    after = drop_identity(model)
    assert show(after.graph) == (
        "graph drops {\n"
        "  input %image : float32[2x4x4]\n"
        "  %conv = conv(%image) {filters=2, kernel=[1, 1], stride=[1, 1], padding=[0, 0, 0, 0],"
        " dilation=[1, 1], groups=1, bias=false} : float32[2x4x4]\n"
        "  %relu = relu(%conv) : float32[2x4x4]\n"
        "  %sum = add(%conv, %relu, %image) : float32[2x4x4]\n"
        "  output logits = %sum\n"
        "  output middle = %conv\n"
        "}\n"
    )
    x = torch.randn(2, 2, 4, 4)
    old, new = (module(m.graph, m.weights).eval()(x) for m in (model, after))
    assert all(torch.equal(old[name], new[name]) for name in ("logits", "middle"))


def test_an_output_may_become_the_input_itself() -> None:
    add = Steps(2, 4, 4)
    add("drop", Dropout())
    after = drop_identity(Model(add.graph(), {}))
    assert after.graph.nodes == ()
    assert after.graph.outputs == (Output("logits", "image"),)


def test_a_graph_without_them_stays_as_it_is() -> None:
    graph = gated()
    model = Model(graph, trained(graph))
    assert drop_identity(model).graph == graph


def test_every_op_that_does_nothing_at_inference_is_dropped() -> None:
    nothing = {
        name: one_op(case)
        for name, case in CASES.items()
        if {call.function for call in _calls(one_op(case))} == {"Identity"}
    }
    assert {model.graph.nodes[0].op.word for model in nothing.values()} == {
        "dropout",
        "stochastic_depth",
        "identity",
    }
    for model in nothing.values():
        assert drop_identity(model).graph.nodes == ()


def _calls(model: Model) -> tuple[Call, ...]:
    (node,) = model.graph.nodes
    return node.op.onnx(*model.graph.input_types(node), opset=17)
