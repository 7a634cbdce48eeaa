"""The emitted file of each chip matches the float graph in ONNX Runtime and keeps the rules."""

import numpy as np
import onnxruntime
import pytest
import random_nets
from hypothesis import given, settings
from hypothesis import strategies as st
from refused_ops import REFUSED_OPS_FILE

from tcc.backends.pulsar.chips import AX620, AX620E, CHIPS, Toolchain
from tcc.backends.pulsar.onnx_model import build_npu_onnx
from tcc.backends.pulsar.rewrite import FLOAT_PASSES
from tcc.backends.pulsar.rules import support_check
from tcc.backends.pulsar.rules.check import check
from tcc.backends.pulsar.rules.rule import Severity
from tcc.compiler.ir.graph import Model
from tcc.compiler.ops import (
    AvgPool,
    Conv,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    HardSwish,
    Linear,
    MaxPool,
    Relu,
)
from tcc.compiler.passes import validate
from tcc.compiler.reference import float_program
from tcc.testing.nets import NetBuilder, build_dense
from tcc.testing.op_cases import CASES, build_one_input_model, sample_weights

ROUNDING = 1e-5
"""Allowed difference of sums in another order, relative to the largest value."""
IDS = {"ids": lambda chip: chip.target}


def lower_model(model, chip):
    """Return the lowered model of a chip, with each pass checked against its bound."""
    return validate.run(model, FLOAT_PASSES[chip.toolchain])


def list_op_types(model, chip):
    return [node.op_type for node in build_npu_onnx(lower_model(model, chip), chip).graph.node]


def assert_equal(model, chip):
    """Compare the emitted file with the float graph and return its rule violations."""
    onnx_model = build_npu_onnx(lower_model(model, chip), chip)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_model.SerializeToString(), options)
    (source,) = model.graph.inputs
    tensor = validate.sample(source, 1)  # not one of the seeds that checked the passes
    (expected,) = float_program.run(model, [tensor])
    outputs = session.run(list(expected), {source.name: tensor[None]})
    for name, (output,) in zip(expected, outputs, strict=True):
        assert validate.measure_difference(expected[name], output) <= ROUNDING, name
    return [
        violation for violation in check(onnx_model, chip) if violation.severity is Severity.REFUSED
    ]


@pytest.mark.parametrize("chip", [AX620, AX620E], **IDS)
@pytest.mark.parametrize("name", CASES)
def test_every_op_matches_the_float_graph(name, chip):
    model = build_one_input_model(CASES[name])
    broken = assert_equal(model, chip)
    refusal_line = f"{chip.target}: {model.graph.nodes[-1].op.keyword}"
    assert not broken or refusal_line in REFUSED_OPS_FILE.read_text().splitlines(), broken


@pytest.mark.parametrize("chip", CHIPS, **IDS)
def test_a_batch_norm_after_a_concat_is_a_depthwise_convolution(chip):
    model = Model(build_dense(), sample_weights(build_dense()))
    assert assert_equal(model, chip) == []
    op_types = list_op_types(model, chip)
    assert op_types.count("Conv") == 4
    assert op_types[op_types.index("Concat") + 1] == "Conv"


def test_uneven_padding_becomes_explicit_pad_nodes():
    add = NetBuilder(3, 9, 9)
    add("conv", Conv(4, (3, 3), (2, 2), "same"))
    add("lopsided", Conv(4, (3, 3), (1, 1), (0, 1, 2, 1)))
    add("relu", Relu())
    add("pool", MaxPool((2, 2), (2, 2), ceil=True))
    add("mean", AvgPool((2, 2), (1, 1), 1))
    add("last", MaxPool((3, 3), (2, 2), (0, 1, 1, 1)))
    graph = add.build()
    model = Model(graph, sample_weights(graph))
    assert assert_equal(model, AX620) == []
    onnx_model = build_npu_onnx(lower_model(model, AX620), AX620)
    fills = [
        next(t.float_data[0] if t.float_data else np.frombuffer(t.raw_data, np.float32)[0]
             for t in onnx_model.graph.initializer if t.name == node.input[2])
        for node in onnx_model.graph.node if node.op_type == "Pad"
    ]  # fmt: skip
    assert fills == [0, 0, 0, 0]  # after a relu, zeros never win a maximum against it
    for node in onnx_model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "pads":
                assert list(attribute.ints[:2]) == list(attribute.ints[2:]), node.name
    assert "Pad" not in list_op_types(model, AX620E)


def test_max_pool_of_negative_values_is_padded_with_a_low_value():
    add = NetBuilder(2, 6, 6)
    add("pool", MaxPool((2, 2), (2, 2), (0, 0, 1, 1)))
    graph = add.build()
    below = Model(graph, {})
    assert assert_equal(below, AX620) == []
    assert list_op_types(below, AX620) == ["Pad", "MaxPool"]


@pytest.mark.parametrize(("size", "kind"), [(6, "Conv"), (19, "Gemm")])
def test_a_linear_layer_becomes_a_convolution_if_its_map_is_small_enough(size, kind):
    add = NetBuilder(3, size, size)
    add("flatten", Flatten())
    add("linear", Linear(4))
    add("relu", Relu())
    add("head", Linear(3))
    graph = add.build()
    model = Model(graph, sample_weights(graph))
    assert assert_equal(model, AX620) == []
    assert kind in list_op_types(model, AX620)
    assert assert_equal(model, AX620E) == []
    assert "Gemm" not in list_op_types(model, AX620E)


def test_a_vector_network_keeps_its_linear_layers_on_ax620():
    add = NetBuilder(12)
    add("linear", Linear(5))
    add("relu", Relu())
    add("head", Linear(2))
    graph = add.build()
    model = Model(graph, sample_weights(graph))
    assert assert_equal(model, AX620) == []
    assert list_op_types(model, AX620) == ["Gemm", "Relu", "Gemm"]


@pytest.mark.parametrize("gate", [HardSigmoid(), HardSwish()], ids=lambda op: op.keyword)
def test_a_convolution_is_inserted_before_a_hard_sigmoid(gate):
    add = NetBuilder(4, 5, 5)
    add("conv", Conv(4, (1, 1)))
    add("after", gate)
    add("pool", GlobalAvgPool())
    add("gate", gate)
    graph = add.build()
    model = Model(graph, sample_weights(graph))
    assert assert_equal(model, AX620) == []
    assert list_op_types(model, AX620).count("Conv") == 2
    assert list_op_types(model, AX620E).count("Conv") == 1


def test_each_toolchain_has_passes():
    assert set(FLOAT_PASSES) == set(Toolchain)
    for pipeline in FLOAT_PASSES.values():
        assert all(rewrite_pass.doc for rewrite_pass in pipeline)
        assert len({rewrite_pass.name for rewrite_pass in pipeline}) == len(pipeline)


@settings(max_examples=8)
@given(st.data())
def test_random_networks_match_the_float_graph(data):
    graph = random_nets.draw_graph(data.draw, floats=True)
    model = Model(graph, sample_weights(graph))
    for chip in (AX620, AX620E):
        broken = {
            node.op.keyword for node in list_refused_nodes(lower_model(model, chip).graph, chip)
        }
        assert bool(assert_equal(model, chip)) == bool(broken)
        assert {f"{chip.target}: {op_name}" for op_name in broken} <= set(
            REFUSED_OPS_FILE.read_text().splitlines()
        )


def list_refused_nodes(graph, chip):
    return [refusal.node for refusal in support_check.find_refusals(graph, chip)]
