"""Removal of ops that do nothing at inference."""

import numpy as np
import pytest
import torch
from passes_nets import make_chain, run_passes

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.op import Call
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    Op,
    Pad,
    Relu,
    Resize,
    Scale,
    ScaleShift,
    Slice,
)
from tcc.compiler.passes import drop_identity
from tcc.testing.nets import NetBuilder, build_gated
from tcc.testing.op_cases import CASES, build_op_model, sample_weights


def test_readers_read_the_input_instead() -> None:
    add = NetBuilder(2, 4, 4, name="drops")
    add("start", Identity())
    add("conv", Conv(2, (1, 1), bias=False))
    add("drop_1", Dropout())
    add("drop_2", Dropout(0.2))
    add("relu", Relu())
    add("sum", Add(), "drop_1", "relu", "start")
    add("end", Identity())
    original = add.build(Output("logits", "end"), Output("middle", "drop_2"))
    model = Model(original, sample_weights(original))
    lean = drop_identity(model)
    assert print_graph(lean.graph) == (
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
    old, new = (create_module(m.graph, m.weights).eval()(x) for m in (model, lean))
    assert all(torch.equal(old[name], new[name]) for name in ("logits", "middle"))


def test_an_output_may_become_the_input() -> None:
    add = NetBuilder(2, 4, 4)
    add("drop", Dropout())
    lean = drop_identity(Model(add.build(), {}))
    assert lean.graph.nodes == ()
    assert lean.graph.outputs == (Output("logits", "image"),)


def test_a_graph_without_identities_is_unchanged() -> None:
    graph = build_gated()
    model = Model(graph, sample_weights(graph))
    assert drop_identity(model).graph == graph


def test_every_inference_identity_is_dropped() -> None:
    nothing = {
        name: build_op_model(case)
        for name, case in CASES.items()
        if {call.function for call in _build_onnx_calls(build_op_model(case))} == {"Identity"}
    }
    assert {model.graph.nodes[0].op.keyword for model in nothing.values()} == {
        "dropout",
        "stochastic_depth",
        "identity",
    }
    for model in nothing.values():
        assert drop_identity(model).graph.nodes == ()


@pytest.mark.parametrize(
    "op",
    [
        Slice(0, 6), Slice(), ChannelShuffle(1), ChannelShuffle(6), Pad(0), Pad(0, 3.0), Concat(),
        MaxPool((1, 1)), AvgPool((1, 1)), Scale(),
    ],
)  # fmt: skip
def test_ops_without_effect_are_dropped(op: Op) -> None:
    assert run_passes(make_chain(Relu(), op, shape=(6, 4, 5)), drop_identity) == ["relu"]


def test_a_flatten_of_a_vector_is_dropped() -> None:
    original = make_chain(Flatten(), Relu(), Flatten(), shape=(6, 4, 5))
    assert run_passes(original, drop_identity) == ["flatten", "relu"]


def test_only_a_scale_of_ones_is_dropped() -> None:
    original = make_chain(Relu(), ScaleShift(), shape=(6, 4, 5))
    assert run_passes(original, drop_identity) == ["relu", "scale_shift"]
    weight, bias = np.ones((6, 1, 1), np.float32), np.zeros((6, 1, 1), np.float32)
    names = original.graph.nodes[1].params
    ones = Model(original.graph, dict(zip(names, (weight, bias), strict=True)))
    assert run_passes(ones, drop_identity) == ["relu"]
    shifted = Model(original.graph, dict(zip(names, (weight, bias + 1), strict=True)))
    assert run_passes(shifted, drop_identity) == ["relu", "scale_shift"]


@pytest.mark.parametrize(
    "op",
    [
        Slice(1), Slice(step=2), ChannelShuffle(2), Pad((0, 1, 0, 0)), MaxPool((1, 1), (2, 2)),
        MaxPool((3, 3), (1, 1), 1), AvgPool((2, 2)), Scale(1.0, 0.5), Scale(0.5), Resize((2, 5)),
    ],
)  # fmt: skip
def test_ops_with_an_effect_stay(op: Op) -> None:
    assert run_passes(make_chain(Relu(), op, shape=(6, 4, 5)), drop_identity) == [
        "relu",
        op.keyword,
    ]


def _build_onnx_calls(model: Model) -> tuple[Call, ...]:
    (node,) = model.graph.nodes
    return node.op.onnx(*model.graph.get_input_types(node), opset=17)
