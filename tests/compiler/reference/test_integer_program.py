"""Complete integer programs: the reference executor equals ONNX Runtime bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantised import LEVELS, SATURATES, count_differing_elements
from random_nets import draw_graph, draw_weights
from tables import looped
from zoo_nets import shrink_network

from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.lower import onnx
from tcc.compiler.lower.onnx import lower
from tcc.compiler.ops.integer import QConv
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support import cpu
from tcc.testing.int8_models import (
    build_int8_model,
    calibrate_on_input,
    lower_for_int8,
    sample_input,
)
from tcc.testing.nets import build_chain, build_dense, build_gated
from tcc.testing.op_cases import CASES, Case, build_one_input_model, sample_weights

SPEC = Path(__file__).resolve().parents[3] / "spec"
nets = pytest.mark.parametrize(
    "graph", [build_dense(), build_gated(), build_chain(30)], ids=lambda g: g.name
)


@nets
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_value_matches(graph: Graph, level: str, threads: int) -> None:
    program = build_int8_model(graph, sample_weights(graph))
    for seed in range(3):
        assert count_differing_elements(program, sample_input(graph, seed), level, threads) == {}


@nets
def test_outputs_are_close_to_the_float_network(graph: Graph) -> None:
    x = sample_input(graph)
    model = lower_for_int8(graph, sample_weights(graph))
    (got,) = integer_program.run(quantize(model, calibrate_on_input(model, x)), [x])
    (expected,) = float_program.run(model, [x])
    for name, y in expected.items():
        assert np.abs(got[name] - y).max() < 0.08 * np.abs(y).max()


@pytest.mark.parametrize(
    ("flags", "op_name"), [("sse2 avx2", "unsigned_qconv"), ("sse2 avx2 avx512_vnni", "qconv")]
)
def test_onnx_runtime_is_not_affected_by_saturating_products(
    monkeypatch, tmp_path, flags, op_name
) -> None:
    program = build_int8_model(build_dense(), sample_weights(build_dense()))
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}")
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    lowered_models: list[Model] = []
    monkeypatch.setattr(onnx, "lower", lambda model: lowered_models.append(model) or lower(model))
    x = sample_input(program.graph)
    (got,) = float_program.run(program, [x])
    (expected,) = integer_program.run(program, [x])
    assert {n.op.keyword for n in lowered_models[0].graph.nodes if isinstance(n.op, QConv)} == {
        op_name
    }
    if op_name == "unsigned_qconv" or not SATURATES:  # another processor cannot be tested here
        assert all(np.array_equal(got[name], y) for name, y in expected.items())


@nets
@pytest.mark.parametrize("level", [0.0, 1.0, -1e-30, 1e20])
def test_a_program_calibrated_on_a_constant_image_runs(graph: Graph, level: float) -> None:
    model = lower_for_int8(graph, sample_weights(graph))
    x = np.full_like(sample_input(graph), level)
    program = quantize(model, calibrate_on_input(model, x))
    for pixels in (x, sample_input(graph)):
        assert count_differing_elements(program, pixels) == {}
        (tensors,) = integer_program.run(program, [pixels])
        assert all(np.isfinite(y).all() for y in tensors.values())


@nets
def test_zero_layers_stay_zero(graph: Graph) -> None:
    weights_ = {
        name: np.ones_like(w) if name.endswith(".var") else np.zeros_like(w)
        for name, w in sample_weights(graph).items()
    }
    program = build_int8_model(graph, weights_)
    assert count_differing_elements(program, sample_input(graph)) == {}
    (tensors,) = integer_program.run(program, [sample_input(graph)])
    expected = float_program.run(Model(graph, weights_), [sample_input(graph)])[0]
    for name, y in tensors.items():
        np.testing.assert_allclose(y, expected[name], atol=0.01 * np.abs(expected[name]).max())


@looped(CASES)
def test_every_op_has_an_integer_program(case: Case) -> None:
    case_model = build_one_input_model(case)
    program = build_int8_model(case_model.graph, case_model.weights)
    assert (
        count_differing_elements(program, sample_input(case_model.graph), "ORT_DISABLE_ALL") == {}
    )


@settings(max_examples=60)
@given(data=st.data(), stretch=st.sampled_from((1.0, 0.03, 40.0)))
def test_random_networks_match(data: st.DataObject, stretch: float) -> None:
    graph = draw_graph(data.draw)
    model = lower_for_int8(graph, draw_weights(data.draw, graph))
    x = sample_input(graph)
    program = quantize(model, calibrate_on_input(model, x, stretch))
    assert integer_program.find_inexact_nodes(program.graph) == ()
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        assert count_differing_elements(program, x, level) == {}, program


@settings(max_examples=40)
@given(data=st.data())
def test_random_mixed_precision_networks_match(data: st.DataObject) -> None:
    graph = draw_graph(data.draw, floats=True)
    model = lower_for_int8(graph, draw_weights(data.draw, graph))
    x = sample_input(graph)
    program = quantize(model, calibrate_on_input(model, x))
    assert count_differing_elements(program, x, "ORT_DISABLE_ALL") == {}, program


SLOW = ("inception_v3", "vgg16_bn_gap", "squeezenet", "densenet121", "efficientnet_b0")
"""Networks that take more than 1.5 seconds each."""
MARKS = {**dict.fromkeys(SLOW, pytest.mark.slow), "vgg11": pytest.mark.nightly}
"""vgg11 has only layers of vgg16_bn_gap and squeezenet."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=MARKS.get(path.stem, ()))
        for path in (*sorted(SPEC.glob("*.yaml")), *sorted((SPEC / "baselines").glob("*.yaml")))
    ],
)
def test_every_value_of_the_zoo_matches(path: Path) -> None:
    graph = shrink_network(load(path).graph)
    program = build_int8_model(graph, weights.initialize_random(graph))
    x = sample_input(program.graph, seed=1)
    assert count_differing_elements(program, x) == {}
