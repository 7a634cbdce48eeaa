"""The target `tflite` in float: what it builds, refuses and computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from lite import KERNELS, delegates, difference, opened, operators, outputs
from lite_float import BACKEND, PRECISIONS, TARGET, emitted, fused, written
from random_graphs import graphs
from refused_ops import refused
from tables import looped

from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ops import (
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Relu,
    Relu6,
    Sigmoid,
    Softmax,
)
from tcc.compiler.passes import INFERENCE, run
from tcc.compiler.reference import float_program
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import (
    CASES,
    INTERNAL_CASES,
    Case,
    build_one_input_model,
    sample_inputs,
    sample_weights,
)

MEASURED = {"fp32": (3e-6, 1e-5), "fp16": (1e-3, 1e-3), "dynamic": (2e-2, 5e-2)}
"""Largest difference from the float32 reference, of one op and of a network, as a part of the
largest value; measured of ops: 1.4e-6, 5.8e-4 and 1.2e-2, and of dynamic networks 3.6e-2."""
every_op = looped(CASES | INTERNAL_CASES)
nets = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)


def test_its_target() -> None:
    assert (TARGET.name, TARGET.aliases) == ("tflite", ())
    assert set(PRECISIONS) <= {each.name for each in TARGET.precisions}
    tools = {tool.name: tool.builds for tool in BACKEND.tools(TARGET)}
    assert tools == {"ai-edge-litert": True, "flatbuffers": True}


@every_op
def test_every_op_computes_what_the_reference_does(tmp_path: Path, case: Case) -> None:
    model = build_one_input_model(case)
    if refused(BACKEND, TARGET, model.graph):
        return
    (xs,) = sample_inputs(model, batch=2)
    expected = float_program.run(model, list(xs))
    for precision in PRECISIONS:
        folder = written(
            tmp_path / precision, BACKEND.emit(TARGET, model, TARGET.find_precision(precision))
        )
        found = BACKEND.infer(TARGET, folder, model.graph.inputs[0], list(xs))
        for got, y in zip(found, expected, strict=True):
            assert difference(got, y) <= MEASURED[precision][0]


@every_op
def test_every_op_runs_with_all_kernels(case: Case) -> None:
    model = build_one_input_model(case)
    if refused(BACKEND, TARGET, model.graph):
        return
    ((x,),) = sample_inputs(model, batch=1)
    (expected,) = float_program.run(model, [x])
    for precision in PRECISIONS:
        data = emitted(model, precision)
        for kernels in KERNELS:
            assert difference(outputs(data, x, kernels), expected) <= MEASURED[precision][0]


@nets
@pytest.mark.parametrize("precision", PRECISIONS)
def test_networks_compute_what_the_reference_does(
    tmp_path: Path, graph: Graph, precision: str
) -> None:
    plain = Model(graph, sample_weights(graph))
    (xs,) = sample_inputs(plain, batch=3)
    expected = float_program.run(plain, list(xs))
    for name, model in {"plain": plain, "fused": fused(graph)}.items():
        folder = written(
            tmp_path / name, BACKEND.emit(TARGET, model, TARGET.find_precision(precision))
        )
        found = BACKEND.infer(TARGET, folder, graph.inputs[0], list(xs))
        for got, y in zip(found, expected, strict=True):
            assert difference(got, y) <= MEASURED[precision][1]


@nets
def test_a_network_is_one_part_for_xnnpack(graph: Graph) -> None:
    for precision in ("fp32", "fp16"):
        assert delegates(emitted(fused(graph), precision)) == 1


def test_clamps_are_part_of_the_operator_before() -> None:
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (3, 3)))
    shared = add("relu", Relu())
    add("pool", MaxPool((2, 2)))
    add("avg", AvgPool((3, 3), (1, 1), 1))
    add("relu6", Relu6())
    add("two", Conv(4, (1, 1)))
    both = add("kept", Relu())
    graph = add.build(Output("y", both), Output("raw", "two"), Output("z", shared))
    model = Model(graph, sample_weights(graph))
    data = emitted(model)
    # the second convolution's sums are an output, so its clamp stays
    assert [name for name, _ in operators(data)] == [
        "CONV_2D", "MAX_POOL_2D", "PAD", "AVERAGE_POOL_2D", "CONV_2D", "RELU",
    ]  # fmt: skip
    ((x,),) = sample_inputs(model, batch=1)
    (expected,) = float_program.run(model, [x])
    assert difference(outputs(data, x), expected) < 1e-5


def test_no_transposition_is_left_that_weights_can_take() -> None:
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (3, 3)))
    add("flat", Flatten())
    add("gate", Sigmoid())
    add("one", Linear(5))
    model = Model(add.build(), sample_weights(add.build()))
    data = emitted(model)
    assert "TRANSPOSE" not in dict(operators(data))
    ((x,),) = sample_inputs(model, batch=1)
    assert difference(outputs(data, x), float_program.run(model, [x])[0]) < 1e-5


def test_a_flat_feature_map_leaves_channel_by_channel() -> None:
    add = NetBuilder(3, 4, 5)
    flat = add("flat", Flatten())
    add("soft", Softmax())
    graph = add.build(Output("y", "soft"), Output("flat", flat))
    model = Model(graph, {})
    assert "TRANSPOSE" in dict(operators(emitted(model)))
    ((x,),) = sample_inputs(model, batch=1)
    np.testing.assert_array_equal(outputs(emitted(model), x)["flat"], x.reshape(-1))


@pytest.mark.parametrize("count", [5, 6, 8, 9, 10, 25, 26, 31])
def test_xnnpack_joins_any_number_of_values(count: int) -> None:
    add = NetBuilder(2, 3, 4)
    parts = [add(f"conv{i}", Conv(1 + i % 3, (1, 1)), "image") for i in range(count)]
    add("join", Concat(), *parts)
    add("shuffle", ChannelShuffle(1))
    model = Model(add.build(), sample_weights(add.build()))
    data = emitted(model)
    joins = [op for op in opened(data).subgraphs[0].operators if len(op.inputs) > 3]
    assert all(len(op.inputs) <= 5 for op in joins)
    assert delegates(data) == 1
    ((x,),) = sample_inputs(model, batch=1)
    assert difference(outputs(data, x), float_program.run(model, [x])[0]) < 1e-5


def test_values_may_leave_twice_or_as_they_came() -> None:
    add = NetBuilder(3, 4, 5)
    value = add("pool", GlobalAvgPool())
    graph = add.build(Output("a", value), Output("b", value))
    model = Model(graph, {})
    ((x,),) = sample_inputs(model, batch=1)
    assert difference(outputs(emitted(model), x), float_program.run(model, [x])[0]) < 1e-6
    graph = replace(graph, outputs=(*graph.outputs, Output("image", "image")))
    np.testing.assert_array_equal(outputs(emitted(Model(graph, {})), x)["image"], x)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=graphs())
def test_random_networks_compute_what_the_reference_does(graph: Graph) -> None:
    plain = Model(graph, sample_weights(graph))
    ((x,),) = sample_inputs(plain, batch=1)
    (expected,) = float_program.run(plain, [x])
    for model in (plain, run(plain, INFERENCE)):
        data = emitted(model)
        for kernels in KERNELS:
            assert difference(outputs(data, x, kernels), expected) <= 1e-5
