"""Evaluation figures against definitions, manual counts, scikit-learn and scipy if installed."""

from math import comb, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.reference import (
    classification_metrics,
    confidence_intervals,
    decision_rule,
    roc_curve,
)
from tcc.compiler.reference.confidence_intervals import (
    MAX_EXACT_IMAGES,
    compute_auc_interval,
    compute_mcnemar,
    compute_share_interval,
    estimate_average_intervals,
)

FITTED = FittingData("", 0, "", None)
SCORED = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40)


class TestArea:
    @given(SCORED)
    def test_auc_is_the_share_of_ordered_pairs(self, pairs):
        up, down = ([s for s, labels in pairs if labels is kind] for kind in (True, False))
        wins = sum((a > b) + (a == b) / 2 for a in up for b in down)
        scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
        auc = roc_curve.compute_auc(scores.astype(float), labels)
        assert auc == (wins / (len(up) * len(down)) if up and down else None)

    @given(SCORED)
    def test_a_full_resample_gives_the_auc(self, pairs):
        scores, labels = (np.array(column)[:, None] for column in zip(*pairs, strict=True))
        (auc,) = roc_curve.compute_resampled_aucs(
            scores.astype(float), labels, np.ones((1, len(pairs)))
        )
        expected = roc_curve.compute_auc(scores[:, 0].astype(float), labels[:, 0])
        assert np.isnan(auc[0]) if expected is None else auc[0] == pytest.approx(expected)

    def test_resamples_are_weighted(self):
        rng = np.random.default_rng(0)
        scores = rng.integers(0, 6, (30, 2)).astype(float)
        labels = rng.random((30, 2)) < 0.4
        weights = rng.multinomial(30, np.full(30, 1 / 30), 3)
        aucs = roc_curve.compute_resampled_aucs(scores, labels, weights.astype(float))
        for image_counts, row in zip(weights, aucs, strict=True):
            repeated = (
                np.repeat(scores, image_counts, axis=0),
                np.repeat(labels, image_counts, axis=0),
            )
            assert row.tolist() == pytest.approx(roc_curve.compute_aucs(*repeated))

    def test_scikit_learn_agrees(self):
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(3)
        truth = rng.integers(0, 4, 200)
        raw = np.round(rng.normal(size=(200, 4)) + np.eye(4)[truth], 1)
        odds = roc_curve.compute_log_odds("softmax", raw, 1.0)
        labels = np.equal.outer(truth, np.arange(4))
        shares = roc_curve.to_probability(odds)
        assert shares.sum(axis=1) == pytest.approx(1)
        areas = roc_curve.compute_aucs(odds, labels)
        support = labels.sum(axis=0)
        for averaging, actual in (
            ("macro", np.mean(areas)),
            ("weighted", np.average(areas, weights=support)),
        ):
            expected = metrics.roc_auc_score(truth, shares, multi_class="ovr", average=averaging)
            assert actual == pytest.approx(expected, abs=1e-12)
        scores = classification_metrics.compute_scores(
            labels.T.astype(int) @ np.eye(4, dtype=int)[raw.argmax(1)]
        )
        for averaging, actual in (("macro", scores.macro), ("weighted", scores.weighted)):
            expected = metrics.precision_recall_fscore_support(
                truth, raw.argmax(1), average=averaging
            )
            assert (actual.precision, actual.recall, actual.f1) == pytest.approx(expected[:3])

    def test_values_with_equal_probability_are_distinguished(self):
        raw = np.array([[90.0, 0, 1], [95, 0, 1], [100, 0, 2], [1000, 0, 0]])
        odds = roc_curve.compute_log_odds("softmax", raw, 1.0)
        assert (np.diff(odds[:, 0]) > 0).all()
        assert np.isfinite(odds).all()
        assert (roc_curve.to_probability(odds)[:, 0] == 1).all()


class TestLogOdds:
    def test_log_odds_of_two_classes_are_their_difference(self):
        raw = np.float32([[0.1, 3.7], [5, -2]])
        odds = roc_curve.compute_log_odds("softmax", raw, 2.0)
        expected = (raw[:, 1].astype(float) / 2) - raw[:, 0].astype(float) / 2
        assert odds[:, 1].tolist() == expected.tolist()
        assert odds[:, 0].tolist() == (-expected).tolist()

    def test_log_odds_match_the_probabilities(self):
        raw = np.random.default_rng(1).normal(size=(50, 5))
        powers = np.exp(raw / 1.7)
        shares = powers / powers.sum(axis=1, keepdims=True)
        assert roc_curve.compute_log_odds("softmax", raw, 1.7) == pytest.approx(
            np.log(shares / (1 - shares))
        )

    def test_without_softmax_every_output_is_independent(self):
        assert roc_curve.compute_log_odds("sigmoid", np.array([[3.0, -1]]), 2.0).tolist() == [
            [1.5, -0.5]
        ]


class TestIntervals:
    # Clopper-Pearson intervals from tables
    @pytest.mark.parametrize(
        ("count", "total", "low", "high"),
        [(5, 8, 0.2449, 0.9148), (0, 10, 0, 0.3085), (10, 10, 0.6915, 1), (81, 263, 0.2527, 0.3676),
         (1, 1, 0.025, 1)],
    )  # fmt: skip
    def test_interval_of_a_share(self, count, total, low, high):
        interval = compute_share_interval(count, total)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)

    @given(st.integers(1, 60), st.data())
    def test_interval_of_a_share_is_exact(self, total, data):
        count = data.draw(st.integers(0, total))
        interval = compute_share_interval(count, total)

        def at_most(k, p):
            return sum(comb(total, i) * p**i * (1 - p) ** (total - i) for i in range(k + 1))

        assert count == total or at_most(count, interval.high) == pytest.approx(0.025, rel=1e-6)
        assert count == 0 or 1 - at_most(count - 1, interval.low) == pytest.approx(0.025, rel=1e-6)

    @pytest.mark.parametrize("count", [1, 317, 99_999, 500_000, 999_999])
    def test_interval_of_a_share_of_many_images(self, count):
        beta = pytest.importorskip("scipy.stats").beta
        interval = compute_share_interval(count, 1_000_000)
        expected = (
            beta.ppf(0.025, count, 1_000_001 - count),
            beta.ppf(0.975, count + 1, 1_000_000 - count),
        )
        assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-7)

    def test_no_interval_without_images(self):
        assert compute_share_interval(0, 0) is None
        assert compute_auc_interval(None, 3, 3) is None
        assert compute_auc_interval(0.5, 0, 3) is None

    def test_interval_of_a_perfect_auc_has_a_width(self):
        few, many = compute_auc_interval(1.0, 5, 5), compute_auc_interval(1.0, 500, 500)
        assert few.high == many.high == 1
        assert few.low < 0.8
        assert 0.99 < many.low < 1

    def test_interval_of_an_auc_is_symmetric_and_contains_it(self):
        up, down = compute_auc_interval(0.7, 20, 30), compute_auc_interval(1 - 0.7, 20, 30)
        assert up.low < 0.7 < up.high
        assert (1 - down.high, 1 - down.low) == pytest.approx((up.low, up.high))

    def test_intervals_of_averages_contain_them_and_depend_on_the_seed(self):
        rng = np.random.default_rng(5)
        truth = rng.integers(0, 3, 120)
        odds = rng.normal(size=(120, 3)) + 2 * np.eye(3)[truth]
        labels, predictions = (
            np.eye(3, dtype=bool)[truth],
            np.eye(3, dtype=bool)[odds.argmax(axis=1)],
        )
        intervals, repeated, reseeded = (
            estimate_average_intervals(odds, labels, predictions, 300, seed) for seed in (0, 0, 1)
        )
        assert intervals == repeated != reseeded
        scores = classification_metrics.compute_scores(labels.T.astype(int) @ predictions)
        areas = roc_curve.compute_aucs(odds, labels)
        for name, value in (
            ("macro_f1", scores.macro.f1), ("weighted_precision", scores.weighted.precision),
            ("weighted_recall", scores.accuracy), ("macro_auc", np.mean(areas)),
        ):  # fmt: skip
            assert intervals[name].low < value < intervals[name].high

    def test_no_interval_of_averages_if_all_are_correct(self):
        labels = np.eye(3, dtype=bool)[np.arange(30) % 3]
        intervals = estimate_average_intervals(labels * 1.0, labels, labels, 200, 0)
        assert set(intervals.values()) == {None}

    def test_no_interval_of_averages_if_it_takes_too_long(self, monkeypatch):
        monkeypatch.setattr(confidence_intervals, "MAX_WORK", 50 * 90)
        labels = np.eye(3, dtype=bool)[np.arange(30) % 3]
        intervals = estimate_average_intervals(
            np.random.default_rng(0).normal(size=(30, 3)), labels, ~labels, 200, 0
        )
        assert set(intervals.values()) == {None}


class TestMcNemar:
    def create_predictions(self, first_only, second_only, both=4):
        a = np.repeat([True, False, True], (first_only, second_only, both))
        return a, np.repeat([False, True, True], (first_only, second_only, both))

    # counted manually: p is 2 * (1 + 12 + 66) / 2^12 for 10 against 2
    @pytest.mark.parametrize(
        ("first_correct", "second_correct", "p"),
        [(10, 2, 2 * 79 / 4096), (2, 10, 2 * 79 / 4096), (0, 0, 1), (3, 3, 1), (5, 0, 2 / 32)],
    )
    def test_small_counts_are_exact(self, first_correct, second_correct, p):
        comparison = compute_mcnemar(*self.create_predictions(first_correct, second_correct))
        assert (comparison.first_only, comparison.second_only, comparison.exact) == (
            first_correct,
            second_correct,
            True,
        )
        assert comparison.p == p

    def test_large_counts_are_approximate(self):
        exact_test = compute_mcnemar(
            *self.create_predictions(MAX_EXACT_IMAGES // 2 + 40, MAX_EXACT_IMAGES // 2 - 40)
        )
        approximate_test = compute_mcnemar(
            *self.create_predictions(MAX_EXACT_IMAGES // 2 + 41, MAX_EXACT_IMAGES // 2 - 39)
        )
        assert (exact_test.exact, approximate_test.exact) == (True, False)
        assert approximate_test.p == pytest.approx(exact_test.p, rel=0.02)


class TestFit:
    def test_temperature_of_a_worked_example(self):
        # three of four equal images have the class: the likeliest p is 3/4, so z / T = log 3
        raw = np.tile([2.0, 0.0], (4, 1))
        labels = np.eye(2, dtype=bool)[[0, 0, 0, 1]]
        temperature = decision_rule.fit_temperature("softmax", raw, labels)
        assert temperature == pytest.approx(2 / log(3), rel=1e-9)
        assert decision_rule.compute_negative_log_likelihood(
            "softmax", raw, labels, temperature
        ) == pytest.approx(-(3 * log(0.75) + log(0.25)) / 4)
        temperature = decision_rule.fit_temperature("sigmoid", raw[:, :1], labels[:, :1])
        assert temperature == pytest.approx(2 / log(3), rel=1e-9)

    @pytest.mark.parametrize("truth", [[0, 0], [1, 1]], ids=["all right", "all wrong"])
    def test_separable_data_has_no_likeliest_temperature(self, truth):
        raw = np.array([[2.0, 0], [1, 0]])
        labels = np.eye(2, dtype=bool)[truth]
        assert decision_rule.fit_temperature("softmax", raw, labels) is None

    def test_thresholds_of_a_worked_example(self):
        odds = np.array([0.0, 1, 2, 3, 4, 5])
        labels = np.array([False, False, True, False, True, True])
        # J: 2/3 from 1.5 (all three, two of three others) and from 3.5 (two of three, all others)
        assert decision_rule.fit_youden_threshold(odds, labels) == 1.5
        assert decision_rule.fit_sensitivity_threshold(odds, labels, 1.0) == 1.5
        assert decision_rule.fit_sensitivity_threshold(odds, labels, 0.6) == 3.5
        assert decision_rule.fit_sensitivity_threshold(odds, labels, 0.0) == 6.0

    def test_equal_values_are_on_one_side_of_the_threshold(self):
        odds, labels = np.array([1.0, 1, 1, 2]), np.array([True, False, False, True])
        assert decision_rule.fit_youden_threshold(odds, labels) == 1.5
        assert decision_rule.fit_sensitivity_threshold(odds, labels, 0.9) == 0.0

    def test_chance_has_no_threshold(self):
        odds = np.array([1.0, 1, 2, 2])
        assert (
            decision_rule.fit_youden_threshold(odds, np.array([True, False, True, False])) is None
        )
        assert (
            decision_rule.fit_youden_threshold(-odds, np.array([False, False, True, True])) is None
        )

    def test_adjacent_floats_have_a_threshold(self):
        odds = np.array([1.0, np.nextafter(1.0, inf)])
        threshold = decision_rule.fit_youden_threshold(odds, np.array([False, True]))
        assert (odds >= threshold).tolist() == [False, True]

    def test_classes_by_a_threshold(self):
        raw = np.float32([[1, 1, 1], [0, 3, 1], [3, 0, 1], [2, 2, 0]])
        assert decision_rule.predict_classes("softmax", raw, None).tolist() == [0, 1, 0, 0]
        odds = roc_curve.compute_log_odds("softmax", raw, 1.0)[:, 2]
        at = OperatingPoint("y", 1.0, 2, (float(odds[0]),), "", FITTED)
        assert decision_rule.predict_classes("softmax", raw, at).tolist() == [2, 1, 0, 0]
        warm = OperatingPoint("y", 9.0, 2, (float(odds[0]),), "", FITTED)
        assert decision_rule.predict_classes("softmax", raw, warm).tolist() == [2, 1, 0, 0]
        low = OperatingPoint("y", 1.0, 0, (-9.0,), "", FITTED)
        assert decision_rule.predict_classes("softmax", raw, low).tolist() == [0, 0, 0, 0]

    def test_decisions_by_thresholds(self):
        raw = np.float32([[0, -0.1], [2, 5]])
        assert decision_rule.predict_decisions(raw, None).tolist() == [[True, False], [True, True]]
        at = OperatingPoint("y", 2.0, None, (1.0, 2.5), "", FITTED)
        assert decision_rule.predict_decisions(raw, at).tolist() == [[False, False], [True, True]]


def test_multi_label_decisions():
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], bool)
    predictions = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    scores = classification_metrics.compute_decision_scores(labels, predictions)
    assert (scores.images, scores.correct, scores.confusion) == (4, 2, ())
    first_class, second_class = scores.classes
    assert (first_class.rates.precision, first_class.rates.recall, first_class.specificity) == (
        0.5,
        0.5,
        0.5,
    )
    assert (second_class.rates.f1, second_class.specificity, second_class.support) == (1, 1, 2)


@given(st.floats(0.01, 0.99), st.integers(1, 300), st.floats(0.01, 0.999))
def test_allowed_misses_are_the_most_that_the_binomial_tail_allows(share, count, confidence):
    def tail(missed):
        return sum(
            comb(count, k) * (1 - share) ** k * share ** (count - k) for k in range(missed + 1)
        )

    allowed = confidence_intervals.count_allowed_misses(share, count, confidence)
    risk = 1 - confidence
    if allowed is not None:
        assert tail(allowed) <= risk + 1e-9
    assert tail(0 if allowed is None else allowed + 1) >= risk - 1e-9


def test_a_certified_sensitivity_is_reached_in_nearly_all_draws():
    """Scores of positives are uniform, so the true sensitivity of a threshold t is 1 - t."""
    rng = np.random.default_rng(0)
    for share, count in ((0.9, 29), (0.9, 75), (0.95, 200), (0.8, 40)):
        allowed = confidence_intervals.count_allowed_misses(share, count, 0.95)
        draws = np.sort(rng.uniform(size=(4000, count)))
        broken = (1 - draws[:, allowed] < share).mean()
        assert broken <= 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5


def test_one_of_many_misses_contradicts_no_sensitivity():
    assert not confidence_intervals.is_contradicted(0.9, 45, 50)
    assert confidence_intervals.is_contradicted(0.9, 30, 50)
    assert not confidence_intervals.is_contradicted(0.9, 0, 0)
