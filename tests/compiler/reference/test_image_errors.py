"""Output errors of each image, and the expected loss of more images."""

import numpy as np
import pytest

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Flatten, GlobalAvgPool
from tcc.compiler.reference.expected_loss import (
    MIN_IMAGES,
    compute_image_errors,
    compute_image_losses,
    estimate_losses,
)
from tcc.testing.nets import NetBuilder

IMAGES = 400


def build_model(activation="none", labels=(), kind=None, units=3) -> Model:
    add = NetBuilder(units, 2, 2)
    add("gap", GlobalAvgPool())
    add("end", Flatten())
    return Model(add.build(Output("y", "end", activation, labels=labels, kind=kind)), {})


def create_values(units=3, seed=0):
    return np.random.default_rng(seed).normal(size=(IMAGES, units)).astype(np.float32)


def compute_shares(model, values, actual):
    return compute_image_errors(model, {"y": values}, {"y": actual.astype(np.float32)})


def test_an_image_with_small_logits_does_not_dominate_the_error():
    values = create_values()
    values[0] = 1e-4
    noise = 0.01 * create_values(seed=1)
    actual = compute_shares(build_model("softmax"), values, values + noise)
    assert actual[0] < 5 * np.median(actual)
    (output,) = build_model("softmax").graph.outputs
    lost = compute_image_losses(output, values, values + noise)
    assert lost[0] > 100 * np.median(lost)


def test_shifts_that_softmax_ignores_are_no_error():
    values = create_values()
    assert compute_shares(build_model("softmax"), values, values + 5).max() < 1e-5
    assert compute_shares(build_model("sigmoid"), values, values + 5).min() > 1
    assert compute_shares(build_model(kind="regression"), values, values + 5).min() > 1


@pytest.mark.parametrize(
    ("model", "units"),
    [(build_model("softmax"), 3), (build_model("sigmoid", units=1), 1)],
    ids=["classes", "one"],
)
def test_changed_decisions_are_weighted_by_margin(model, units):
    values = create_values(units)
    values[:2] = 0
    values[:2, 0] = 0.01, 3.0
    actual = values.copy()
    actual[0, 0], actual[1, 0] = -0.01, -0.01  # both change: one near a tie, one far from it
    errors = compute_shares(model, values, actual)
    equal_margins = values.copy()
    equal_margins[1, 0] += 3.01  # the same error without a changed decision
    assert errors[1] > 20 * errors[0]
    assert errors[1] > 1.3 * compute_shares(model, values, equal_margins)[1]


def test_quantities_of_different_magnitude_count_equally():
    values = create_values() * [1, 1000, 1e-9]
    small, large = values.copy(), values.copy()
    small[:, 0] += 0.1
    large[:, 1] += 100
    model = build_model(kind="regression")
    a, b = compute_shares(model, values, small), compute_shares(model, values, large)
    assert np.median(a) == pytest.approx(np.median(b), rel=0.15)


def test_non_finite_values_have_an_infinite_error():
    values = create_values()
    actual = values.copy()
    actual[3, 1] = np.nan
    assert np.isinf(compute_shares(build_model("softmax"), values, actual)[3])


def test_equal_images_give_finite_numbers():
    values = np.ones((8, 3), np.float32)
    assert compute_shares(build_model("softmax"), values, values).max() == 0
    assert np.isfinite(compute_shares(build_model("softmax"), values, values * [1, 2, 1])).all()


def estimate_and_measure(kind, judge_count, draw, *, tail=0.8, **options):
    """Return the loss estimate from some images, and the losses of all other images."""
    values, random = create_values(seed=draw), np.random.default_rng(draw)
    model = build_model("softmax" if kind == "classes" else "none", kind=kind)
    scale = 0.01 * np.exp(random.normal(0, tail, (IMAGES, 1)))
    actual = (values + scale * random.normal(size=values.shape)).astype(np.float32)
    judge_rows = slice(judge_count)
    expected_loss = estimate_losses(
        model, {"y": values[judge_rows]}, {"y": actual[judge_rows]}, **options
    )["y"]
    (output,) = model.graph.outputs
    return expected_loss, compute_image_losses(output, values[judge_count:], actual[judge_count:])


@pytest.mark.parametrize(
    ("kind", "clipped", "judges", "width", "tail"),
    [
        ("regression", False, 8, 14, 0.8),
        ("regression", False, 16, 8, 0.8),
        ("regression", False, 64, 3, 0.8),
        ("regression", False, 64, 5, 1.2),
        ("classes", True, 64, 4, 0.8),
    ],
)
def test_the_interval_contains_the_mean_of_other_images(kind, clipped, judges, width, tail):
    """Over many trials with a long loss tail. Fewer held-out images give a wider interval.

    For classes, images with logits near zero lose many times as much as others, as with clipped
    ranges.
    """
    count_inside, widths = 0, []
    for draw in range(40):
        expected_loss, actual_losses = estimate_and_measure(
            kind, judges, draw, tail=tail, clipped=clipped
        )
        count_inside += expected_loss.low <= actual_losses.mean() <= expected_loss.high
        widths.append((expected_loss.high - expected_loss.low) / actual_losses.mean())
        assert expected_loss.kind == kind
    assert count_inside >= (36 if clipped else 38)
    assert width / 2 < np.median(widths) < width


@pytest.mark.parametrize("judges", [16, 64])
@pytest.mark.parametrize("tail", [0.8, 1.2])
def test_at_most_one_percent_of_images_exceed_the_worst_loss(judges, tail):
    """In 95 % of the trials, for few and many images: the limit is no median estimate."""
    count_inside, ratios = 0, []
    for draw in range(100):
        expected_loss, actual_losses = estimate_and_measure("regression", judges, draw, tail=tail)
        count_inside += (actual_losses > expected_loss.worst).mean() <= 0.01
        ratios.append(expected_loss.worst / np.quantile(actual_losses, 0.99))
    assert count_inside >= 95
    assert np.median(ratios) < (100 if judges < 64 else 8)  # an infinite limit is useless


def test_clipping_ranges_widen_the_interval():
    unclipped, clipped = (
        estimate_and_measure("regression", 64, 0, clipped=is_clipped)[0]
        for is_clipped in (False, True)
    )
    assert (
        clipped.low < unclipped.low < unclipped.loss == clipped.loss < unclipped.high < clipped.high
    )


@pytest.mark.parametrize("odd", [30, 1000])
def test_one_outlier_does_not_dominate_the_interval(odd):
    """It may be the only one of its kind or the first of many: the interval covers both."""
    values = create_values()[:64]
    error = 0.01 * np.random.default_rng(1).normal(size=values.shape)
    model = build_model("none", kind="regression")
    estimates = []
    for factor in (1, odd):
        error[7] *= factor
        estimates.append(
            estimate_losses(model, {"y": values}, {"y": (values + error).astype("f4")})["y"]
        )
    ordinary, with_outlier = estimates
    assert with_outlier.low < ordinary.high < 0.2 * with_outlier.loss
    assert with_outlier.high > with_outlier.loss > ordinary.high


@pytest.mark.parametrize("still", [8, 40, 63])
def test_images_without_loss_keep_the_interval_bounded(still):
    values = create_values()[:64]
    actual = (values + 0.01 * np.random.default_rng(1).normal(size=values.shape)).astype("f4")
    actual[:still] = values[:still]
    model = build_model("none", kind="regression")
    expected_loss = estimate_losses(model, {"y": values}, {"y": actual})["y"]
    (output,) = model.graph.outputs
    assert (
        expected_loss.low
        < expected_loss.loss
        < expected_loss.high
        < 12 * compute_image_losses(output, values, actual).max()
    )


def test_equal_losses_leave_uncertainty():
    """Rare images with the largest loss may be missing. This is unlikely with more images."""
    values = create_values()
    actual = (values * 1.01 + [0.01, 0, 0]).astype(np.float32)
    model = build_model("none", kind="regression")
    few, many = (
        estimate_losses(model, {"y": values[:n]}, {"y": actual[:n]})["y"] for n in (16, 256)
    )
    assert few.high / few.loss > 5
    assert 1.7 < many.high / many.loss < 3
    assert many.low / many.loss < 0.6


def test_too_few_images_give_no_estimate():
    values = create_values()[: MIN_IMAGES - 1]
    assert estimate_losses(build_model("softmax"), {"y": values}, {"y": values}) == {}
    few_values = create_values()[:MIN_IMAGES]
    expected_loss = estimate_losses(build_model("softmax"), {"y": few_values}, {"y": few_values})[
        "y"
    ]
    assert expected_loss.loss == pytest.approx(0, abs=1e-15)
    assert expected_loss.worst == 0
