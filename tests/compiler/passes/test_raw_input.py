"""An image comes in as grey levels, which the network normalises."""

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
PLAIN = Preprocess()


def model(pre: Preprocess, *ops: Op, outputs: tuple[Output, ...] = ()) -> Model:
    add = NetBuilder(3, 9, 8)
    for index, op in enumerate(ops):
        add(f"{op.keyword}_{index}", op)
    graph = add.build(*outputs)
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=pre),))
    return Model(graph, sample_weights(graph))


def check(before: Model) -> Model:
    """Run the pass, and hold its outputs against the network's for the same pixels."""
    after = validate.run(before, (raw_input,), seeds=(3, 4))
    (old,), (new,) = before.graph.inputs, after.graph.inputs
    assert new == replace(old, preprocess=replace(old.preprocess, raw=True))
    pixels = np.random.default_rng(9).integers(0, 256, (9, 8, 3), np.uint8)
    inputs = [normalize(source.preprocess, pixels) for source in (old, new)]
    assert np.array_equal(inputs[1].transpose(1, 2, 0), pixels)
    (known,), (found,) = (
        float_program.run(m, [x]) for m, x in zip((before, after), inputs, strict=True)
    )
    for name, y in known.items():
        np.testing.assert_allclose(found[name], y, atol=2e-6 * float(np.abs(y).max()), rtol=0)
    return after


def words(of: Model) -> list[str]:
    return [node.op.keyword for node in of.graph.nodes]


def test_the_border_holds_the_mean() -> None:
    after = check(model(IMAGENET, Conv(4, (3, 3), (2, 2), (0, 1, 2, 1)), Relu()))
    assert print_graph(after.graph) == (
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
        (WHITE, Conv(4, (3, 3), padding=1), ["pad", "conv"]),  # one level for all channels
        (PLAIN, Conv(4, (3, 3), padding=1), ["conv"]),  # a mean of 0 is a border of zeros
        (IMAGENET, Conv(4, (3, 3)), ["conv"]),
        (Preprocess(mean=(1.5,)), Conv(4, (3, 3), padding=1), ["scale_shift", "conv"]),
        (Preprocess(mean=(-0.5,)), Conv(4, (3, 3)), ["conv"]),
        (IMAGENET, Conv(6, (3, 3), padding=1, groups=3, bias=False), ["border", "conv"]),
        (IMAGENET, Conv(5, (1, 1), bias=False), ["conv"]),
    ],
)
def test_a_border_only_where_there_was_one(
    pre: Preprocess, conv: Conv, expected: list[str]
) -> None:
    assert words(check(model(pre, conv))) == expected


def test_what_is_read_by_another_step_is_normalised_by_one_of_its_own() -> None:
    after = check(model(IMAGENET, MaxPool((2, 2)), Conv(4, (1, 1))))
    assert words(after) == ["scale_shift", "max_pool", "conv"]
    assert after.graph.nodes[0].name == "image/normalized"


def test_what_is_read_twice_is_normalised_once() -> None:
    outputs = (Output("a", "conv_0"), Output("b", "relu_1"))
    before = model(IMAGENET, Conv(4, (1, 1)), Relu(), outputs=outputs)
    first, second = before.graph.nodes
    twice = replace(second, inputs=("image",), type=before.graph.inputs[0].type)
    after = check(Model(replace(before.graph, nodes=(first, twice)), before.weights))
    assert words(after) == ["scale_shift", "conv", "relu"]


def test_an_input_that_is_an_output_is_normalised_too() -> None:
    outputs = (Output("a", "conv_0"), Output("b", "image"))
    after = check(model(IMAGENET, Conv(4, (1, 1)), outputs=outputs))
    assert words(after) == ["scale_shift", "conv"]


def test_what_is_raw_or_no_image_stays() -> None:
    once = raw_input(model(IMAGENET, Conv(4, (3, 3), padding=1)))
    assert raw_input(once) == once
    plain = model(None, Conv(4, (3, 3), padding=1))
    assert raw_input(plain) == plain


def test_what_is_divided_by_its_own_maximum_stays() -> None:
    own = model(Preprocess(scale="max"), Conv(4, (3, 3), padding=1))
    assert raw_input(own) == own


def test_the_weights_are_computed_in_float64_and_rounded_once() -> None:
    before = model(IMAGENET, Conv(4, (3, 3)))
    weight, bias = (
        before.weights[f"conv_0.{role}"].astype(np.float64) for role in ("weight", "bias")
    )
    mean, std = (np.float32(v).astype(np.float64) for v in (IMAGENET.mean, IMAGENET.std))
    after = raw_input(before).weights
    scaled = weight / (255 * std)[:, None, None]
    np.testing.assert_allclose(after["conv_0.weight"], scaled, rtol=1e-7)
    moved = bias - (weight * (mean / std)[:, None, None]).sum((1, 2, 3))
    np.testing.assert_allclose(after["conv_0.bias"], moved, rtol=1e-7, atol=1e-7)
