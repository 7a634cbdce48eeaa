"""Calibration of random networks with extreme weights, and of every op."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_sets import write_tensors
from random_nets import draw_graph, draw_weights
from tables import looped

from tcc.compiler.ir.graph import Model
from tcc.compiler.passes import INT8, run
from tcc.compiler.quant.calibrate import calibrate
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.quant.methods.kl_cosine import KL_COSINE
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.op_cases import CASES, build_one_input_model


def assert_same_calibration(actual, expected):
    assert actual.calibration.ranges == expected.calibration.ranges
    assert actual.traces == expected.traces
    assert actual.qualities_by_candidate == expected.qualities_by_candidate
    assert actual.calibration.rounded.keys() == expected.calibration.rounded.keys()
    for name, rounded_layer in actual.calibration.rounded.items():
        for field in ("weight", "scale", "bias"):
            assert np.array_equal(
                getattr(rounded_layer, field), getattr(expected.calibration.rounded[name], field)
            )


@settings(max_examples=25)
@given(st.data())
def test_random_networks_calibrate(data):
    graph = draw_graph(data.draw, floats=True)
    model = run(Model(graph, draw_weights(data.draw, graph)), INT8)
    method = data.draw(st.sampled_from(METHODS))
    shape = model.graph.inputs[0].type.shape
    with tempfile.TemporaryDirectory() as folder:
        images = write_tensors(Path(folder), shape, 5)
        order = data.draw(st.permutations(range(5)))
        shuffled_images = write_tensors(Path(folder), shape, 5, order=order, name="again")
    try:
        outcome = calibrate(model, images, method, RunOptions(threads=1))
    except UserError as error:  # float32 itself overflows
        assert {diagnostic.code for diagnostic in error.diagnostics} == {"E0720"}  # noqa: PT017
        return
    assert_same_calibration(
        outcome, calibrate(model, shuffled_images, method, RunOptions(threads=2, batch=2))
    )
    scales = [tensor_range.scale for tensor_range in outcome.calibration.ranges.values()]
    assert all(2.0**-60 <= scale < np.inf for scale in scales)
    quantize(model, outcome.calibration)


@looped(CASES, one_in=3)
def test_every_operation_calibrates(case, tmp_path):
    model = run(build_one_input_model(case), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 4)
    quantize(model, calibrate(model, data, KL_COSINE).calibration)
