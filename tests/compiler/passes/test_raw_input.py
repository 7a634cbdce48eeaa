"""The input becomes grey levels. The network normalizes them."""

from dataclasses import replace

import numpy as np
import pytest

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.preprocess import Preprocess, normalize
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.ops import Conv, MaxPool, Op, Relu
from tcc.compiler.passes import raw_input, validate
from tcc.compiler.reference import float_program
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
WHITE = Preprocess(mean=(1.0,), std=(0.5,))
DEFAULT_PREPROCESS = Preprocess()


def build_model(pre: Preprocess, *ops: Op, outputs: tuple[Output, ...] = ()) -> Model:
    add = NetBuilder(3, 9, 8)
    for index, op in enumerate(ops):
        add(f"{op.keyword}_{index}", op)
    graph = add.build(*outputs)
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=pre),))
    return Model(graph, sample_weights(graph))


def check(original: Model) -> Model:
    """Run the pass and compare its outputs with the original network for the same pixels."""
    rewritten = validate.run(original, (raw_input,), seeds=(3, 4))
    (old,), (new,) = original.graph.inputs, rewritten.graph.inputs
    assert new == replace(old, preprocess=replace(old.preprocess, raw=True))
    pixels = np.random.default_rng(9).integers(0, 256, (9, 8, 3), np.uint8)
    inputs = [normalize(source.preprocess, pixels) for source in (old, new)]
    assert np.array_equal(inputs[1].transpose(1, 2, 0), pixels)
    (expected,), (actual,) = (
        float_program.run(m, [x]) for m, x in zip((original, rewritten), inputs, strict=True)
    )
    for name, y in expected.items():
        np.testing.assert_allclose(actual[name], y, atol=2e-6 * float(np.abs(y).max()), rtol=0)
    return rewritten


def list_op_names(of: Model) -> list[str]:
    return [node.op.keyword for node in of.graph.nodes]


def test_the_padding_contains_the_mean() -> None:
    rewritten = check(build_model(IMAGENET, Conv(4, (3, 3), (2, 2), (0, 1, 2, 1)), Relu()))
    assert print_graph(rewritten.graph) == (
        "graph net {\n"
        "  input %image : float32[3x9x8]\n"
        "  %conv_0/border = border(%image) {padding=[0, 1, 2, 1],"
        " values=[123.67500305175781, 116.27999877929688, 103.52999877929688]}"
        " : float32[3x11x10]\n"
        "  %conv_0 = conv(%conv_0/border) {filters=4, kernel=[3, 3], stride=[2, 2],"
        " padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, bias=true} : float32[4x5x4]\n"
        "  %relu_1 = relu(%conv_0) : float32[4x5x4]\n"
        "  output logits = %relu_1\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("pre", "conv", "expected"),
    [
        (WHITE, Conv(4, (3, 3), padding=1), ["pad", "conv"]),  # one value for all channels
        (
            DEFAULT_PREPROCESS,
            Conv(4, (3, 3), padding=1),
            ["conv"],
        ),  # a mean of 0 gives zero padding
        (IMAGENET, Conv(4, (3, 3)), ["conv"]),
        (Preprocess(mean=(1.5,)), Conv(4, (3, 3), padding=1), ["scale_shift", "conv"]),
        (Preprocess(mean=(-0.5,)), Conv(4, (3, 3)), ["conv"]),
        (IMAGENET, Conv(6, (3, 3), padding=1, groups=3, bias=False), ["border", "conv"]),
        (IMAGENET, Conv(5, (1, 1), bias=False), ["conv"]),
    ],
)
def test_padding_is_added_only_if_there_was_padding(
    pre: Preprocess, conv: Conv, expected: list[str]
) -> None:
    assert list_op_names(check(build_model(pre, conv))) == expected


def test_other_readers_get_a_separate_normalization() -> None:
    rewritten = check(build_model(IMAGENET, MaxPool((2, 2)), Conv(4, (1, 1))))
    assert list_op_names(rewritten) == ["scale_shift", "max_pool", "conv"]
    assert rewritten.graph.nodes[0].name == "image/normalized"


def test_an_input_read_twice_is_normalized_once() -> None:
    outputs = (Output("a", "conv_0"), Output("b", "relu_1"))
    original = build_model(IMAGENET, Conv(4, (1, 1)), Relu(), outputs=outputs)
    conv, relu = original.graph.nodes
    twice = replace(relu, inputs=("image",), type=original.graph.inputs[0].type)
    rewritten = check(Model(replace(original.graph, nodes=(conv, twice)), original.weights))
    assert list_op_names(rewritten) == ["scale_shift", "conv", "relu"]


def test_an_input_that_is_an_output_is_normalized() -> None:
    outputs = (Output("a", "conv_0"), Output("b", "image"))
    rewritten = check(build_model(IMAGENET, Conv(4, (1, 1)), outputs=outputs))
    assert list_op_names(rewritten) == ["scale_shift", "conv"]


def test_raw_and_non_image_inputs_are_unchanged() -> None:
    once = raw_input(build_model(IMAGENET, Conv(4, (3, 3), padding=1)))
    assert raw_input(once) == once
    raw_model = build_model(None, Conv(4, (3, 3), padding=1))
    assert raw_input(raw_model) == raw_model


def test_inputs_scaled_by_their_maximum_are_unchanged() -> None:
    max_scaled_model = build_model(Preprocess(scale="max"), Conv(4, (3, 3), padding=1))
    assert raw_input(max_scaled_model) == max_scaled_model


def test_the_weights_are_computed_in_float64_and_rounded_once() -> None:
    original = build_model(IMAGENET, Conv(4, (3, 3)))
    weight, bias = (
        original.weights[f"conv_0.{role}"].astype(np.float64) for role in ("weight", "bias")
    )
    mean, std = (np.float32(v).astype(np.float64) for v in (IMAGENET.mean, IMAGENET.std))
    rewritten = raw_input(original).weights
    scaled = weight / (255 * std)[:, None, None]
    np.testing.assert_allclose(rewritten["conv_0.weight"], scaled, rtol=1e-7)
    shifted_bias = bias - (weight * (mean / std)[:, None, None]).sum((1, 2, 3))
    np.testing.assert_allclose(rewritten["conv_0.bias"], shifted_bias, rtol=1e-7, atol=1e-7)
