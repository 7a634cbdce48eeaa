"""Figures of evaluation against definitions, hand counts, and scikit-learn and scipy where here."""

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
    def test_is_the_share_of_pairs_in_order(self, pairs):
        up, down = ([s for s, holds in pairs if holds is kind] for kind in (True, False))
        wins = sum((a > b) + (a == b) / 2 for a in up for b in down)
        scores, holds = (np.array(each) for each in zip(*pairs, strict=True))
        found = roc_curve.compute_auc(scores.astype(float), holds)
        assert found == (wins / (len(up) * len(down)) if up and down else None)

    @given(SCORED)
    def test_a_resample_of_all_is_all(self, pairs):
        scores, holds = (np.array(each)[:, None] for each in zip(*pairs, strict=True))
        (found,) = roc_curve.compute_resampled_aucs(
            scores.astype(float), holds, np.ones((1, len(pairs)))
        )
        wanted = roc_curve.compute_auc(scores[:, 0].astype(float), holds[:, 0])
        assert np.isnan(found[0]) if wanted is None else found[0] == pytest.approx(wanted)

    def test_resamples_are_weighted(self):
        rng = np.random.default_rng(0)
        scores = rng.integers(0, 6, (30, 2)).astype(float)
        holds = rng.random((30, 2)) < 0.4
        weights = rng.multinomial(30, np.full(30, 1 / 30), 3)
        found = roc_curve.compute_resampled_aucs(scores, holds, weights.astype(float))
        for drawn, row in zip(weights, found, strict=True):
            again = np.repeat(scores, drawn, axis=0), np.repeat(holds, drawn, axis=0)
            assert row.tolist() == pytest.approx(roc_curve.compute_aucs(*again))

    def test_scikit_learn_agrees(self):
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(3)
        truth = rng.integers(0, 4, 200)
        raw = np.round(rng.normal(size=(200, 4)) + np.eye(4)[truth], 1)
        odds = roc_curve.compute_log_odds("softmax", raw, 1.0)
        holds = np.equal.outer(truth, np.arange(4))
        shares = roc_curve.to_probability(odds)
        assert shares.sum(axis=1) == pytest.approx(1)
        areas = roc_curve.compute_aucs(odds, holds)
        support = holds.sum(axis=0)
        for how, mine in (
            ("macro", np.mean(areas)),
            ("weighted", np.average(areas, weights=support)),
        ):
            theirs = metrics.roc_auc_score(truth, shares, multi_class="ovr", average=how)
            assert mine == pytest.approx(theirs, abs=1e-12)
        scores = classification_metrics.compute_scores(
            holds.T.astype(int) @ np.eye(4, dtype=int)[raw.argmax(1)]
        )
        for how, mine in (("macro", scores.macro), ("weighted", scores.weighted)):
            theirs = metrics.precision_recall_fscore_support(truth, raw.argmax(1), average=how)
            assert (mine.precision, mine.recall, mine.f1) == pytest.approx(theirs[:3])

    def test_what_rounds_to_one_probability_is_told_apart(self):
        raw = np.array([[90.0, 0, 1], [95, 0, 1], [100, 0, 2], [1000, 0, 0]])
        odds = roc_curve.compute_log_odds("softmax", raw, 1.0)
        assert (np.diff(odds[:, 0]) > 0).all()
        assert np.isfinite(odds).all()
        assert (roc_curve.to_probability(odds)[:, 0] == 1).all()


class TestLogOdds:
    def test_of_two_classes_are_their_difference(self):
        raw = np.float32([[0.1, 3.7], [5, -2]])
        found = roc_curve.compute_log_odds("softmax", raw, 2.0)
        wanted = (raw[:, 1].astype(float) / 2) - raw[:, 0].astype(float) / 2
        assert found[:, 1].tolist() == wanted.tolist()
        assert found[:, 0].tolist() == (-wanted).tolist()

    def test_are_those_of_probabilities(self):
        raw = np.random.default_rng(1).normal(size=(50, 5))
        powers = np.exp(raw / 1.7)
        shares = powers / powers.sum(axis=1, keepdims=True)
        assert roc_curve.compute_log_odds("softmax", raw, 1.7) == pytest.approx(
            np.log(shares / (1 - shares))
        )

    def test_without_softmax_each_is_for_itself(self):
        assert roc_curve.compute_log_odds("sigmoid", np.array([[3.0, -1]]), 2.0).tolist() == [
            [1.5, -0.5]
        ]


class TestIntervals:
    # Clopper and Pearson's, as tables have them
    @pytest.mark.parametrize(
        ("part", "whole", "low", "high"),
        [(5, 8, 0.2449, 0.9148), (0, 10, 0, 0.3085), (10, 10, 0.6915, 1), (81, 263, 0.2527, 0.3676),
         (1, 1, 0.025, 1)],
    )  # fmt: skip
    def test_of_a_share(self, part, whole, low, high):
        found = compute_share_interval(part, whole)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)

    @given(st.integers(1, 60), st.data())
    def test_of_a_share_are_exact(self, whole, data):
        part = data.draw(st.integers(0, whole))
        found = compute_share_interval(part, whole)

        def at_most(k, p):
            return sum(comb(whole, i) * p**i * (1 - p) ** (whole - i) for i in range(k + 1))

        assert part == whole or at_most(part, found.high) == pytest.approx(0.025, rel=1e-6)
        assert part == 0 or 1 - at_most(part - 1, found.low) == pytest.approx(0.025, rel=1e-6)

    @pytest.mark.parametrize("part", [1, 317, 99_999, 500_000, 999_999])
    def test_of_a_share_of_many_images(self, part):
        beta = pytest.importorskip("scipy.stats").beta
        found = compute_share_interval(part, 1_000_000)
        wanted = (
            beta.ppf(0.025, part, 1_000_001 - part),
            beta.ppf(0.975, part + 1, 1_000_000 - part),
        )
        assert (found.low, found.high) == pytest.approx(wanted, rel=1e-7)

    def test_of_nothing_there_is_none(self):
        assert compute_share_interval(0, 0) is None
        assert compute_auc_interval(None, 3, 3) is None
        assert compute_auc_interval(0.5, 0, 3) is None

    def test_of_a_perfect_area_is_no_point(self):
        few, many = compute_auc_interval(1.0, 5, 5), compute_auc_interval(1.0, 500, 500)
        assert few.high == many.high == 1
        assert few.low < 0.8
        assert 0.99 < many.low < 1

    def test_of_an_area_is_symmetric_and_holds_it(self):
        up, down = compute_auc_interval(0.7, 20, 30), compute_auc_interval(1 - 0.7, 20, 30)
        assert up.low < 0.7 < up.high
        assert (1 - down.high, 1 - down.low) == pytest.approx((up.low, up.high))

    def test_of_averages_hold_them_and_go_by_the_seed(self):
        rng = np.random.default_rng(5)
        truth = rng.integers(0, 3, 120)
        odds = rng.normal(size=(120, 3)) + 2 * np.eye(3)[truth]
        holds, taken = np.eye(3, dtype=bool)[truth], np.eye(3, dtype=bool)[odds.argmax(axis=1)]
        found, again, other = (
            estimate_average_intervals(odds, holds, taken, 300, seed) for seed in (0, 0, 1)
        )
        assert found == again != other
        scores = classification_metrics.compute_scores(holds.T.astype(int) @ taken)
        areas = roc_curve.compute_aucs(odds, holds)
        for name, value in (
            ("macro_f1", scores.macro.f1), ("weighted_precision", scores.weighted.precision),
            ("weighted_recall", scores.accuracy), ("macro_auc", np.mean(areas)),
        ):  # fmt: skip
            assert found[name].low < value < found[name].high

    def test_of_averages_there_are_none_where_all_are_right(self):
        holds = np.eye(3, dtype=bool)[np.arange(30) % 3]
        found = estimate_average_intervals(holds * 1.0, holds, holds, 200, 0)
        assert set(found.values()) == {None}

    def test_of_averages_there_are_none_where_that_would_take_long(self, monkeypatch):
        monkeypatch.setattr(confidence_intervals, "MAX_WORK", 50 * 90)
        holds = np.eye(3, dtype=bool)[np.arange(30) % 3]
        found = estimate_average_intervals(
            np.random.default_rng(0).normal(size=(30, 3)), holds, ~holds, 200, 0
        )
        assert set(found.values()) == {None}


class TestMcNemar:
    def sides(self, first, second, both=4):
        a = np.repeat([True, False, True], (first, second, both))
        return a, np.repeat([False, True, True], (first, second, both))

    # hand counts: p is 2 * (1 + 12 + 66) / 2^12 for 10 against 2
    @pytest.mark.parametrize(
        ("first", "second", "p"),
        [(10, 2, 2 * 79 / 4096), (2, 10, 2 * 79 / 4096), (0, 0, 1), (3, 3, 1), (5, 0, 2 / 32)],
    )
    def test_small_counts_are_exact(self, first, second, p):
        found = compute_mcnemar(*self.sides(first, second))
        assert (found.first_only, found.second_only, found.exact) == (first, second, True)
        assert found.p == p

    def test_large_counts_are_nearly(self):
        near = compute_mcnemar(*self.sides(MAX_EXACT_IMAGES // 2 + 40, MAX_EXACT_IMAGES // 2 - 40))
        far = compute_mcnemar(*self.sides(MAX_EXACT_IMAGES // 2 + 41, MAX_EXACT_IMAGES // 2 - 39))
        assert (near.exact, far.exact) == (True, False)
        assert far.p == pytest.approx(near.p, rel=0.02)


class TestFit:
    def test_the_temperature_of_two_images_is_known(self):
        # three of four alike images are of the class: the likeliest p is 3/4, so z / T = log 3
        raw = np.tile([2.0, 0.0], (4, 1))
        holds = np.eye(2, dtype=bool)[[0, 0, 0, 1]]
        found = decision_rule.fit_temperature("softmax", raw, holds)
        assert found == pytest.approx(2 / log(3), rel=1e-9)
        assert decision_rule.compute_negative_log_likelihood(
            "softmax", raw, holds, found
        ) == pytest.approx(-(3 * log(0.75) + log(0.25)) / 4)
        found = decision_rule.fit_temperature("sigmoid", raw[:, :1], holds[:, :1])
        assert found == pytest.approx(2 / log(3), rel=1e-9)

    @pytest.mark.parametrize("truth", [[0, 0], [1, 1]], ids=["all right", "all wrong"])
    def test_there_is_no_likeliest_temperature(self, truth):
        raw = np.array([[2.0, 0], [1, 0]])
        holds = np.eye(2, dtype=bool)[truth]
        assert decision_rule.fit_temperature("softmax", raw, holds) is None

    def test_thresholds_by_hand(self):
        odds = np.array([0.0, 1, 2, 3, 4, 5])
        holds = np.array([False, False, True, False, True, True])
        # J: 2/3 from 1.5 (all three, two of three others) and from 3.5 (two of three, all others)
        assert decision_rule.fit_youden_threshold(odds, holds) == 1.5
        assert decision_rule.fit_sensitivity_threshold(odds, holds, 1.0) == 1.5
        assert decision_rule.fit_sensitivity_threshold(odds, holds, 0.6) == 3.5
        assert decision_rule.fit_sensitivity_threshold(odds, holds, 0.0) == 6.0

    def test_equal_values_are_on_one_side(self):
        odds, holds = np.array([1.0, 1, 1, 2]), np.array([True, False, False, True])
        assert decision_rule.fit_youden_threshold(odds, holds) == 1.5
        assert decision_rule.fit_sensitivity_threshold(odds, holds, 0.9) == 0.0

    def test_chance_has_no_threshold(self):
        odds = np.array([1.0, 1, 2, 2])
        assert (
            decision_rule.fit_youden_threshold(odds, np.array([True, False, True, False])) is None
        )
        assert (
            decision_rule.fit_youden_threshold(-odds, np.array([False, False, True, True])) is None
        )

    def test_neighbours_have_a_threshold(self):
        odds = np.array([1.0, np.nextafter(1.0, inf)])
        found = decision_rule.fit_youden_threshold(odds, np.array([False, True]))
        assert (odds >= found).tolist() == [False, True]

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


def test_decisions_that_do_not_exclude_each_other():
    holds = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], bool)
    taken = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    found = classification_metrics.compute_decision_scores(holds, taken)
    assert (found.images, found.correct, found.confusion) == (4, 2, ())
    first, second = found.classes
    assert (first.rates.precision, first.rates.recall, first.specificity) == (0.5, 0.5, 0.5)
    assert (second.rates.f1, second.specificity, second.support) == (1, 1, 2)
