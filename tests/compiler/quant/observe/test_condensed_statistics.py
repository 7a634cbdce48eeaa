"""Moments of what convolutions read, in place of the windows themselves."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quant_sets import ready, tensors

from tcc.compiler.ops import Conv
from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.cross_fitting import observe_folds, partition
from tcc.compiler.quant.observe import condensed_statistics, observer, sampling
from tcc.compiler.quant.observe.condensed_statistics import condense_statistics
from tcc.compiler.quant.observe.observer import observe, observe_parts
from tcc.compiler.quant.observe.statistics import InputWindows, Statistics
from tcc.compiler.quant.run_options import RunOptions
from tcc.testing.nets import build_dense


def sums(op, parts, images):
    """Return the moments of windows of one convolution, of parts of one image each."""
    windows = InputWindows(op, parts, tuple(range(images)))
    seen = Statistics(tuple(map(str, range(images))), {}, {"conv": windows}, {})
    places = [(image,) for image in range(images)]
    return condense_statistics((seen.select_images(one) for one in places), places, 1).moments[
        "conv"
    ]


@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_sums_are_those_of_every_output(groups, kernel, stride, dilation, seed):
    op = Conv(4, kernel, (stride, stride), dilation=(dilation, dilation), groups=groups)
    parts = np.random.default_rng(seed).normal(3, 2, (3, 4, 7, 7)).astype(np.float32)
    found = sums(op, parts, 3).sums
    for group in range(groups):
        read = InputWindows(op, parts).extract_patches()[group].astype(np.float64)
        assert found.count == len(read)
        assert found.total[group] == pytest.approx(read.sum(axis=0))
        assert found.products[0][group] == pytest.approx(read.T @ read)


def test_parts_that_are_left_add_up_and_others_are_refused():
    parts = np.random.default_rng(0).normal(size=(4, 2, 5, 5)).astype(np.float32)
    op = Conv(3, (3, 3))
    moments = sums(op, parts, 4)
    some, alone = moments.of((3, 1)).sums, sums(op, parts[[1, 3]], 2).sums
    assert some.products[0] == pytest.approx(alone.products[0])
    assert list(moments.of((3, 1)).parts) == [(1,), (0,)]
    joined = condensed_statistics.TapMoments({(0, 1): moments.sums})
    with pytest.raises(ValueError, match="whole parts"):
        joined.select_images((0,))


def test_a_part_of_whose_images_no_window_was_chosen_adds_nothing():
    op = Conv(3, (3, 3), groups=1)
    some = InputWindows(op, np.ones((1, 2, 5, 5), np.float32), (0,))
    seen = Statistics(("a", "b"), {}, {"conv": some}, {})
    parts = [(0,), (1,)]
    moments = condense_statistics((seen.select_images(one) for one in parts), parts, 1).moments[
        "conv"
    ]
    assert moments.sums.count == 9
    assert moments.select_images((1,)).sums.count == 0
    assert not moments.select_images((1,)).sums.products[0].any()


@pytest.fixture
def known(tmp_path):
    model = ready(build_dense(), INT8)
    return model, tensors(tmp_path, model.graph.inputs[0].type.shape, 11)


def test_what_is_seen_in_parts_is_what_is_seen_at_once(known):
    model, data = known
    whole, found = observe(model, data), observe_folds(model, data, RunOptions(threads=2))
    assert found.images == whole.images
    assert not found.windows
    for name, value in whole.by_value.items():
        assert np.array_equal(found.by_value[name].lows, value.lows)
        assert np.array_equal(found.by_value[name].highs, value.highs)
        assert not found.by_value[name].sample.size
    for name, rows in whole.outputs.items():
        assert np.array_equal(found.outputs[name], rows)
    assert found.moments.keys() == whole.windows.keys()
    for name, moments in found.moments.items():
        read = whole.windows[name].extract_patches().astype(np.float64)
        assert moments.sums.count == read.shape[1]
        assert moments.sums.total == pytest.approx(read.sum(axis=1), rel=1e-6, abs=1e-6)
    kept = observe_folds(model, data, RunOptions(threads=1), samples=True)
    for name, moments in kept.moments.items():
        same = zip(moments.sums.products, found.moments[name].sums.products, strict=True)
        assert all(np.array_equal(one, two) for one, two in same)
    for name, value in whole.by_value.items():
        assert np.array_equal(kept.by_value[name].sample, value.sample)


def test_images_that_are_alike_are_of_one_part():
    names = ("a", "b", "c", "d", "e", "a", "a")
    parts = partition(names)
    assert sorted(place for part in parts for place in part) == list(range(7))
    assert len(parts) == 4
    assert sum({0, 5, 6} <= set(part) for part in parts) == 1
    assert partition(("a", "a")) == ((0, 1),)
    judge, rest = partition(names, 1)
    assert sorted((*judge, *rest)) == list(range(7))


def test_what_is_kept_of_a_part_is_gone_when_the_next_is_looked_at(known, monkeypatch):
    model, data = known
    rooms, alive = [], []
    room = observer._allocate_part

    def noted(*given):
        gc.collect()
        alive.append(sum(one() is not None for one in rooms))
        made = room(*given)
        rooms.append(weakref.ref(made if made.base is None else made.base))
        return made

    monkeypatch.setattr(observer, "_allocate_part", noted)
    found = observe_parts(model, data, partition(data.digests), RunOptions(threads=1))
    while next(found, None):
        pass
    # The others of its own part alone are there when one is made.
    assert alive == [*range(len(rooms) // 4)] * 4


def test_a_layer_too_large_to_learn_of_has_no_moments(known, monkeypatch):
    model, data = known
    monkeypatch.setattr(condensed_statistics, "MAX_WEIGHTS", 0)
    assert not observe_folds(model, data, RunOptions()).moments


def test_what_images_show_hangs_not_on_whether_parts_of_them_are_kept(known, monkeypatch):
    model, data = known
    whole = observe(model, data)
    monkeypatch.setattr(sampling, "MAX_SAMPLED_IMAGES", 4)
    some = observe(model, data)
    assert len({one for value in some.by_value.values() for one in value.sampled}) == 4
    for name, value in whole.by_value.items():
        assert np.array_equal(some.by_value[name].lows, value.lows)
        assert np.array_equal(some.by_value[name].highs, value.highs)
    for name, rows in whole.outputs.items():
        assert np.array_equal(some.outputs[name], rows)
