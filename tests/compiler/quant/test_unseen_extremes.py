"""Estimated range of values in unseen images."""

import numpy as np
import pytest
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.ops import Conv, Flatten, GlobalAvgPool, Linear, Relu, Relu6
from tcc.compiler.quant import unseen_extremes as module
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.unseen_extremes import (
    RETURN_PERIOD,
    collect_extremes,
    estimate_peak,
    estimate_return_level,
    estimate_unseen_extremes,
)
from tcc.testing.nets import NetBuilder

GUMBEL = 0.1699


def build_clamped_graph():
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(6, (3, 3), padding=1))
    add("clamp", Relu6())
    add("next", Conv(6, (1, 1)))
    add("relu", Relu())
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(3))
    return add.build()


@pytest.mark.parametrize("count", [64, 512])
def test_return_levels_of_known_distributions(count):
    random = np.random.default_rng(0)
    samples = random.gumbel(2.0, 0.25, (count, 4000))
    true = 2.0 + 0.25 * np.log(RETURN_PERIOD)
    levels = estimate_return_level(samples, GUMBEL)
    assert np.median(levels) == pytest.approx(true, rel=0.1)
    # Bounded values have another shape parameter, and so another level.
    even = random.uniform(0, 1, (count, 4000)).max(axis=1, keepdims=True) * np.ones((1, 2))
    assert (estimate_return_level(even, -0.3) < estimate_return_level(even, GUMBEL)).all()


def test_exceedances_are_as_rare_as_the_return_period(monkeypatch):
    monkeypatch.setattr(module, "RETURN_PERIOD", 200)
    random = np.random.default_rng(1)
    scale, location = random.uniform(0.1, 0.4, 300), random.uniform(1, 2, 300)
    observed, unseen = (random.gumbel(location, scale, (count, 300)) for count in (64, 4000))
    share = (unseen > estimate_return_level(observed, GUMBEL)).mean()
    assert 0.5 / 200 < share < 2 / 200
    assert (unseen > observed.max(axis=0)).mean() > 2 * share


def test_estimates_are_between_the_observed_maximum_and_the_bounds():
    random = np.random.default_rng(2)
    samples = np.vstack([random.normal(1, 0.001, (63, 50)), np.full((1, 50), 9.0)])
    assert (estimate_return_level(samples, -0.3) >= 9.0).all()
    assert (
        estimate_return_level(samples, GUMBEL, bound=6.0) == 9.0
    ).all()  # observed values count more
    assert (estimate_return_level(samples[:63], GUMBEL, bound=1.005) <= 1.005).all()
    assert not estimate_return_level(np.zeros((8, 3)), GUMBEL).any()


def test_few_images_get_the_default_headroom():
    assert estimate_return_level(np.ones((1, 1)))[0] == pytest.approx(1 + 0.2 * 8.334, rel=1e-3)
    headrooms = [
        float(estimate_return_level(np.ones((count, 1)))[0]) for count in (1, 2, 4, 16, 64, 512)
    ]
    assert headrooms == sorted(headrooms, reverse=True)
    assert headrooms[-1] < 1.02  # so many equal images show that there is no spread


def test_relative_error_of_an_estimate():
    random = np.random.default_rng(3)
    few, many = (random.uniform(1.0, 1.5, (20, count)) for count in (8, 512))
    errors = [
        np.mean([estimate_peak(tops, 0.0, np.inf).relative_error for tops in sample_sets])
        for sample_sets in (few, many)
    ]
    assert errors[0] > 3 * errors[1] > 0
    assert estimate_peak(few[0, :1], GUMBEL, np.inf).relative_error is None
    assert estimate_peak(np.zeros(4), GUMBEL, np.inf).relative_error == 0.0


def test_ranges_exceed_the_observed_values_up_to_their_bounds(tmp_path):
    model = make_lowered_model(build_clamped_graph())
    model.weights[model.graph.nodes[0].params[0]][:] *= 40
    statistics = observe(model, write_tensors(tmp_path, (3, 8, 8), 8))
    observed_extremes, unseen_range = (
        collect_extremes(statistics),
        estimate_unseen_extremes(model, statistics),
    )
    assert observed_extremes["clamp"].limits[1] == unseen_range["clamp"].limits[1] == 6.0
    for name, extremes in unseen_range.items():
        assert (extremes.peaks >= observed_extremes[name].peaks * 0.9999999).all()
    assert unseen_range["relu"].limits[1] > 1.1 * observed_extremes["relu"].limits[1]
    assert unseen_range["relu"].limits[0] >= 0.0
