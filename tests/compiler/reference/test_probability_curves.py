"""Calibration errors and decision curves against their definitions, and over many draws."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.reference import confidence_intervals, decision_curve, reliability

SCORED = st.lists(
    st.tuples(st.integers(0, 100).map(lambda n: n / 100), st.booleans()), min_size=1, max_size=40
)
BINS = 15


def measure(confidences, correct, cases=(), seed=0):
    return reliability.compute_reliability(
        "", np.array(confidences), np.array(correct), reliability.index_cases(cases), 0.95, seed
    )


def count_false_alarms(images, trials, seed):
    """How often a calibrated network is called miscalibrated."""
    rng = np.random.default_rng(seed)
    return sum(
        "miscalibrated" in measure(c, rng.random(images) < c, seed=trial).describe()
        for trial, c in enumerate(rng.beta(4, 1, (trials, images)))
    )


def draw_cases(rng, cases, size):
    """A calibrated network on images of cases, all equally lucky in a case."""
    index = np.repeat(np.arange(cases), size)
    confidences = rng.beta(4, 1, cases * size)
    return confidences, rng.random(cases)[index] < confidences, [str(k) for k in index]


class TestCalibrationError:
    def test_hand_computed_example(self):
        # Bins of 1/15: 0.5 in [7/15, 8/15), 0.9 and 0.92 in [13/15, 14/15), 1.0 in the last one.
        measured = measure([0.9, 0.5, 0.92, 1.0], [True, False, False, True])
        expected = (2 * abs(0.5 - 0.91) + 0.5 + 0) / 4
        assert measured.error == pytest.approx(expected, abs=1e-12)
        assert [b.images for b in measured.bins] == [1, 2, 1]
        assert [b.confidence for b in measured.bins] == pytest.approx([0.5, 0.91, 1.0])
        assert [b.accuracy for b in measured.bins] == [0, 0.5, 1]
        two = confidence_intervals.compute_share_interval(1, 2)
        assert (measured.bins[1].low, measured.bins[1].high) == (two.low, two.high)
        assert (measured.confidence, measured.accuracy) == pytest.approx((0.83, 0.5))

    @given(SCORED)
    def test_error_matches_its_definition(self, pairs):
        total = 0.0
        for k in range(BINS):
            inside = [(c, y) for c, y in pairs if min(int(c * BINS), BINS - 1) == k]
            if inside:
                gap = sum(y for _, y in inside) / len(inside) - sum(c for c, _ in inside) / len(
                    inside
                )
                total += abs(gap) * len(inside) / len(pairs)
        measured = measure(*zip(*pairs, strict=True))
        assert measured.error == pytest.approx(total, abs=1e-9)
        assert sum(b.images for b in measured.bins) == len(pairs)
        assert all(0 <= b.low <= b.accuracy <= b.high <= 1 for b in measured.bins)

    def test_limit_matches_the_binomial_distribution(self):
        # All images in one bin: the error is |successes/n - confidence|, and its tail is binomial.
        n, confidence = 50, 0.8
        measured = measure([confidence] * n, [True] * n, seed=3)
        shares = [comb(n, k) * 0.8**k * 0.2 ** (n - k) for k in range(n + 1)]
        gaps = [abs(k / n - confidence) for k in range(n + 1)]
        mean = sum(s * g for s, g in zip(shares, gaps, strict=True))
        assert measured.expected == pytest.approx(mean, rel=0.06)
        beyond = sum(s for s, g in zip(shares, gaps, strict=True) if g > measured.limit)
        at_or_beyond = sum(
            s for s, g in zip(shares, gaps, strict=True) if g >= measured.limit - 1e-9
        )
        assert beyond < 0.06
        assert at_or_beyond > 0.04

    @pytest.mark.parametrize("images", [1, 5, 30, 200])
    def test_calibrated_networks_are_not_called_miscalibrated(self, images):
        trials = 200
        # At most 5 % by the limit; more than 18 of 200 have a binomial tail of 0.6 %.
        assert count_false_alarms(images, trials, images) <= 18

    def test_an_overconfident_network_is_called_miscalibrated(self):
        rng = np.random.default_rng(0)
        probability = rng.beta(4, 1, 1000)
        odds = 2 * np.log(probability / (1 - probability))
        text = measure(1 / (1 + np.exp(-odds)), rng.random(1000) < probability).describe()
        assert "miscalibrated (mean confidence 0.8" in text

    def test_a_perfect_network_on_few_images_is_not_called_calibrated(self):
        text = measure([0.9] * 5, [True] * 5).describe()
        assert "no error beyond chance is shown" in text
        assert "cannot show one below that limit" in text

    def test_cases_count_instead_of_images(self):
        """Ten alike images of a case are no more evidence than one of them."""
        rng = np.random.default_rng(1)
        alarms = [0, 0]
        for seed in range(100):
            confidences, correct, cases = draw_cases(rng, 20, 10)
            alarms[0] += measure(confidences, correct, cases, seed).is_miscalibrated
            alarms[1] += measure(confidences, correct, (), seed).is_miscalibrated
        # 11 of 100 has a tail of 1.1 % at 5 %; ignoring cases is wrong far more often.
        assert alarms[0] <= 10
        assert alarms[1] >= 20

    def test_intervals_of_bins_count_cases(self):
        measured = measure([0.9] * 40, [True, False] * 20, [str(k // 10) for k in range(40)])
        four = confidence_intervals.compute_share_interval(2, 4)
        assert (measured.images, measured.cases) == (40, 4)
        assert (measured.bins[0].low, measured.bins[0].high) == (four.low, four.high)
        assert "on 40 images of 4 cases" in measured.describe()

    def test_the_confidence_is_that_of_the_predicted_class(self):
        odds = np.array([[3.0, -3, -9], [-1, 1, -9]])
        truth = np.array([[True, False, False], [True, False, False]])
        predicted = np.array([[False, True, False], [False, True, False]])
        (measured,) = reliability.measure_reliability("abc", odds, truth, predicted, True)
        shares = [1 / (1 + np.exp(3)), 1 / (1 + np.exp(-1))]
        assert measured.confidence == pytest.approx(np.mean(shares))
        assert measured.accuracy == 0

    def test_each_decision_has_an_error_and_they_share_the_level(self):
        odds = np.array([[2.0, -2], [-1, 4], [3, 3]])
        truth = np.array([[True, False], [False, False], [True, True]])
        first, second = reliability.measure_reliability(
            ("a", "b"), odds, truth, odds >= 0, exclusive=False
        )
        assert (first.label, second.label) == ("a", "b")
        assert first.level == second.level == pytest.approx(0.975)
        assert (first.accuracy, second.accuracy) == pytest.approx((1, 2 / 3))
        assert first.confidence == pytest.approx(np.mean(1 / (1 + np.exp([-2.0, -1, -3]))))

    def test_many_decisions_still_have_a_limit(self):
        rng = np.random.default_rng(2)
        odds = rng.normal(0, 2, (20, 60))
        truth = rng.random((20, 60)) < 1 / (1 + np.exp(-odds))
        measured = reliability.measure_reliability(
            list(map(str, range(60))), odds, truth, odds >= 0, exclusive=False
        )
        assert sum(m.is_miscalibrated for m in measured) <= 1
        assert all(m.draws >= 20 * 60 for m in measured)

    def test_no_images_have_no_error(self):
        none = np.zeros((0, 3))
        assert reliability.measure_reliability("abc", none, none > 0, none > 0, True) == ()


class TestDecisionCurve:
    def test_hand_computed_example(self):
        # Vickers and Elkin's formula at 20 %: the weight of a false positive is a quarter.
        curve = decision_curve.compute_curve(
            ("tumour",),
            np.array([0.9, 0.2, 0.19, 0.5, 0.1]),
            np.array([True, True, True, False, False]),
            percents=(20, 50),
        )
        assert curve.net_benefit == pytest.approx((2 / 5 - 1 / 5 / 4, 1 / 5 - 1 / 5))
        assert curve.treat_all == pytest.approx((3 / 5 - 2 / 5 / 4, 3 / 5 - 2 / 5))
        assert (curve.images, curve.positives, curve.cases) == (5, 3, None)

    @given(SCORED)
    def test_curve_matches_its_definition(self, pairs):
        probabilities, positive = (np.array(column) for column in zip(*pairs, strict=True))
        curve = decision_curve.compute_curve(("a",), probabilities, positive)
        assert curve.thresholds == tuple(n / 100 for n in range(1, 100))
        for i, threshold in enumerate(curve.thresholds):
            weight = threshold / (1 - threshold)
            hits = sum(y for p, y in pairs if p >= threshold)
            alarms = sum(not y for p, y in pairs if p >= threshold)
            benefit = (hits - weight * alarms) / len(pairs)
            everyone = (positive.sum() - weight * (~positive).sum()) / len(pairs)
            assert curve.net_benefit[i] == pytest.approx(benefit, abs=1e-9)
            assert curve.treat_all[i] == pytest.approx(everyone, abs=1e-9)
            assert curve.low[i] - 1e-9 <= benefit <= curve.high[i] + 1e-9

    @pytest.mark.parametrize("images", [20, 200])
    def test_intervals_contain_the_net_benefit_of_the_population(self, images):
        rng = np.random.default_rng(4)
        percents = (5, 20, 50, 80, 95)
        # Calibrated probabilities, uniform from 0 to 1: TP/n = (1 - p^2) / 2, FP/n = (1 - p)^2 / 2.
        p = np.array(percents) / 100
        truth = (1 - p**2) / 2 - (1 - p) ** 2 / 2 * p / (1 - p)
        misses = np.zeros(len(percents))
        for _ in range(400):
            shares = rng.random(images)
            curve = decision_curve.compute_curve(
                ("a",), shares, rng.random(images) < shares, percents=percents
            )
            misses += (truth < np.array(curve.low)) | (truth > np.array(curve.high))
        assert (misses <= 0.05 * 400).all()

    def test_cases_widen_the_intervals(self):
        rng = np.random.default_rng(5)
        shares, positive = rng.random(100), rng.random(100) < 0.5
        cases = [str(k // 10) for k in range(100)]
        by_image = decision_curve.compute_curve(("a",), shares, positive)
        by_case = decision_curve.compute_curve(("a",), shares, positive, cases)
        assert by_case.cases == 10
        assert by_case.net_benefit == by_image.net_benefit
        assert all(a < b for a, b in zip(by_case.low, by_image.low, strict=True))
        alike = decision_curve.compute_curve(("a",), shares[::10], positive[::10])
        repeated = decision_curve.compute_curve(
            ("a",), np.repeat(shares[::10], 10), np.repeat(positive[::10], 10), cases
        )
        assert repeated.low == pytest.approx(alike.low)

    def test_target_classes_add_their_probabilities(self):
        shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
        odds = np.log(shares / (1 - shares))
        assert decision_curve.compute_probability(odds, (0, 2)) == pytest.approx([0.7, 0.9])
