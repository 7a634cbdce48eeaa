"""Range methods: what they clip, and that no scale is zero or NaN."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quant_sets import make_lowered_model, replace_weights, write_tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import SEARCHES, mse, percentile
from tcc.compiler.quant.methods.kl_cosine import KL_COSINE
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.methods.percentile import OUTLIER_SHARE
from tcc.compiler.quant.methods.value_groups import build_value_groups, compute_jackknife_spread
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, find_scale_groups
from tcc.compiler.reference import output_comparison
from tcc.testing.nets import build_dense, build_gated

NETS = {"dense": build_dense, "gated": build_gated}
methods = pytest.mark.parametrize("method", SEARCHES, ids=lambda method: method.name)


@pytest.fixture(scope="module", params=NETS.values(), ids=NETS)
def observation(request, tmp_path_factory):
    """A model, its data and the observed statistics."""
    model = make_lowered_model(request.param(), INT8)
    folder = tmp_path_factory.mktemp("set")
    data = write_tensors(folder, model.graph.inputs[0].type.shape, 8)
    return model, data, observe(model, data)


def test_minmax_maps_the_largest_value_to_the_largest_quantized_value(observation):
    model, _, statistics = observation
    assert MINMAX.search(model, statistics, None).ranges == compute_minmax_ranges(
        model, statistics.limits
    )


@methods
def test_a_group_has_one_scale_that_is_not_above_minmax(observation, method):
    model, _, statistics = observation
    calibrated = method.search(model, statistics, None)
    minmax = MINMAX.search(model, statistics, None)
    for group in find_scale_groups(model.graph):
        assert len({calibrated.ranges[name] for name in group}) == 1
    for name, tensor_range in calibrated.ranges.items():
        assert 0 < tensor_range.scale <= minmax.ranges[name].scale
        assert tensor_range.signed == minmax.ranges[name].signed
        assert tensor_range.scale == float(np.float32(tensor_range.scale))
        trace = calibrated.traces[name]
        assert trace.threshold == pytest.approx(tensor_range.scale * tensor_range.limits[1])
        assert trace.low <= trace.high


@methods
def test_int8_outputs_are_close_to_fp32(observation, method):
    model, data, statistics = observation
    calibrated = method.search(model, statistics, None)
    program = quantize(model, Calibration(calibrated.ranges, calibrated.rounded))
    qualities = output_comparison.compare_programs(
        model, program, output_comparison.select_comparison_images(data)
    )
    assert all(quality.cosine > 0.9 for quality in qualities.values())


def test_the_number_of_threads_does_not_matter(observation):
    model, _, statistics = observation
    single_threaded, multi_threaded = (
        KL_COSINE.search(model, statistics, threads) for threads in (1, 4)
    )
    assert single_threaded.ranges == multi_threaded.ranges
    assert single_threaded.traces == multi_threaded.traces
    for name, rounded in single_threaded.rounded.items():
        for field in ("weight", "scale", "bias"):
            assert np.array_equal(
                getattr(rounded, field), getattr(multi_threaded.rounded[name], field)
            )


def test_percentile_clips_one_in_ten_thousand(observation):
    model, _, statistics = observation
    numbers = np.abs(np.random.default_rng(0).normal(size=(40_000, 1)).astype(np.float32))
    group = next(group for group in build_value_groups(model, statistics) if not group.fixed)
    top = float(numbers.max())
    observed_range = replace(group.range, scale=top / group.max_quantized)
    long_tailed = replace(group, samples=(numbers,), low=0.0, high=top, range=observed_range)
    clipped = percentile.find_share(long_tailed) * top
    assert np.count_nonzero(numbers > clipped * 1.0001) == int(numbers.size * OUTLIER_SHARE)


def test_mse_is_no_worse_than_the_full_range(observation):
    model, _, statistics = observation
    rng = np.random.default_rng(0)
    numbers = rng.laplace(size=(30_000, 1)).astype(np.float32)
    numbers[0] = 3 * np.abs(numbers).max()
    group = next(g for g in build_value_groups(model, statistics) if not g.fixed and g.range.signed)
    top = float(np.abs(numbers).max())
    observed_range = replace(group.range, scale=top / 127)
    long_tailed = replace(group, samples=(numbers,), low=-top, high=top, range=observed_range)

    def error(scale):
        return float(np.mean((np.clip(np.rint(numbers / scale), -128, 127) * scale - numbers) ** 2))

    scale = mse.find_share(long_tailed) * observed_range.scale
    assert scale < observed_range.scale
    assert error(scale) < error(observed_range.scale)


def zero_first_filter(weight):
    return np.concatenate([np.zeros_like(weight[:1]), weight[1:]])


@methods
def test_dead_channels_and_dead_layers_have_normal_scales(method, tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    convs = [node for node in model.graph.nodes if node.op.keyword == "conv"]
    dead = replace_weights(model, convs[1].params[0], np.zeros_like)
    dead = replace_weights(dead, convs[1].params[1], lambda b: -np.ones_like(b))
    dead = replace_weights(dead, convs[0].params[0], zero_first_filter)
    data = write_tensors(tmp_path, dead.graph.inputs[0].type.shape, 4)
    calibrated = method.search(dead, observe(dead, data), None)
    assert all(
        2.0**-60 <= tensor_range.scale < np.inf for tensor_range in calibrated.ranges.values()
    )
    for rounded in calibrated.rounded.values():
        assert np.isfinite(rounded.scale).all()
        assert (rounded.scale > 0).all()
    quantize(dead, Calibration(calibrated.ranges, calibrated.rounded))


@methods
def test_a_constant_image_and_one_image_only(method, tmp_path):
    model = make_lowered_model(build_gated(), INT8)
    np.savez(tmp_path / "set.npz", tensors=np.zeros((1, *model.graph.inputs[0].type.shape)))
    from tcc.compiler.data.dataset import read_dataset

    data = read_dataset(tmp_path / "set.npz")
    calibrated = method.search(model, observe(model, data), None)
    assert calibrated.ranges[model.graph.inputs[0].name].scale == 1.0
    assert all(trace.spread is None for trace in calibrated.traces.values())
    rows = output_comparison.compute_outputs(
        quantize(model, Calibration(calibrated.ranges, calibrated.rounded)), data
    )
    assert all(values.any() for values in rows.values())


@given(st.lists(st.floats(0, 100, width=32), min_size=2, max_size=12))
def test_the_spread_is_a_jackknife_estimate(tops):
    tops = np.array(tops, np.float32)
    count = len(tops)
    without = np.array([np.delete(tops, i).max() for i in range(count)], np.float64)
    variance = (count - 1) / count * ((without - without.mean()) ** 2).sum()
    expected = np.sqrt(variance) / tops.max() if tops.max() > 0 else 0.0
    assert compute_jackknife_spread(tops) == pytest.approx(expected, rel=1e-5, abs=1e-6)
