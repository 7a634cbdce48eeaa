"""Prediction sets and abstention against brute force, and their promise counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tcc.compiler.reference import confidence_intervals, prediction_sets

SMALL_FLOATS = st.integers(-20, 20).map(lambda n: float(np.float32(n) * np.float32(0.0937)))
ROWS = st.integers(2, 5).flatmap(
    lambda classes: st.lists(
        st.lists(SMALL_FLOATS, min_size=classes, max_size=classes), min_size=1, max_size=80
    )
)


def count_allowed(share, count, confidence):
    """Return the largest number of failures by SciPy's binomial distribution; None without one."""
    tails = binom.cdf(np.arange(count), count, 1 - share)
    allowed = np.flatnonzero(tails <= 1 - confidence)
    return int(allowed[-1]) if allowed.size else None


@settings(deadline=None)
@given(ROWS, st.data())
def test_a_set_has_the_classes_near_the_largest_output(rows, data):
    raw = np.array(rows, np.float32)
    gaps = data.draw(
        st.lists(
            st.none() | st.integers(0, 40).map(lambda n: float(np.float32(n) * np.float32(0.0937))),
            min_size=raw.shape[1], max_size=raw.shape[1],
        )
    )  # fmt: skip
    members = prediction_sets.find_sets(raw, gaps)
    for row, row_members in zip(raw, members, strict=True):
        for value, gap, is_member in zip(row, gaps, row_members, strict=True):
            assert is_member == (gap is None or np.float32(row.max() - value) <= np.float32(gap))
        assert row_members[row.argmax()]
    assert (prediction_sets.find_sets(raw, gaps[:1])[:, 0] == members[:, 0]).all()


@settings(deadline=None)
@given(
    st.lists(SMALL_FLOATS.map(abs), min_size=1, max_size=300),
    st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_a_gap_is_the_smallest_with_few_enough_misses(numbers, coverage, confidence):
    true_gaps = np.array(numbers, np.float32)
    fitted = prediction_sets.fit_gap(true_gaps, coverage, confidence)
    allowed = count_allowed(coverage, len(numbers), confidence)
    assert (fitted is None) == (allowed is None)
    if fitted is not None:
        candidates = [gap for gap in true_gaps if (true_gaps > gap).sum() <= allowed]
        assert fitted == (min(candidates), allowed)


@settings(deadline=None)
@given(
    st.lists(st.tuples(SMALL_FLOATS.map(abs), st.booleans()), min_size=1, max_size=300),
    st.sampled_from([0.05, 0.1, 0.3]),
)
def test_a_margin_is_the_smallest_with_few_enough_wrong_answers(images, share):
    margins = np.array([margin for margin, _ in images], np.float32)
    wrong = np.array([is_wrong for _, is_wrong in images])
    fitted = prediction_sets.fit_margin(margins, wrong, share, 0.95)
    allowed = count_allowed(1 - share, len(images), 0.95)
    assert (fitted is None) == (allowed is None)
    if fitted is not None:
        candidates = [
            margin
            for margin in (prediction_sets.ANSWER_ALL, *margins.tolist())
            if ((margins > margin) & wrong).sum() <= allowed
        ]
        assert fitted == (min(candidates), allowed)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.floats(0.01, 0.99), st.data())
def test_a_lower_bound_is_exact(count, confidence, data):
    detected = data.draw(st.integers(0, count))
    bound = confidence_intervals.compute_lower_bound(detected, count, confidence)
    # At the bound, so many or more are detected with the probability of the risk.
    expected = 1 - confidence if detected else 1.0
    assert binom.sf(detected - 1, count, bound) == pytest.approx(expected, abs=1e-6)
    assert confidence_intervals.is_certified(bound, count, count - detected, confidence)


def test_predictive_values_are_shares_of_a_population():
    ppv, npv = confidence_intervals.compute_predictive_values(0.9, 0.8, 0.1)
    # Of 1,000 images, 90 of 100 are detected, 180 of 900 are false alarms.
    assert ppv == pytest.approx(90 / 270)
    assert npv == pytest.approx(720 / 730)
    needed = confidence_intervals.compute_needed_specificity(0.9, ppv, 0.1)
    assert needed == pytest.approx(0.8)
