"""Weight rounding: the scale search, GPTQ, and what both promise."""

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


def weights(seed: int, filters: int = 4, taps: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((filters, taps))


def moments(seed: int, taps: int = 6, samples: int = 40, common: float = 2.0) -> np.ndarray:
    """Return second moments of taps that have much in common."""
    random = np.random.default_rng(seed + 1)
    x = random.standard_normal((samples, taps)) + common * random.standard_normal((samples, 1))
    return x.T @ x / samples


def test_the_largest_tap_becomes_127():
    weight = np.array([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0], [1e-30, 0.0, 0.0]])
    scale = compute_absmax_scale(weight)
    assert scale.tolist() == [float(np.float32(1 / 127)), 1.0, 1.0]
    assert round_to_nearest(weight, scale).tolist() == [[64, -127, 0], [0, 0, 0], [0, 0, 0]]


@given(seed=seeds)
def test_cost_is_the_mean_square_at_the_output(seed):
    weight, x = weights(seed), np.random.default_rng(seed).standard_normal((50, 6))
    scale = compute_absmax_scale(weight) * 3
    rounded = round_to_nearest(weight, scale)
    error = x @ (rounded * scale[:, None] - weight).T
    every = x.T @ x / 50
    assert compute_cost(rounded, scale, weight, every) == pytest.approx((error**2).mean(axis=0))
    each = np.stack([every] * 4)
    assert compute_cost(rounded, scale, weight, each) == pytest.approx((error**2).mean(axis=0))


@settings(max_examples=30)
@given(seed=seeds, alone=st.booleans())
def test_no_candidate_is_better_and_ties_go_to_the_larger(seed, alone):
    weight = weights(seed)
    given_moments = np.diag(moments(seed)) if alone else moments(seed)
    found = find_best_scale(weight, given_moments)
    own = compute_cost(round_to_nearest(weight, found), found, weight, given_moments)
    for part in np.linspace(0.6, 1.0, 21):
        scale = (compute_absmax_scale(weight) * part).astype(np.float32).astype(np.float64)
        other = compute_cost(round_to_nearest(weight, scale), scale, weight, given_moments)
        assert (own <= other * (1 + 1e-9)).all()
    assert (
        find_best_scale(weight, np.zeros((6, 6))).tolist() == compute_absmax_scale(weight).tolist()
    )


def test_candidates_tried_in_parts_are_the_same(monkeypatch):
    whole = find_best_scale(weights(1), moments(1))
    for most in (100, 30, 1):
        monkeypatch.setattr(least_error_rounding, "MAX_TRIED_WEIGHTS", most)
        assert find_best_scale(weights(1), moments(1)).tolist() == whole.tolist()
    assert find_best_scale(weights(1), np.stack([moments(1)] * 4)).tolist() == whole.tolist()


@settings(max_examples=40)
@given(seed=seeds)
def test_gptq_is_never_worse_than_nearest(seed):
    weight, shared = weights(seed), moments(seed)
    scale = compute_absmax_scale(weight) * 20
    found = round_by_gptq(weight, scale, shared)
    assert found.dtype == np.int8
    plain = compute_cost(round_to_nearest(weight, scale), scale, weight, shared)
    assert (compute_cost(found, scale, weight, shared) <= plain).all()


def test_gptq_finds_nearly_what_trying_everything_finds():
    gained = []
    for seed in range(12):
        weight, shared = weights(seed, 1, 4), moments(seed, 4)
        scale = compute_absmax_scale(weight) * 40
        choices = product(*(range(int(np.floor(w)) - 1, int(w) + 3) for w in (weight / scale)[0]))
        best = min(
            float(compute_cost(np.array([c], np.int8), scale, weight, shared)[0]) for c in choices
        )
        plain = float(compute_cost(round_to_nearest(weight, scale), scale, weight, shared)[0])
        found = float(compute_cost(round_by_gptq(weight, scale, shared), scale, weight, shared)[0])
        assert best <= found * (1 + 1e-9)
        gained.append((plain - found) / max(plain - best, 1e-12) if plain > best else 1.0)
    assert np.mean(gained) > 0.6


def test_gptq_in_lazy_blocks_is_gptq(monkeypatch):
    weight, shared = weights(3, 5, 40), moments(3, 40, 200)
    scale = compute_absmax_scale(weight) * 8
    whole = round_by_gptq(weight, scale, shared)
    monkeypatch.setattr(least_error_rounding, "BLOCK_TAPS", 7)
    assert np.array_equal(round_by_gptq(weight, scale, shared), whole)


@given(seed=seeds)
def test_weights_stay_within_127_and_dead_inputs_do_no_harm(seed):
    weight = weights(seed) * 100
    scale = compute_absmax_scale(weight) / 3
    for shared in (moments(seed), np.zeros((6, 6)), np.diag([1.0, 0, 0, 0, 0, 0])):
        found = round_by_gptq(weight, scale, shared)
        assert np.abs(found.astype(int)).max() == 127
