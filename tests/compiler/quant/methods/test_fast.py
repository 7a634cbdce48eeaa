"""The fast method: one fit on three fourths of the images, evaluated on the rest."""

import numpy as np
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.fast import Fast
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.expected_loss import estimate_losses
from tcc.testing.nets import build_dense


def test_fast_fits_three_fourths_and_equalizes_channels(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 8)
    fit_images, _ = data.split()
    calibrated = Fast().find(model, data, RunOptions())
    assert (calibrated.held_out, calibrated.qualities_by_candidate) == (2, {})
    assert calibrated.calibration.factors
    assert not calibrated.expected  # two held-out images: too few
    traces = MINMAX.find(model, fit_images, RunOptions()).traces
    (image,) = (source.name for source in model.graph.inputs)
    assert (calibrated.traces[image].low, calibrated.traces[image].high) == (
        traces[image].low,
        traces[image].high,
    )
    from_few_images = Fast().find(model, fit_images.select_first(3), RunOptions())
    assert (from_few_images.held_out, from_few_images.expected) == (0, {})


def test_fast_reports_the_loss_on_held_out_images(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 16)
    calibrated = Fast().find(model, data, RunOptions())
    _, held_out = data.split()
    outputs = (
        output_comparison.compute_outputs(executable, held_out)
        for executable in (model, quantize(model, calibrated.calibration))
    )
    assert calibrated.expected == estimate_losses(model, *outputs)
    (stated,) = calibrated.expected.values()
    assert stated.images == 4
    assert 0 < stated.low < stated.loss < stated.high
    assert np.isfinite(stated.high)
