"""The quick method: every image teaches, and a fourth says what is lost by the others."""

from nets import dense
from quant_sets import ready, tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.fast import Fast
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.methods.minmax import MINMAX


def test_it_learns_from_all_images_and_equalises_channels(tmp_path):
    model = ready(dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 8)
    found = Fast().find(model, data, RunOptions())
    assert (found.held_out, found.judged) == (0, {})
    assert found.calibration.factors
    assert not found.expected  # two images judge: too few
    seen = MINMAX.find(model, data, RunOptions()).traces
    (image,) = (source.name for source in model.graph.inputs)
    assert (found.traces[image].low, found.traces[image].high) == (
        seen[image].low,
        seen[image].high,
    )
    part = Fast().find(model, data.split()[0], RunOptions())
    assert part.traces != found.traces


def test_it_says_what_unseen_images_lose(tmp_path):
    model = ready(dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 16)
    (stated,) = Fast().find(model, data, RunOptions()).expected.values()
    assert stated.images == 4
    assert 0 < stated.low < stated.loss < stated.high
