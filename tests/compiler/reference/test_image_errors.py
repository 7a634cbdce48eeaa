"""How far the outputs of each image are off, and what is expected of more."""

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


def of(activation="none", labels=(), kind=None, units=3) -> Model:
    add = NetBuilder(units, 2, 2)
    add("gap", GlobalAvgPool())
    add("end", Flatten())
    return Model(add.build(Output("y", "end", activation, labels=labels, kind=kind)), {})


def drawn(units=3, seed=0):
    return np.random.default_rng(seed).normal(size=(IMAGES, units)).astype(np.float32)


def shares(model, values, found):
    return compute_image_errors(model, {"y": values}, {"y": found.astype(np.float32)})


def test_an_image_with_logits_near_zero_does_not_own_the_error():
    values = drawn()
    values[0] = 1e-4
    noise = 0.01 * drawn(seed=1)
    found = shares(of("softmax"), values, values + noise)
    assert found[0] < 5 * np.median(found)
    (output,) = of("softmax").graph.outputs
    lost = compute_image_losses(output, values, values + noise)
    assert lost[0] > 100 * np.median(lost)


def test_what_softmax_does_not_see_is_no_error():
    values = drawn()
    assert shares(of("softmax"), values, values + 5).max() < 1e-5
    assert shares(of("sigmoid"), values, values + 5).min() > 1
    assert shares(of(kind="regression"), values, values + 5).min() > 1


@pytest.mark.parametrize(
    ("model", "units"), [(of("softmax"), 3), (of("sigmoid", units=1), 1)], ids=["classes", "one"]
)
def test_a_decision_counts_by_its_margin(model, units):
    values = drawn(units)
    values[:2] = 0
    values[:2, 0] = 0.01, 3.0
    found = values.copy()
    found[0, 0], found[1, 0] = -0.01, -0.01  # both change: one near a tie, one far from it
    errors = shares(model, values, found)
    same = values.copy()
    same[1, 0] += 3.01  # as far off, and nothing changes
    assert errors[1] > 20 * errors[0]
    assert errors[1] > 1.3 * shares(model, values, same)[1]


def test_quantities_of_different_sizes_count_alike():
    values = drawn() * [1, 1000, 1e-9]
    small, large = values.copy(), values.copy()
    small[:, 0] += 0.1
    large[:, 1] += 100
    model = of(kind="regression")
    a, b = shares(model, values, small), shares(model, values, large)
    assert np.median(a) == pytest.approx(np.median(b), rel=0.15)


def test_what_is_not_finite_is_infinitely_far_off():
    values = drawn()
    found = values.copy()
    found[3, 1] = np.nan
    assert np.isinf(shares(of("softmax"), values, found)[3])


def test_images_that_are_alike_give_numbers():
    values = np.ones((8, 3), np.float32)
    assert shares(of("softmax"), values, values).max() == 0
    assert np.isfinite(shares(of("softmax"), values, values * [1, 2, 1])).all()


def told_and_rest(kind, judges, draw, *, tail=0.8, **how):
    """What some images say of a program, and what the others lose: a few as much as all others."""
    values, random = drawn(seed=draw), np.random.default_rng(draw)
    model = of("softmax" if kind == "classes" else "none", kind=kind)
    scale = 0.01 * np.exp(random.normal(0, tail, (IMAGES, 1)))
    found = (values + scale * random.normal(size=values.shape)).astype(np.float32)
    few = slice(judges)
    told = estimate_losses(model, {"y": values[few]}, {"y": found[few]}, **how)["y"]
    (output,) = model.graph.outputs
    return told, compute_image_losses(output, values[judges:], found[judges:])


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
def test_the_interval_holds_the_mean_of_others(kind, clipped, judges, width, tail):
    """Of many draws, with a long tail of losses; the fewer judge, the wider it is.

    Of classes, images whose logits are near zero lose many times what others do: as where ranges
    clip.
    """
    held, widths = 0, []
    for draw in range(40):
        told, rest = told_and_rest(kind, judges, draw, tail=tail, clipped=clipped)
        held += told.low <= rest.mean() <= told.high
        widths.append((told.high - told.low) / rest.mean())
        assert told.kind == kind
    assert held >= (36 if clipped else 38)
    assert width / 2 < np.median(widths) < width


@pytest.mark.parametrize("judges", [16, 64])
@pytest.mark.parametrize("tail", [0.8, 1.2])
def test_at_most_one_image_in_a_hundred_loses_more_than_the_worst(judges, tail):
    """In 95 % of the draws, few images or many: the limit is no guess of the middle."""
    held, ratios = 0, []
    for draw in range(100):
        told, rest = told_and_rest("regression", judges, draw, tail=tail)
        held += (rest > told.worst).mean() <= 0.01
        ratios.append(told.worst / np.quantile(rest, 0.99))
    assert held >= 95
    assert np.median(ratios) < (100 if judges < 64 else 8)  # a limit without end says nothing


def test_ranges_that_clip_are_trusted_less():
    room, clipped = (told_and_rest("regression", 64, 0, clipped=one)[0] for one in (False, True))
    assert clipped.low < room.low < room.loss == clipped.loss < room.high < clipped.high


@pytest.mark.parametrize("odd", [30, 1000])
def test_one_odd_image_does_not_own_the_interval(odd):
    """It may be the only one of its kind, or the first of many: both are within."""
    values = drawn()[:64]
    error = 0.01 * np.random.default_rng(1).normal(size=values.shape)
    model = of("none", kind="regression")
    told = []
    for factor in (1, odd):
        error[7] *= factor
        told.append(
            estimate_losses(model, {"y": values}, {"y": (values + error).astype("f4")})["y"]
        )
    plain, owned = told
    assert owned.low < plain.high < 0.2 * owned.loss
    assert owned.high > owned.loss > plain.high


@pytest.mark.parametrize("still", [8, 40, 63])
def test_images_that_lose_nothing_do_not_widen_it_without_end(still):
    values = drawn()[:64]
    found = (values + 0.01 * np.random.default_rng(1).normal(size=values.shape)).astype("f4")
    found[:still] = values[:still]
    model = of("none", kind="regression")
    told = estimate_losses(model, {"y": values}, {"y": found})["y"]
    (output,) = model.graph.outputs
    assert told.low < told.loss < told.high < 12 * compute_image_losses(output, values, found).max()


def test_images_that_agree_do_not_make_it_sure():
    """Rare ones, which lose the most, may not be among them; with more images that is unlikely."""
    values = drawn()
    found = (values * 1.01 + [0.01, 0, 0]).astype(np.float32)
    model = of("none", kind="regression")
    few, many = (
        estimate_losses(model, {"y": values[:n]}, {"y": found[:n]})["y"] for n in (16, 256)
    )
    assert few.high / few.loss > 5
    assert 1.7 < many.high / many.loss < 3
    assert many.low / many.loss < 0.6


def test_too_few_images_say_nothing():
    values = drawn()[: MIN_IMAGES - 1]
    assert estimate_losses(of("softmax"), {"y": values}, {"y": values}) == {}
    more = drawn()[:MIN_IMAGES]
    told = estimate_losses(of("softmax"), {"y": more}, {"y": more})["y"]
    assert told.loss == pytest.approx(0, abs=1e-15)
    assert told.worst == 0
