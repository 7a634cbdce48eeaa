"""Moments of convolution inputs, in place of the windows."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.ops import Conv
from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.cross_fitting import observe_folds, partition
from tcc.compiler.quant.observe import condensed_statistics, observer, sampling
from tcc.compiler.quant.observe.condensed_statistics import condense_statistics
from tcc.compiler.quant.observe.observer import observe, observe_parts
from tcc.compiler.quant.observe.statistics import InputWindows, Statistics
from tcc.compiler.quant.run_options import RunOptions
from tcc.testing.nets import build_dense


def compute_moments(op, parts, images):
    """Return the moments of windows of one convolution, for parts of one image each."""
    windows = InputWindows(op, parts, tuple(range(images)))
    statistics = Statistics(tuple(map(str, range(images))), {}, {"conv": windows}, {})
    image_parts = [(image,) for image in range(images)]
    return condense_statistics(
        (statistics.select_images(part) for part in image_parts), image_parts, 1
    ).moments["conv"]


@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_moments_cover_every_output(groups, kernel, stride, dilation, seed):
    op = Conv(4, kernel, (stride, stride), dilation=(dilation, dilation), groups=groups)
    parts = np.random.default_rng(seed).normal(3, 2, (3, 4, 7, 7)).astype(np.float32)
    output_sums = compute_moments(op, parts, 3).sums
    for group in range(groups):
        patches = InputWindows(op, parts).extract_patches()[group].astype(np.float64)
        assert output_sums.count == len(patches)
        assert output_sums.total[group] == pytest.approx(patches.sum(axis=0))
        assert output_sums.products[0][group] == pytest.approx(patches.T @ patches)


def test_complete_parts_add_up_and_partial_ones_are_refused():
    parts = np.random.default_rng(0).normal(size=(4, 2, 5, 5)).astype(np.float32)
    op = Conv(3, (3, 3))
    moments = compute_moments(op, parts, 4)
    kept_sums, recomputed = (
        moments.select_images((3, 1)).sums,
        compute_moments(op, parts[[1, 3]], 2).sums,
    )
    assert kept_sums.products[0] == pytest.approx(recomputed.products[0])
    assert list(moments.select_images((3, 1)).parts) == [(1,), (0,)]
    joined = condensed_statistics.TapMoments({(0, 1): moments.sums})
    with pytest.raises(ValueError, match="complete parts"):
        joined.select_images((0,))


def test_a_part_without_sampled_windows_adds_nothing():
    op = Conv(3, (3, 3), groups=1)
    windows = InputWindows(op, np.ones((1, 2, 5, 5), np.float32), (0,))
    statistics = Statistics(("a", "b"), {}, {"conv": windows}, {})
    parts = [(0,), (1,)]
    moments = condense_statistics(
        (statistics.select_images(part) for part in parts), parts, 1
    ).moments["conv"]
    assert moments.sums.count == 9
    assert moments.select_images((1,)).sums.count == 0
    assert not moments.select_images((1,)).sums.products[0].any()


@pytest.fixture
def model_and_data(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    return model, write_tensors(tmp_path, model.graph.inputs[0].type.shape, 11)


def test_statistics_by_parts_equal_statistics_at_once(model_and_data):
    model, data = model_and_data
    full_statistics, condensed_statistics = (
        observe(model, data),
        observe_folds(model, data, RunOptions(threads=2)),
    )
    assert condensed_statistics.images == full_statistics.images
    assert not condensed_statistics.windows
    for name, value in full_statistics.by_value.items():
        assert np.array_equal(condensed_statistics.by_value[name].lows, value.lows)
        assert np.array_equal(condensed_statistics.by_value[name].highs, value.highs)
        assert not condensed_statistics.by_value[name].sample.size
    for name, rows in full_statistics.outputs.items():
        assert np.array_equal(condensed_statistics.outputs[name], rows)
    assert condensed_statistics.moments.keys() == full_statistics.windows.keys()
    for name, moments in condensed_statistics.moments.items():
        patches = full_statistics.windows[name].extract_patches().astype(np.float64)
        assert moments.sums.count == patches.shape[1]
        assert moments.sums.total == pytest.approx(patches.sum(axis=1), rel=1e-6, abs=1e-6)
    with_samples = observe_folds(model, data, RunOptions(threads=1), samples=True)
    for name, moments in with_samples.moments.items():
        product_pairs = zip(
            moments.sums.products, condensed_statistics.moments[name].sums.products, strict=True
        )
        assert all(np.array_equal(actual, expected) for actual, expected in product_pairs)
    for name, value in full_statistics.by_value.items():
        assert np.array_equal(with_samples.by_value[name].sample, value.sample)


def test_equal_images_are_in_one_part():
    names = ("a", "b", "c", "d", "e", "a", "a")
    parts = partition(names)
    assert sorted(index for part in parts for index in part) == list(range(7))
    assert len(parts) == 4
    assert sum({0, 5, 6} <= set(part) for part in parts) == 1
    assert partition(("a", "a")) == ((0, 1),)
    judge_part, fit = partition(names, 1)
    assert sorted((*judge_part, *fit)) == list(range(7))


def test_buffers_of_a_part_are_freed_before_the_next(model_and_data, monkeypatch):
    model, data = model_and_data
    buffers, live_counts = [], []
    allocate = observer._allocate_part

    def allocate_noted(*shape_args):
        gc.collect()
        live_counts.append(sum(reference() is not None for reference in buffers))
        buffer = allocate(*shape_args)
        buffers.append(weakref.ref(buffer if buffer.base is None else buffer.base))
        return buffer

    monkeypatch.setattr(observer, "_allocate_part", allocate_noted)
    observations = observe_parts(model, data, partition(data.digests), RunOptions(threads=1))
    while next(observations, None):
        pass
    # Only buffers of the same part exist when one is allocated.
    assert live_counts == [*range(len(buffers) // 4)] * 4


def test_a_layer_that_is_too_large_has_no_moments(model_and_data, monkeypatch):
    model, data = model_and_data
    monkeypatch.setattr(condensed_statistics, "MAX_WEIGHTS", 0)
    assert not observe_folds(model, data, RunOptions()).moments


def test_extremes_and_outputs_do_not_depend_on_sampling(model_and_data, monkeypatch):
    model, data = model_and_data
    full_statistics = observe(model, data)
    monkeypatch.setattr(sampling, "MAX_SAMPLED_IMAGES", 4)
    sampled_statistics = observe(model, data)
    assert (
        len({image for value in sampled_statistics.by_value.values() for image in value.sampled})
        == 4
    )
    for name, value in full_statistics.by_value.items():
        assert np.array_equal(sampled_statistics.by_value[name].lows, value.lows)
        assert np.array_equal(sampled_statistics.by_value[name].highs, value.highs)
    for name, rows in full_statistics.outputs.items():
        assert np.array_equal(sampled_statistics.outputs[name], rows)
