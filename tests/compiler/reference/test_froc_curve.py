"""The free-response ROC curve: worked examples, and all others against the definition."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.reference import froc_curve
from tcc.compiler.reference.froc_curve import RATES, FrocSlide

NONE = float("nan")


def create_slide(lesions, false, counts=True):
    return FrocSlide(np.array(lesions, np.float64), np.array(false, np.float64), counts)


def test_a_worked_example():
    """Four lesions on two slides, from the likeliest on, with false positives per slide R.

    0.9 is a lesion: S 1/4, R 0. 0.8 is false: 1/4, 1/2. 0.7 is a lesion and a false one at once:
    1/2, 1. 0.6 is false: 1/2, 3/2. 0.5 is a lesion: 3/4, 3/2. The fourth is never found.
    """
    froc = froc_curve.compute_froc(
        [create_slide([0.9, 0.5], [0.8, 0.7]), create_slide([0.7, NONE], [0.6])]
    )
    # There is no point at 1/4: the curve is flat there. Beyond 2 nothing more is detected.
    assert froc.sensitivities == (0.25, 0.25, 0.5, 0.75, 0.75, 0.75)
    assert froc.score == pytest.approx(3.25 / 6)


def test_between_two_points_the_curve_is_straight():
    froc = froc_curve.compute_froc([create_slide([0.9, 0.1], [0.1])])
    # From (0, 1/2) to (1, 1): equally likely findings come together.
    assert froc.sensitivities == (0.625, 0.75, 1, 1, 1, 1)


def test_the_last_point_at_a_rate_counts():
    froc = froc_curve.compute_froc([create_slide([0.9, 0.8, 0.7, 0.3], [0.5])])
    assert froc.sensitivities == (0.75, 0.75, 1, 1, 1, 1)


def test_false_positives_are_counted_at_the_requested_rates():
    slides = [create_slide([0.5], [0.9] * 8, counts=False), create_slide([], [0.6])]
    assert froc_curve.compute_froc(slides).sensitivities == (0, 0, 1, 1, 1, 1)
    assert froc_curve.compute_froc([create_slide([0.5], [0.9], counts=False)]) is None


def test_empty_input():
    assert froc_curve.compute_froc([]) is None
    assert froc_curve.compute_froc([create_slide([], [0.9])]) is None
    assert froc_curve.compute_froc([create_slide([NONE, NONE], [])]).sensitivities == (0,) * 6
    assert froc_curve.compute_froc([create_slide([0.5], [])]).sensitivities == (1,) * 6


def test_the_interval_resamples_slides():
    assert froc_curve.compute_froc([create_slide([0.9, NONE], [0.8])]).bounds is None
    equal_slides = [create_slide([0.9, NONE], [0.8])] * 20
    assert froc_curve.compute_froc(equal_slides).bounds is None
    mixed = [create_slide([0.9], []), create_slide([NONE], [])] * 10
    bounds = froc_curve.compute_froc(mixed).bounds
    # With half of 20 slides found, the share is within about 1.96 sqrt(1/80) of 1/2.
    assert bounds.low == pytest.approx(0.5 - 0.219, abs=0.05)
    assert bounds.high == pytest.approx(0.5 + 0.219, abs=0.05)
    assert froc_curve.compute_froc(mixed, 1) == froc_curve.compute_froc(mixed, 1)


def compute_froc(slides):
    """Compute the definition point by point, in fractions."""
    lesions = [p for case in slides for p in case.lesions]
    false = [p for case in slides if case.counts for p in case.false]
    slide_count = sum(case.counts for case in slides)
    if not lesions or not slide_count:
        return None
    thresholds = {p for p in [*lesions, *false] if p == p}  # noqa: PLR0124 - NaN is none
    curve = [(Fraction(0), Fraction(0))]
    for threshold in sorted(thresholds, reverse=True):
        rate = Fraction(sum(p >= threshold for p in false), slide_count)
        curve.append((rate, Fraction(sum(p >= threshold for p in lesions), len(lesions))))
    sensitivities = []
    for target_rate in map(Fraction, RATES):
        x0, y0 = [point for point in curve if point[0] <= target_rate][-1]
        later_points = [point for point in curve if point[0] > target_rate]
        slope = (later_points[0][1] - y0) / (later_points[0][0] - x0) if later_points else 0
        sensitivities.append(y0 + slope * (target_rate - x0))
    return sensitivities


LIKELY = st.integers(0, 6).map(lambda n: n / 6)
SLIDES = st.lists(
    st.builds(
        create_slide,
        st.lists(st.one_of(LIKELY, st.just(NONE)), max_size=4),
        st.lists(LIKELY, max_size=30),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@given(SLIDES)
def test_curves_match_the_definition(slides):
    actual, expected = froc_curve.compute_froc(slides), compute_froc(slides)
    if expected is None:
        assert actual is None
        return
    assert actual.sensitivities == pytest.approx(
        [float(sensitivity) for sensitivity in expected], abs=1e-12
    )
    assert actual.score == pytest.approx(float(sum(expected) / 6), abs=1e-12)
