"""How far the outputs of each image are off, and what is expected of more."""

import numpy as np
import pytest
from nets import Steps

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Flatten, GlobalAvgPool
from tcc.compiler.reference.expected_loss import FEWEST, expected_losses
from tcc.compiler.reference.image_errors import error_shares, losses

IMAGES = 400


def of(activation="none", labels=(), kind=None, units=3) -> Model:
    add = Steps(units, 2, 2)
    add("gap", GlobalAvgPool())
    add("end", Flatten())
    return Model(add.graph(Output("y", "end", activation, labels=labels, kind=kind)), {})


def drawn(units=3, seed=0):
    return np.random.default_rng(seed).normal(size=(IMAGES, units)).astype(np.float32)


def shares(model, values, found):
    return error_shares(model, {"y": values}, {"y": found.astype(np.float32)})


def test_an_image_with_logits_near_zero_does_not_own_the_error():
    values = drawn()
    values[0] = 1e-4
    noise = 0.01 * drawn(seed=1)
    found = shares(of("softmax"), values, values + noise)
    assert found[0] < 5 * np.median(found)
    (output,) = of("softmax").graph.outputs
    lost = losses(output, values, values + noise)
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


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_the_interval_holds_the_mean_of_others(kind):
    """Losses with a long tail: some images in a hundred lose as much as all others."""
    random = np.random.default_rng(2)
    held, widths = 0, []
    model = of("softmax" if kind == "classes" else "none", kind=kind)
    for draw in range(40):
        values = drawn(seed=draw)
        scale = 0.01 * np.exp(random.normal(0, 0.8, (IMAGES, 1)))
        found = values + scale * random.normal(size=values.shape).astype(np.float32)
        few = slice(64)
        told = expected_losses(model, {"y": values[few]}, {"y": found[few].astype(np.float32)})["y"]
        (output,) = model.graph.outputs
        rest = losses(output, values[64:], found[64:].astype(np.float32))
        held += told.low <= rest.mean() <= told.high
        widths.append((told.high - told.low) / rest.mean())
        assert told.kind == kind
        assert (rest > told.worst).mean() < 0.1
    assert held >= 36
    assert np.median(widths) < 6


def test_too_few_images_say_nothing():
    values = drawn()[: FEWEST - 1]
    assert expected_losses(of("softmax"), {"y": values}, {"y": values}) == {}
    more = drawn()[:FEWEST]
    told = expected_losses(of("softmax"), {"y": more}, {"y": more})["y"]
    assert told.loss == pytest.approx(0, abs=1e-15)
    assert told.worst == 0
