"""The last convolution: its exact sums are real numbers."""

import numpy as np
import pytest
from quantised import LEVELS, count_differing_elements

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Conv, Flatten, GlobalAvgPool, Linear, Relu
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.compiler.ops.integer.conv import MAX_EXACT_SUM, is_exact_in_float32
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights


def build_program(model: Model, seed: int = 0) -> Model:
    return quantize(model, calibrate_on_input(model, sample_input(model.graph, seed)))


def get_layer_types(int8_program: Model) -> dict[str, type]:
    return {
        n.name: type(n.op) for n in int8_program.graph.nodes if isinstance(n.op, QConv | RealConv)
    }


def build_classifier(units: int = 5, channels: int = 8):
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(channels, (3, 3)))
    add("relu", Relu())
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(units))
    return add


def test_sums_read_only_by_an_output_become_real_numbers():
    graph = build_classifier().build()
    int8_program = build_program(lower_for_int8(graph, sample_weights(graph)))
    assert list(get_layer_types(int8_program).values()) == [QConv, RealConv]
    assert integer_program.find_inexact_nodes(int8_program.graph) == ()
    (output,) = int8_program.graph.outputs
    assert int8_program.graph.types[output.value].scale is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("signed", [False, True])
def test_onnx_runtime_is_bit_exact(level, signed):
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(6, (3, 3)))
    if not signed:
        add("relu", Relu())
    add("last", Conv(5, (3, 3), (2, 2), 1))
    graph = add.build()
    int8_program = build_program(lower_for_int8(graph, sample_weights(graph)))
    assert [*get_layer_types(int8_program).values()] == [QConv, RealConv]
    for seed in range(3):
        assert count_differing_elements(int8_program, sample_input(graph, seed), level, 2) == {}


def test_values_with_other_readers_stay_quantized():
    add = build_classifier()
    add("more", Linear(3))
    graph = add.build(Output("features", "fc"), Output("logits", "more"))
    int8_program = build_program(lower_for_int8(graph, sample_weights(graph)))
    assert [*get_layer_types(int8_program).values()] == [QConv, QConv, RealConv]


def test_sums_that_may_be_inexact_stay_quantized():
    graph = build_classifier(2, 700).build()
    weights = dict(sample_weights(graph))
    weights["fc.weight"] = np.full((2, 700), 0.1, np.float32)  # all weights become 127
    int8_program = build_program(lower_for_int8(graph, weights))
    assert [*get_layer_types(int8_program).values()] == [QConv, QConv]


def test_the_bound_counts_every_product_and_the_bias():
    weight = np.array([[[[127]], [[-127]]]], np.int8)
    largest = 255 * 254
    assert is_exact_in_float32(weight, np.array([MAX_EXACT_SUM - largest - 1]), 255)
    assert not is_exact_in_float32(weight, np.array([-(MAX_EXACT_SUM - largest)]), 255)
