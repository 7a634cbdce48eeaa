"""What is measured of one output: collapse, spread, decisions, and what cannot be known."""

import numpy as np
import pytest

from tcc.compiler.ir.graph import Output
from tcc.compiler.reference.accuracy_floor import AccuracyFloor
from tcc.compiler.reference.output_quality import measure_quality

OFF = AccuracyFloor(cosine=0.0, correlation=0.0, error=1e9)
RNG = np.random.default_rng(0)


def floats(images, units, spread=1.0, mean=0.0):
    return (RNG.normal(size=(images, units)) * spread + mean).astype(np.float32)


def near(values, by=0.01):
    return (values + RNG.normal(size=values.shape) * by * values.std()).astype(np.float32)


def with_one(values, unit, value=0.0):
    """The same, but for one unit that is a constant."""
    changed = near(values)
    changed[:, unit] = value
    return changed


def measured(values, found, activation="none", labels=(), judges=None, kind=None):
    return measure_quality(Output("y", "y", activation, labels, kind=kind), values, found, judges)


@pytest.mark.parametrize("units", [1, 2, 6])
@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_a_collapse_has_no_correlation_wherever_it_lies(activation, units):
    values = floats(16, units, 0.001, 5.0)
    for constant in (values.mean(), values[0], 0):
        found = measured(values, np.zeros_like(values) + constant, activation)
        assert found.correlation == 0
        assert not AccuracyFloor().is_met({"y": found})
        assert found.loss > 1
    good = measured(values, near(values), activation)
    assert good.correlation > 0.95
    assert AccuracyFloor().is_met({"y": good})


@pytest.mark.parametrize(
    ("units", "activation"), [(4, "sigmoid"), (3, "none"), (16, "none"), (17, "none")]
)
def test_units_that_count_by_themselves(units, activation):
    values = floats(16, units)
    wrong = near(values)
    wrong[:, 1] = wrong[::-1, 1]
    assert measured(values, wrong, activation).correlation < 0.5
    assert measured(values, near(values), activation).correlation > 0.95


def test_a_narrow_unit_among_many_is_a_feature_among_others():
    values = floats(16, 40)
    values[:, 1] *= 0.3
    wrong = near(values)
    wrong[:, 1] = wrong[::-1, 1]
    assert measured(values, wrong).correlation > 0.95
    wrong[:, 2] = wrong[::-1, 2]
    assert measured(values, wrong).correlation < 0.5


@pytest.mark.parametrize("images", [2, 3, 16])
@pytest.mark.parametrize(
    ("units", "activation"), [(100, "none"), (1000, "softmax"), (6, "softmax"), (4, "sigmoid")]
)
def test_a_unit_that_stands_still_among_many_has_no_correlation(images, units, activation):
    values = floats(images, units)
    moved = int(np.abs(values - values.mean(axis=0)).mean(axis=0).argmax())
    found = measured(values, with_one(values, moved), activation)
    assert found.correlation == 0
    assert not AccuracyFloor().is_met({"y": found})


def test_a_unit_that_integers_cannot_show_may_stand_still():
    values = floats(16, 20)
    values[:, 1] *= 0.1  # it hardly moves, where others do
    assert measured(values, with_one(values, 1)).correlation > 0.95
    coarse = np.repeat(np.repeat([[0.0, 1.0]], 8, axis=0).reshape(-1, 1), 2, axis=1)
    values = (coarse * 0.9).astype(np.float32)
    coarse[:, 1] = 0  # a step of the integers is more than the floats move
    assert measured(values, coarse, "softmax").correlation != 0


def test_what_softmax_does_not_see_is_no_answer():
    values = floats(16, 3)
    shared = np.repeat(values.mean(axis=1, keepdims=True), 3, axis=1)
    assert measured(values, shared, "softmax").correlation == 0
    assert measured(values, values + 7, "softmax").correlation == pytest.approx(1)


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
@pytest.mark.parametrize("images", [1, 8])
def test_floats_that_do_not_differ_show_nothing(activation, images):
    values = np.repeat(floats(1, 3), images, axis=0)
    for found in (values, near(values, 1e-6), values + 1e-3):
        one = measured(values, found.astype(np.float32), activation)
        assert one.correlation is None
        assert one.error is None
        assert AccuracyFloor().is_met({"y": one})


def test_rounding_is_no_difference():
    values = (1 + RNG.normal(size=(8, 2)) * 1e-7).astype(np.float32)
    assert measured(values, values).correlation is None


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_what_is_no_number_is_below_every_floor(activation):
    values = floats(8, 2)
    found = near(values)
    found[3, 1] = np.nan
    one = measured(values, found, activation)
    assert not OFF.is_met({"y": one})
    assert np.isfinite(one.loss)


def test_the_error_is_relative_to_the_spread():
    values = floats(64, 2, 0.1, 40)
    offset = measured(values, values + 2 * values.std(axis=0))
    assert offset.correlation == pytest.approx(1, abs=1e-4)
    assert offset.error == pytest.approx(2, rel=1e-3)
    assert any(
        "the error of `y`" in said for said in AccuracyFloor().find_violations({"y": offset})
    )
    assert offset.cosine > 0.9999


def test_decisions_are_counted_one_by_one():
    values = floats(20, 3)
    flipped = values.copy()
    flipped[:10, 2] *= -1
    found = measured(values, flipped, "sigmoid")
    assert found.agreement == 0.5
    assert AccuracyFloor(drop=0.5, correlation=0.0, error=9).is_met({"y": found})
    (said,) = AccuracyFloor(drop=0.4, correlation=0.0, error=9).find_violations({"y": found})
    assert said == "50.0% of the images change their decision of `y`, not 40.0%"


def test_shares_are_no_raw_values():
    values = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]], np.float32)
    found = np.array([[0.25, 0.75], [0.6, 0.4], [0.9, 0.1]], np.float32)
    assert measured(values, found, labels=("a", "b")).difference == pytest.approx(0.05, abs=1e-6)


def test_a_map_has_a_unit_a_channel():
    values = RNG.normal(size=(8, 2, 3, 3)).astype(np.float32)
    found = near(values)
    found[:, 1] = values[:, 1].mean(axis=0)  # the same map for every image
    assert measured(values, found, "sigmoid").correlation == 0
    assert measured(values, near(values), "sigmoid").correlation > 0.95


def test_those_that_judge_and_those_that_show_the_spread():
    values = floats(16, 3)
    found = near(values)
    found[4:] = -values[4:]
    one = measured(values, found, "softmax", judges=4)
    assert (one.images, one.spread_images) == (4, 16)
    assert one.agreement == 1
    assert one.correlation < 0.5
