"""Quality of one output: collapse, spread, decisions, and undefined figures."""

import numpy as np
import pytest

from tcc.compiler.ir.graph import Output
from tcc.compiler.reference.accuracy_floor import AccuracyFloor
from tcc.compiler.reference.output_quality import measure_quality

OFF = AccuracyFloor(cosine=0.0, correlation=0.0, error=1e9)
RNG = np.random.default_rng(0)


def create_floats(images, units, spread=1.0, mean=0.0):
    return (RNG.normal(size=(images, units)) * spread + mean).astype(np.float32)


def add_noise(values, by=0.01):
    return (values + RNG.normal(size=values.shape) * by * values.std()).astype(np.float32)


def replace_unit(values, unit, value=0.0):
    """Return the values with one constant unit."""
    noisy_values = add_noise(values)
    noisy_values[:, unit] = value
    return noisy_values


def measure_output(values, actual, activation="none", labels=(), judges=None, kind=None):
    return measure_quality(Output("y", "y", activation, labels, kind=kind), values, actual, judges)


@pytest.mark.parametrize("units", [1, 2, 6])
@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_a_collapsed_output_has_no_correlation_at_any_offset(activation, units):
    values = create_floats(16, units, 0.001, 5.0)
    for constant in (values.mean(), values[0], 0):
        scores = measure_output(values, np.zeros_like(values) + constant, activation)
        assert scores.correlation == 0
        assert not AccuracyFloor().is_met({"y": scores})
        assert scores.loss > 1
    good = measure_output(values, add_noise(values), activation)
    assert good.correlation > 0.95
    assert AccuracyFloor().is_met({"y": good})


@pytest.mark.parametrize(
    ("units", "activation"), [(4, "sigmoid"), (3, "none"), (16, "none"), (17, "none")]
)
def test_each_of_a_few_units_must_correlate(units, activation):
    values = create_floats(16, units)
    distorted = add_noise(values)
    distorted[:, 1] = distorted[::-1, 1]
    assert measure_output(values, distorted, activation).correlation < 0.5
    assert measure_output(values, add_noise(values), activation).correlation > 0.95


def test_a_unit_with_a_small_spread_does_not_dominate():
    values = create_floats(16, 40)
    values[:, 1] *= 0.3
    distorted = add_noise(values)
    distorted[:, 1] = distorted[::-1, 1]
    assert measure_output(values, distorted).correlation > 0.95
    distorted[:, 2] = distorted[::-1, 2]
    assert measure_output(values, distorted).correlation < 0.5


@pytest.mark.parametrize("images", [2, 3, 16])
@pytest.mark.parametrize(
    ("units", "activation"), [(100, "none"), (1000, "softmax"), (6, "softmax"), (4, "sigmoid")]
)
def test_a_constant_unit_has_no_correlation(images, units, activation):
    values = create_floats(images, units)
    moving_unit = int(np.abs(values - values.mean(axis=0)).mean(axis=0).argmax())
    scores = measure_output(values, replace_unit(values, moving_unit), activation)
    assert scores.correlation == 0
    assert not AccuracyFloor().is_met({"y": scores})


def test_a_unit_below_the_int8_resolution_may_be_constant():
    values = create_floats(16, 20)
    values[:, 1] *= 0.1  # it varies little compared with others
    assert measure_output(values, replace_unit(values, 1)).correlation > 0.95
    coarse = np.repeat(np.repeat([[0.0, 1.0]], 8, axis=0).reshape(-1, 1), 2, axis=1)
    values = (coarse * 0.9).astype(np.float32)
    coarse[:, 1] = 0  # a quantization step exceeds the variation of the floats
    assert measure_output(values, coarse, "softmax").correlation != 0


def test_shifts_that_softmax_ignores_do_not_count():
    values = create_floats(16, 3)
    shared = np.repeat(values.mean(axis=1, keepdims=True), 3, axis=1)
    assert measure_output(values, shared, "softmax").correlation == 0
    assert measure_output(values, values + 7, "softmax").correlation == pytest.approx(1)


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
@pytest.mark.parametrize("images", [1, 8])
def test_constant_float_outputs_have_no_quality(activation, images):
    values = np.repeat(create_floats(1, 3), images, axis=0)
    for actual in (values, add_noise(values, 1e-6), values + 1e-3):
        scores = measure_output(values, actual.astype(np.float32), activation)
        assert scores.correlation is None
        assert scores.error is None
        assert AccuracyFloor().is_met({"y": scores})


def test_rounding_errors_do_not_count():
    values = (1 + RNG.normal(size=(8, 2)) * 1e-7).astype(np.float32)
    assert measure_output(values, values).correlation is None


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_nan_outputs_violate_every_floor(activation):
    values = create_floats(8, 2)
    actual = add_noise(values)
    actual[3, 1] = np.nan
    scores = measure_output(values, actual, activation)
    assert not OFF.is_met({"y": scores})
    assert np.isfinite(scores.loss)


def test_the_error_is_relative_to_the_spread():
    values = create_floats(64, 2, 0.1, 40)
    offset = measure_output(values, values + 2 * values.std(axis=0))
    assert offset.correlation == pytest.approx(1, abs=1e-4)
    assert offset.error == pytest.approx(2, rel=1e-3)
    assert any(
        "the error of `y`" in violation
        for violation in AccuracyFloor().find_violations({"y": offset})
    )
    assert offset.cosine > 0.9999


def test_multi_label_decisions_are_counted_separately():
    values = create_floats(20, 3)
    flipped = values.copy()
    flipped[:10, 2] *= -1
    scores = measure_output(values, flipped, "sigmoid")
    assert scores.agreement == 0.5
    assert AccuracyFloor(drop=0.5, correlation=0.0, error=9).is_met({"y": scores})
    (violation,) = AccuracyFloor(drop=0.4, correlation=0.0, error=9).find_violations({"y": scores})
    assert violation == "50.0% of the images change their decision of `y`; the limit is 40.0%"


def test_probabilities_are_no_raw_values():
    values = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]], np.float32)
    actual = np.array([[0.25, 0.75], [0.6, 0.4], [0.9, 0.1]], np.float32)
    assert measure_output(values, actual, labels=("a", "b")).difference == pytest.approx(
        0.05, abs=1e-6
    )


def test_a_map_has_one_unit_per_channel():
    values = RNG.normal(size=(8, 2, 3, 3)).astype(np.float32)
    actual = add_noise(values)
    actual[:, 1] = values[:, 1].mean(axis=0)  # the same map for every image
    assert measure_output(values, actual, "sigmoid").correlation == 0
    assert measure_output(values, add_noise(values), "sigmoid").correlation > 0.95


def test_held_out_images_are_scored_and_all_images_give_the_spread():
    values = create_floats(16, 3)
    actual = add_noise(values)
    actual[4:] = -values[4:]
    scores = measure_output(values, actual, "softmax", judges=4)
    assert (scores.images, scores.spread_images) == (4, 16)
    assert scores.agreement == 1
    assert scores.correlation < 0.5
