"""The quick method: one fit of three fourths of the images, and the rest judge its program."""

import numpy as np
from quant_sets import ready, tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.fast import Fast
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.expected_loss import estimate_losses
from tcc.testing.nets import build_dense


def test_it_learns_from_three_fourths_and_equalises_channels(tmp_path):
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 8)
    learn, _ = data.split()
    found = Fast().find(model, data, RunOptions())
    assert (found.held_out, found.qualities_by_candidate) == (2, {})
    assert found.calibration.factors
    assert not found.expected  # two images judge: too few
    seen = MINMAX.find(model, learn, RunOptions()).traces
    (image,) = (source.name for source in model.graph.inputs)
    assert (found.traces[image].low, found.traces[image].high) == (
        seen[image].low,
        seen[image].high,
    )
    few = Fast().find(model, learn.first(3), RunOptions())
    assert (few.held_out, few.expected) == (0, {})


def test_it_says_what_its_own_program_loses_on_the_others(tmp_path):
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 16)
    found = Fast().find(model, data, RunOptions())
    _, held_out = data.split()
    outputs = (
        output_comparison.compute_outputs(one, held_out)
        for one in (model, quantize(model, found.calibration))
    )
    assert found.expected == estimate_losses(model, *outputs)
    (stated,) = found.expected.values()
    assert stated.images == 4
    assert 0 < stated.low < stated.loss < stated.high
    assert np.isfinite(stated.high)
