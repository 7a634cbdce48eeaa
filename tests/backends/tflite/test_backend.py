"""The target `tflite` in float: built and refused models, and outputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from lite import (
    KERNELS,
    compute_difference,
    count_delegates,
    list_operators,
    parse_tflite,
    run_tflite,
)
from lite_float import BACKEND, PRECISIONS, TARGET, emit_tflite, fuse_graph, write_artifact
from random_graphs import graphs
from refused_ops import is_refused
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
"""Maximum difference from the float32 reference, of one op and of a network, relative to the
largest value; measured of ops: 1.4e-6, 5.8e-4 and 1.2e-2, and of dynamic networks 3.6e-2."""
every_op = looped(CASES | INTERNAL_CASES)
nets = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)


def test_target_properties() -> None:
    assert (TARGET.name, TARGET.aliases) == ("tflite", ())
    assert set(PRECISIONS) <= {precision.name for precision in TARGET.precisions}
    tools = {tool.name: tool.builds for tool in BACKEND.tools(TARGET)}
    assert tools == {"ai-edge-litert": True, "flatbuffers": True}


@every_op
def test_every_op_matches_the_reference(tmp_path: Path, case: Case) -> None:
    model = build_one_input_model(case)
    if is_refused(BACKEND, TARGET, model.graph):
        return
    (xs,) = sample_inputs(model, batch=2)
    expected = float_program.run(model, list(xs))
    for precision in PRECISIONS:
        folder = write_artifact(
            tmp_path / precision, BACKEND.emit(TARGET, model, TARGET.find_precision(precision))
        )
        actual_outputs = BACKEND.infer(TARGET, folder, model.graph.inputs[0], list(xs))
        for actual, y in zip(actual_outputs, expected, strict=True):
            assert compute_difference(actual, y) <= MEASURED[precision][0]


@every_op
def test_every_op_runs_with_all_kernels(case: Case) -> None:
    model = build_one_input_model(case)
    if is_refused(BACKEND, TARGET, model.graph):
        return
    ((x,),) = sample_inputs(model, batch=1)
    (expected,) = float_program.run(model, [x])
    for precision in PRECISIONS:
        data = emit_tflite(model, precision)
        for kernels in KERNELS:
            assert (
                compute_difference(run_tflite(data, x, kernels), expected) <= MEASURED[precision][0]
            )


@nets
@pytest.mark.parametrize("precision", PRECISIONS)
def test_networks_match_the_reference(tmp_path: Path, graph: Graph, precision: str) -> None:
    original_model = Model(graph, sample_weights(graph))
    (xs,) = sample_inputs(original_model, batch=3)
    expected = float_program.run(original_model, list(xs))
    for name, model in {"plain": original_model, "fused": fuse_graph(graph)}.items():
        folder = write_artifact(
            tmp_path / name, BACKEND.emit(TARGET, model, TARGET.find_precision(precision))
        )
        actual_outputs = BACKEND.infer(TARGET, folder, graph.inputs[0], list(xs))
        for actual, y in zip(actual_outputs, expected, strict=True):
            assert compute_difference(actual, y) <= MEASURED[precision][1]


@nets
def test_xnnpack_runs_a_network_as_one_partition(graph: Graph) -> None:
    for precision in ("fp32", "fp16"):
        assert count_delegates(emit_tflite(fuse_graph(graph), precision)) == 1


def test_clamps_are_fused_into_the_operator_before() -> None:
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
    data = emit_tflite(model)
    # the sums of the second convolution are an output, so its clamp stays
    assert [name for name, _ in list_operators(data)] == [
        "CONV_2D", "MAX_POOL_2D", "PAD", "AVERAGE_POOL_2D", "CONV_2D", "RELU",
    ]  # fmt: skip
    ((x,),) = sample_inputs(model, batch=1)
    (expected,) = float_program.run(model, [x])
    assert compute_difference(run_tflite(data, x), expected) < 1e-5


def test_transpositions_are_folded_into_weights() -> None:
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (3, 3)))
    add("flat", Flatten())
    add("gate", Sigmoid())
    add("one", Linear(5))
    model = Model(add.build(), sample_weights(add.build()))
    data = emit_tflite(model)
    assert "TRANSPOSE" not in dict(list_operators(data))
    ((x,),) = sample_inputs(model, batch=1)
    assert compute_difference(run_tflite(data, x), float_program.run(model, [x])[0]) < 1e-5


def test_a_flattened_output_is_in_channel_order() -> None:
    add = NetBuilder(3, 4, 5)
    flat = add("flat", Flatten())
    add("soft", Softmax())
    graph = add.build(Output("y", "soft"), Output("flat", flat))
    model = Model(graph, {})
    assert "TRANSPOSE" in dict(list_operators(emit_tflite(model)))
    ((x,),) = sample_inputs(model, batch=1)
    np.testing.assert_array_equal(run_tflite(emit_tflite(model), x)["flat"], x.reshape(-1))


@pytest.mark.parametrize("count", [5, 6, 8, 9, 10, 25, 26, 31])
def test_xnnpack_concatenates_any_number_of_values(count: int) -> None:
    add = NetBuilder(2, 3, 4)
    parts = [add(f"conv{i}", Conv(1 + i % 3, (1, 1)), "image") for i in range(count)]
    add("join", Concat(), *parts)
    add("shuffle", ChannelShuffle(1))
    model = Model(add.build(), sample_weights(add.build()))
    data = emit_tflite(model)
    joins = [op for op in parse_tflite(data).subgraphs[0].operators if len(op.inputs) > 3]
    assert all(len(op.inputs) <= 5 for op in joins)
    assert count_delegates(data) == 1
    ((x,),) = sample_inputs(model, batch=1)
    assert compute_difference(run_tflite(data, x), float_program.run(model, [x])[0]) < 1e-5


def test_a_value_can_be_output_twice_and_an_input_can_be_an_output() -> None:
    add = NetBuilder(3, 4, 5)
    pooled = add("pool", GlobalAvgPool())
    graph = add.build(Output("a", pooled), Output("b", pooled))
    model = Model(graph, {})
    ((x,),) = sample_inputs(model, batch=1)
    assert (
        compute_difference(run_tflite(emit_tflite(model), x), float_program.run(model, [x])[0])
        < 1e-6
    )
    graph = replace(graph, outputs=(*graph.outputs, Output("image", "image")))
    np.testing.assert_array_equal(run_tflite(emit_tflite(Model(graph, {})), x)["image"], x)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=graphs())
def test_random_networks_match_the_reference(graph: Graph) -> None:
    original_model = Model(graph, sample_weights(graph))
    ((x,),) = sample_inputs(original_model, batch=1)
    (expected,) = float_program.run(original_model, [x])
    for model in (original_model, run(original_model, INFERENCE)):
        data = emit_tflite(model)
        for kernels in KERNELS:
            assert compute_difference(run_tflite(data, x, kernels), expected) <= 1e-5
