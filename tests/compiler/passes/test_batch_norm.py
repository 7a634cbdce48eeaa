"""Batch norms are folded into the layer before them, or become scale and shift."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tcc.compiler.ir.graph import Graph, Model, Output, verify
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import (
    BatchNorm,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Flatten,
    Linear,
    Op,
    Relu,
)
from tcc.compiler.passes import fold_scale, lower_batch_norm
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights


def run_torch(model: Model) -> dict[str, np.ndarray]:
    verify(model.graph)
    assert model.weights.keys() == model.graph.params.keys()
    for name, param in model.graph.params.items():
        assert model.weights[name].shape == param.shape
        assert model.weights[name].dtype == np.float32
    x = torch.randn(
        3, *model.graph.inputs[0].type.shape, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        tensors = create_module(model.graph, model.weights).eval()(x)
    return {name: y.numpy() for name, y in tensors.items()}


def assert_agree(actual_model: Model, expected_model: Model) -> None:
    got, expected = run_torch(actual_model), run_torch(expected_model)
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        bound = 1e-5 * float(np.abs(y).max())
        np.testing.assert_allclose(got[name], y, rtol=1e-5, atol=bound)


def list_op_names(graph: Graph) -> list[str]:
    return [node.op.keyword for node in graph.nodes]


def build_model(graph: Graph) -> Model:
    return Model(graph, sample_weights(graph))


def test_the_folded_convolution_has_the_name_of_the_batch_norm() -> None:
    add = NetBuilder(3, 6, 6, name="folded")
    add("conv", Conv(4, (3, 3), bias=False))
    add("bn", BatchNorm())
    add("relu", Relu())
    original = build_model(add.build())
    folded = fold_scale(original)
    assert print_graph(folded.graph) == (
        "graph folded {\n"
        "  input %image : float32[3x6x6]\n"
        "  %bn = conv(%image) {filters=4, kernel=[3, 3], stride=[1, 1], padding=[0, 0, 0, 0],"
        " dilation=[1, 1], groups=1, bias=true} : float32[4x4x4]\n"
        "  %relu = relu(%bn) : float32[4x4x4]\n"
        "  output logits = %relu\n"
        "}\n"
    )
    assert_agree(folded, original)


def test_the_weights_are_computed_in_float64_and_rounded_once() -> None:
    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (3, 3)))
    add("bn", BatchNorm(eps=1e-3))
    original = build_model(add.build())
    w = {name: values.astype(np.float64) for name, values in original.weights.items()}
    scale = w["bn.weight"] / np.sqrt(w["bn.var"] + 1e-3)
    folded = fold_scale(original).weights
    weight = w["conv.weight"] * scale[:, None, None, None]
    bias = (w["conv.bias"] - w["bn.mean"]) * scale + w["bn.bias"]
    np.testing.assert_array_equal(folded["bn.weight"], weight.astype(np.float32))
    np.testing.assert_allclose(folded["bn.bias"], bias, rtol=1e-7)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        Conv(4, (3, 3), (2, 2), "same"),
        Conv(6, (3, 3), padding=1, groups=2),
        DepthwiseConv((3, 3), padding=1, multiplier=2),
        ConvTranspose(6, (3, 2), (2, 2)),
        ConvTranspose(6, (2, 2), (2, 2), groups=2),
        Linear(5),
    ],
    ids=["conv", "groups", "depthwise", "transposed", "transposed-groups", "linear"],
)
def test_batch_norm_folds_into_every_kind_of_layer(layer: Op, bias: bool) -> None:
    add = NetBuilder(4, 6, 6)
    if isinstance(layer, Linear):
        add("flat", Flatten())
    add("layer", replace(layer, bias=bias))
    add("bn", BatchNorm())
    original = build_model(add.build())
    folded = fold_scale(original)
    assert "batch_norm" not in list_op_names(folded.graph)
    assert folded.graph.nodes[-1].op.bias
    assert_agree(folded, original)


def test_two_batch_norms_in_a_row_are_folded() -> None:
    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (1, 1)))
    add("bn_1", BatchNorm())
    add("bn_2", BatchNorm())
    original = build_model(add.build())
    folded = fold_scale(original)
    assert [node.name for node in folded.graph.nodes] == ["bn_2"]
    assert_agree(folded, original)


def test_batch_norm_stays_if_the_convolution_has_other_readers() -> None:
    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (1, 1)))
    add("bn", BatchNorm())
    add("relu", Relu(), "conv")
    original = build_model(add.build(Output("a", "bn"), Output("b", "relu")))
    assert fold_scale(original).graph == original.graph


def test_batch_norm_stays_if_the_convolution_is_an_output() -> None:
    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (1, 1)))
    add("bn", BatchNorm())
    original = build_model(add.build(Output("a", "bn"), Output("b", "conv")))
    assert fold_scale(original).graph == original.graph


def test_batch_norm_stays_after_an_input_or_relu() -> None:
    add = NetBuilder(3, 6, 6)
    add("bn_1", BatchNorm())
    add("conv", Conv(4, (1, 1)))
    add("relu", Relu())
    add("bn_2", BatchNorm())
    original = build_model(add.build())
    assert fold_scale(original).graph == original.graph


def test_the_location_is_that_of_the_layer() -> None:
    from tcc.testing.nets import create_span

    add = NetBuilder(3, 6, 6)
    add("conv", Conv(4, (1, 1)), at=create_span(7))
    add("bn", BatchNorm(), at=create_span(8))
    (node,) = fold_scale(build_model(add.build())).graph.nodes
    assert node.at == create_span(7)


def test_shared_weights_are_not_overwritten() -> None:
    add = NetBuilder(4, 6, 6)
    add("conv_1", Conv(4, (1, 1)))
    add("bn_1", BatchNorm())
    add("conv_2", Conv(4, (1, 1)))
    add("bn_2", BatchNorm())
    add("conv_3", Conv(4, (1, 1)))
    add("relu", Relu())
    add("bn_3", BatchNorm())
    graph = add.build()
    shared = {"bn_2": "bn_1", "bn_3": "bn_1", "conv_2": "conv_1"}
    nodes = tuple(
        replace(n, params=tuple(p.replace(n.name, shared.get(n.name, n.name)) for p in n.params))
        for n in graph.nodes
    )
    original = build_model(verify(replace(graph, nodes=nodes)))
    lowered = lower_batch_norm(fold_scale(original))
    assert list_op_names(lowered.graph) == ["conv", "conv", "conv", "relu", "scale_shift"]
    assert_agree(lowered, original)


@pytest.mark.parametrize("shape", [(4, 6, 5), (7,)])
def test_unfoldable_batch_norms_become_scale_and_shift(shape: tuple[int, ...]) -> None:
    add = NetBuilder(*shape, name="alone")
    add("bn", BatchNorm())
    add("relu", Relu())
    original = build_model(add.build())
    lowered = lower_batch_norm(original)
    size = "x".join(map(str, shape))
    assert print_graph(lowered.graph) == (
        "graph alone {\n"
        f"  input %image : float32[{size}]\n"
        f"  %bn = scale_shift(%image) : float32[{size}]\n"
        f"  %relu = relu(%bn) : float32[{size}]\n"
        "  output logits = %relu\n"
        "}\n"
    )
    assert list(lowered.weights) == ["bn.weight", "bn.bias"]
    assert_agree(lowered, original)
