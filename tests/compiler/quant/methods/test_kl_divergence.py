"""The coarse search against the equation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.quant.methods.kl_divergence import (
    BINS,
    compute_divergences,
    compute_histogram,
    search,
)


def compute_divergence(counts, levels, threshold):
    """Compute equation 9 for one threshold, one bin at a time."""
    clipped = [int(c) for c in counts[:threshold]]
    clipped[-1] += int(sum(counts[threshold:]))
    if counts[threshold - 1] == 0:
        return math.inf
    members = {}
    for j in range(threshold):
        members.setdefault(round((j + 0.5) * levels / threshold), []).append(j)
    quantised = [0.0] * threshold
    for bins in members.values():
        mass = sum(int(counts[j]) for j in bins)
        used = [j for j in bins if counts[j]]
        for j in used:
            quantised[j] = mass / len(used)
    p, q = sum(clipped), sum(quantised)
    return sum(c / p * math.log((c / p) / (quantised[j] / q)) for j, c in enumerate(clipped) if c)


def search_slowly(counts, levels):
    kl_values = [compute_divergence(counts, levels, t) for t in range(levels + 1, len(counts) + 1)]
    best = min(kl_values)
    largest = max(i for i, value in enumerate(kl_values) if value <= best + 1e-13)
    return kl_values, (levels + 1 + largest) / len(counts)


HISTOGRAMS = st.lists(
    st.integers(0, 60) | st.sampled_from([0, 0, 0, 1, 1000]), min_size=24, max_size=60
)


@given(HISTOGRAMS, st.sampled_from([3, 7, 15]))
def test_vectorized_thresholds_match_the_equation(counts, levels):
    counts[-1] = max(counts[-1], 1)  # the largest magnitude is in the last bin
    counts = np.array(counts)
    expected, share = search_slowly(counts, levels)
    np.testing.assert_allclose(compute_divergences(counts, levels), expected, atol=1e-12)
    threshold = search(counts, levels)
    assert threshold.share == pytest.approx(share)
    assert threshold.divergence == pytest.approx(min(expected), abs=1e-12)


@pytest.mark.parametrize("levels", [127, 255])
def test_real_sizes_match_the_equation(levels):
    sample = np.random.default_rng(0).laplace(size=20_000).astype(np.float32)
    counts = compute_histogram(sample, float(np.abs(sample).max()))
    kl_values = compute_divergences(counts, levels)
    for threshold in (levels + 1, 500, 777, 1024, BINS - 1, BINS):
        expected = compute_divergence(counts, levels, threshold)
        assert kl_values[threshold - levels - 1] == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_the_histogram_counts_every_nonzero_value_once(values):
    sample = np.array(values, np.float32)
    counts = compute_histogram(sample, 8.0, 16)
    expected = [0] * 16
    for value in values:
        if value:
            expected[min(int(abs(value) * 2), 15)] += 1
    assert counts.tolist() == expected


def test_long_tails_are_clipped_and_uniform_values_are_not():
    rng = np.random.default_rng(1)
    tail = np.abs(rng.normal(size=100_000)).astype(np.float32)
    tail[:3] = 60.0
    assert search(compute_histogram(tail, 60.0), 127).share < 0.3
    even = rng.uniform(0, 1, 100_000).astype(np.float32)
    assert search(compute_histogram(even, 1.0), 127).share > 0.9


def test_zeros_do_not_change_the_threshold():
    rng = np.random.default_rng(2)
    activations = np.maximum(rng.normal(size=20_000), 0).astype(np.float32)
    padded = np.concatenate([activations, np.zeros(100_000, np.float32)])
    assert search(compute_histogram(padded, 5.0), 255) == search(
        compute_histogram(activations, 5.0), 255
    )


def test_an_empty_histogram_keeps_the_full_range():
    assert search(np.zeros(BINS, np.int64), 127).share == 1.0


def test_a_single_value_keeps_the_full_range():
    counts = compute_histogram(np.full(100, 3.0, np.float32), 3.0)
    assert search(counts, 255).share == 1.0
