"""Weight rounding: properties of the scale search and of GPTQ."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.compiler.quant.rounding import least_error_rounding
from tcc.compiler.quant.rounding.least_error_rounding import (
    compute_absmax_scale,
    compute_cost,
    find_best_scale,
    round_by_gptq,
    round_to_nearest,
)

seeds = st.integers(0, 1 << 32)


def create_weights(seed: int, filters: int = 4, taps: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((filters, taps))


def create_moments(seed: int, taps: int = 6, samples: int = 40, common: float = 2.0) -> np.ndarray:
    """Return second moments of strongly correlated taps."""
    random = np.random.default_rng(seed + 1)
    x = random.standard_normal((samples, taps)) + common * random.standard_normal((samples, 1))
    return x.T @ x / samples


def test_the_largest_weight_becomes_127():
    weight = np.array([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0], [1e-30, 0.0, 0.0]])
    scale = compute_absmax_scale(weight)
    assert scale.tolist() == [float(np.float32(1 / 127)), 1.0, 1.0]
    assert round_to_nearest(weight, scale).tolist() == [[64, -127, 0], [0, 0, 0], [0, 0, 0]]


@given(seed=seeds)
def test_the_cost_is_the_mean_squared_output_error(seed):
    weight, x = create_weights(seed), np.random.default_rng(seed).standard_normal((50, 6))
    scale = compute_absmax_scale(weight) * 3
    rounded = round_to_nearest(weight, scale)
    error = x @ (rounded * scale[:, None] - weight).T
    second_moments = x.T @ x / 50
    assert compute_cost(rounded, scale, weight, second_moments) == pytest.approx(
        (error**2).mean(axis=0)
    )
    layer_moments = np.stack([second_moments] * 4)
    assert compute_cost(rounded, scale, weight, layer_moments) == pytest.approx(
        (error**2).mean(axis=0)
    )


@settings(max_examples=30)
@given(seed=seeds, diagonal=st.booleans())
def test_the_best_scale_is_found_and_ties_take_the_larger(seed, diagonal):
    weight = create_weights(seed)
    given_moments = np.diag(create_moments(seed)) if diagonal else create_moments(seed)
    best = find_best_scale(weight, given_moments)
    best_cost = compute_cost(round_to_nearest(weight, best), best, weight, given_moments)
    for part in np.linspace(0.6, 1.0, 21):
        scale = (compute_absmax_scale(weight) * part).astype(np.float32).astype(np.float64)
        other_cost = compute_cost(round_to_nearest(weight, scale), scale, weight, given_moments)
        assert (best_cost <= other_cost * (1 + 1e-9)).all()
    assert (
        find_best_scale(weight, np.zeros((6, 6))).tolist() == compute_absmax_scale(weight).tolist()
    )


def test_candidates_in_chunks_give_the_same_scale(monkeypatch):
    reference = find_best_scale(create_weights(1), create_moments(1))
    for max_tried in (100, 30, 1):
        monkeypatch.setattr(least_error_rounding, "MAX_TRIED_WEIGHTS", max_tried)
        assert find_best_scale(create_weights(1), create_moments(1)).tolist() == reference.tolist()
    assert (
        find_best_scale(create_weights(1), np.stack([create_moments(1)] * 4)).tolist()
        == reference.tolist()
    )


@settings(max_examples=40)
@given(seed=seeds)
def test_gptq_is_never_worse_than_rounding_to_nearest(seed):
    weight, shared = create_weights(seed), create_moments(seed)
    scale = compute_absmax_scale(weight) * 20
    quantized = round_by_gptq(weight, scale, shared)
    assert quantized.dtype == np.int8
    nearest_cost = compute_cost(round_to_nearest(weight, scale), scale, weight, shared)
    assert (compute_cost(quantized, scale, weight, shared) <= nearest_cost).all()


def test_gptq_is_close_to_exhaustive_search():
    gained = []
    for seed in range(12):
        weight, shared = create_weights(seed, 1, 4), create_moments(seed, 4)
        scale = compute_absmax_scale(weight) * 40
        choices = product(*(range(int(np.floor(w)) - 1, int(w) + 3) for w in (weight / scale)[0]))
        best = min(
            float(compute_cost(np.array([c], np.int8), scale, weight, shared)[0]) for c in choices
        )
        nearest_cost = float(
            compute_cost(round_to_nearest(weight, scale), scale, weight, shared)[0]
        )
        gptq_cost = float(
            compute_cost(round_by_gptq(weight, scale, shared), scale, weight, shared)[0]
        )
        assert best <= gptq_cost * (1 + 1e-9)
        gained.append(
            (nearest_cost - gptq_cost) / max(nearest_cost - best, 1e-12)
            if nearest_cost > best
            else 1.0
        )
    assert np.mean(gained) > 0.6


def test_gptq_in_lazy_blocks_gives_the_same(monkeypatch):
    weight, shared = create_weights(3, 5, 40), create_moments(3, 40, 200)
    scale = compute_absmax_scale(weight) * 8
    reference = round_by_gptq(weight, scale, shared)
    monkeypatch.setattr(least_error_rounding, "BLOCK_TAPS", 7)
    assert np.array_equal(round_by_gptq(weight, scale, shared), reference)


@given(seed=seeds)
def test_weights_stay_within_127_with_dead_inputs(seed):
    weight = create_weights(seed) * 100
    scale = compute_absmax_scale(weight) / 3
    for shared in (create_moments(seed), np.zeros((6, 6)), np.diag([1.0, 0, 0, 0, 0, 0])):
        quantized = round_by_gptq(weight, scale, shared)
        assert np.abs(quantized.astype(int)).max() == 127
