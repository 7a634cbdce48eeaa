"""Estimated range of values that occur once per image."""

import numpy as np
import pytest
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.ops import Conv, Flatten, GlobalAvgPool, Linear, Relu
from tcc.compiler.quant.calibrate import calibrate
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.unseen_extremes import (
    estimate_peak,
    estimate_tail_level,
    estimate_unseen_extremes,
)
from tcc.testing.nets import NetBuilder

UNSEEN = 10_000


def create_bimodal_logits(random: np.random.Generator, count: int, channels: int = 1) -> np.ndarray:
    """Return logits of a class that a third of the images have: two distant modes."""
    is_in_class = random.random((count, channels)) < 1 / 3
    return np.where(
        is_in_class,
        random.normal(5, 0.5, is_in_class.shape),
        random.normal(-2, 0.5, is_in_class.shape),
    )


@pytest.mark.parametrize("count", [16, 64, 512])
def test_bimodal_logits_use_most_quantized_values_and_hardly_clip(count):
    random = np.random.default_rng(0)
    unseen = np.abs(create_bimodal_logits(random, 200_000))
    levels = [
        float(estimate_tail_level(np.abs(create_bimodal_logits(random, count)), UNSEEN)[0])
        for _ in range(100)
    ]
    exceeded = [float((unseen > level).mean()) for level in levels]
    assert np.mean(exceeded) < 1 / 1000
    # On the median, images use more than 80 of 127 quantized values.
    assert 7.5 / np.median(levels) > 80 / 127


def test_a_heavier_tail_extends_the_range():
    random = np.random.default_rng(1)
    flat, steep = random.uniform(0, 1, (512, 500)), random.exponential(1, (512, 500))
    level = np.median(estimate_tail_level(steep, UNSEEN))
    assert level == pytest.approx(np.log(UNSEEN), rel=0.05)
    # Bounded values have no such tail, but an exponential one is the only estimate.
    assert 1.5 < np.median(estimate_tail_level(flat, UNSEEN)) < 2


def test_estimates_are_between_the_observed_maximum_and_the_bounds():
    samples = np.vstack([np.full((63, 2), 1.0), [[9.0, 1.0]]])
    assert (estimate_tail_level(samples, UNSEEN) >= [9.0, 1.0]).all()
    assert (estimate_tail_level(samples, UNSEEN, bound=1.05) == [9.0, 1.05]).all()
    assert not estimate_tail_level(np.zeros((8, 3)), UNSEEN).any()


def test_few_images_get_the_default_headroom():
    headrooms = [
        float(estimate_tail_level(np.ones((count, 1)), UNSEEN)[0])
        for count in (1, 2, 4, 16, 64, 512)
    ]
    assert headrooms == sorted(headrooms, reverse=True)
    assert headrooms[0] == pytest.approx(2.84, rel=1e-2)
    assert headrooms[-1] < 1.06
    assert estimate_peak(np.ones(1), None, np.inf).peak == pytest.approx(headrooms[0])


def test_a_rare_class_is_no_tail():
    # A single channel would look like a mode with a tail of eight times its length.
    random = np.random.default_rng(2)
    logits = random.normal(-1, 0.3, (64, 10))
    logits[np.arange(64), random.integers(0, 10, 64)] = random.normal(6, 0.4, 64)
    separate_level = estimate_tail_level(logits, UNSEEN).max()
    joint_level = estimate_tail_level(logits.max(axis=1, keepdims=True), UNSEEN)[0]
    assert joint_level < 10 < separate_level


def test_output_ranges_follow_their_tails(tmp_path):
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(6, (3, 3), padding=1))
    add("relu", Relu())
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(5))
    model = make_lowered_model(add.build())
    images = write_tensors(tmp_path, (3, 8, 8), 32)
    output_range = calibrate(model, images, MINMAX).calibration.ranges["fc"]
    tensor_statistics = observe(model, images).by_value["fc"]
    tops = np.maximum(np.abs(tensor_statistics.lows), np.abs(tensor_statistics.highs)).max(
        axis=1, keepdims=True
    )
    assert output_range.scale * 127 == pytest.approx(
        float(estimate_tail_level(tops, UNSEEN)[0]), rel=1e-6
    )
    # Equalization does not give channels more than any of them is expected to need.
    tail = estimate_tail_level(
        np.maximum(tensor_statistics.highs, 0).max(axis=1, keepdims=True), UNSEEN
    )
    assert (
        estimate_unseen_extremes(model, observe(model, images))["fc"].limits[1] <= tail * 1.000001
    )
