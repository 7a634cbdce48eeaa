"""Scales and pads are folded into neighboring layers."""

import pytest
from passes_nets import list_op_names, make_chain, make_model, run_passes

from tcc.compiler.ir.graph import Output
from tcc.compiler.ops import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Flatten,
    Linear,
    MaxPool,
    Op,
    Pad,
    Relu,
    Scale,
    ScaleShift,
)
from tcc.compiler.passes import fold_ahead, fold_pad, fold_scale
from tcc.testing.nets import NetBuilder


@pytest.mark.parametrize("scale", [BatchNorm(), ScaleShift(), Scale(0.5, 2.0), Scale(3.0)])
@pytest.mark.parametrize(
    "layer",
    [
        Conv(4, (1, 1)),
        Conv(4, (3, 3), (2, 2), bias=False),
        Conv(4, (3, 3), groups=2),
        DepthwiseConv((3, 3), multiplier=2, bias=False),
    ],
)
def test_a_scale_before_a_layer_is_folded(scale: Op, layer: Op) -> None:
    original = make_chain(Relu(), scale, layer)
    assert run_passes(original, fold_ahead) == ["relu", "conv"]
    (_, node) = fold_ahead(original).graph.nodes
    assert node.op.bias


@pytest.mark.parametrize("scale", [BatchNorm(), ScaleShift(), Scale(0.5, 2.0)])
def test_a_scale_before_a_linear_layer_is_folded(scale: Op) -> None:
    assert run_passes(make_chain(scale, Linear(3), shape=(9,)), fold_ahead) == ["linear"]


@pytest.mark.parametrize("scale", [ScaleShift(), Scale(0.5, 2.0)])
def test_a_scale_after_a_layer_is_folded(scale: Op) -> None:
    assert run_passes(make_chain(Conv(4, (3, 3), padding=1), scale), fold_scale) == ["conv"]
    assert run_passes(make_chain(Flatten(), Linear(4, bias=False), scale), fold_scale) == [
        "flatten",
        "linear",
    ]


@pytest.mark.parametrize(
    "layer", [Conv(4, (3, 3), padding=1), ConvTranspose(4, (2, 2), (2, 2)), MaxPool((2, 2))]
)
def test_a_shift_before_a_padded_layer_stays(layer: Op) -> None:
    assert run_passes(make_chain(Scale(2.0, 1.0), layer), fold_ahead) == ["scale", layer.keyword]


@pytest.mark.parametrize("layer", [Conv(4, (3, 3), padding=1), ConvTranspose(4, (2, 2), groups=2)])
def test_a_factor_before_a_padded_layer_is_folded(layer: Op) -> None:
    assert run_passes(make_chain(Scale(2.0), layer), fold_ahead) == [layer.keyword]


def test_a_scale_with_other_readers_stays() -> None:
    add = NetBuilder(3, 6, 6)
    add("scale", ScaleShift())
    add("conv", Conv(4, (1, 1)))
    original = make_model(add.build(Output("a", "conv"), Output("b", "scale")))
    assert run_passes(original, fold_ahead) == ["scale_shift", "conv"]


def test_zero_padding_is_folded_into_the_convolution() -> None:
    original = make_chain(Pad((1, 0, 2, 3)), Conv(4, (3, 3), (2, 2), (0, 1, 0, 0)))
    assert run_passes(original, fold_pad) == ["conv"]
    (node,) = fold_pad(original).graph.nodes
    assert node.op.pads == (1, 1, 2, 3)


def test_pads_of_one_value_are_merged() -> None:
    original = make_chain(Pad(1, 0.5), Pad((0, 1, 2, 3), 0.5), Pad(1, 2.0))
    assert run_passes(original, fold_pad) == ["pad", "pad"]
    assert fold_pad(original).graph.nodes[0].op.pads == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "ops",
    [(Pad(1, 0.5), Conv(4, (3, 3))), (Pad(1), MaxPool((2, 2))), (Pad(1), AvgPool((2, 2)))],
)
def test_other_pads_stay(ops: tuple[Op, ...]) -> None:
    original = make_chain(*ops)
    assert run_passes(original, fold_pad) == list_op_names(original)
