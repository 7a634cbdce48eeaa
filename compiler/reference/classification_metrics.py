"""Classification metrics from confusion counts, and their confidence intervals.

For one class, TP images are correctly assigned to it, FP images of other classes are assigned to
it, and FN of its images are assigned to other classes:

- precision is TP / (TP + FP); recall, or sensitivity, is TP / (TP + FN);
- specificity is TN / (TN + FP), with TN images of other classes that are not assigned to it;
- F1 is the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN);
- support is TP + FN, the number of its images;
- a ratio with denominator zero is 0: precision if nothing is assigned to the class, recall if it
  has no images, F1 if both;
- a macro average is the mean over the classes that occur in labels or predictions; a weighted
  average is the mean over all classes, weighted by support;
- accuracy is the share of images with the correct class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.reference import confidence_intervals as intervals
from tcc.compiler.reference import roc_curve
from tcc.compiler.reference.confidence_intervals import Bounds, describe_accuracy
from tcc.compiler.reference.roc_curve import Float64
from tcc.compiler.support.value_views import ValueView, count

Counts = NDArray[np.int64]
"""Images by true class (row) and predicted class (column)."""
Truth = NDArray[np.bool_]
LEVEL = 0.95
"""Share of resamples within an interval."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision, recall and F1 of a class, or their averages."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class: its rates, its number of images, and the number predicted as it."""

    rates: Rates
    support: int
    predicted: int
    specificity: float

    @property
    def occurs(self) -> bool:
        """Whether the class occurs in labels or predictions."""
        return bool(self.support or self.predicted)


@dataclass(frozen=True, slots=True, repr=False)
class Scores(ValueView):
    """All figures of a confusion matrix; `classes` and `confusion` in the network's order."""

    images: int
    correct: int
    classes: tuple[ClassScores, ...]
    macro: Rates
    weighted: Rates
    confusion: tuple[tuple[int, ...], ...]
    """Empty if the classes are not exclusive."""

    @property
    def accuracy(self) -> float:
        """Share of images with the correct class."""
        return _compute_ratio(self.correct, self.images)

    def _summarize(self) -> Iterator[str]:
        yield from self.describe(tuple(map(str, range(len(self.classes)))))

    def describe(self, labels: Sequence[str]) -> Iterator[str]:
        """Yield the accuracy with its interval, macro F1, and the class with the lowest recall."""
        yield describe_accuracy(self.correct, self.images)
        tested = [
            (scores.rates.recall, label, scores.support)
            for scores, label in zip(self.classes, labels, strict=True)
            if scores.support
        ]
        yield f"macro F1 {self.macro.f1:.4f}; {len(tested)} of {len(labels)} classes have images"
        if tested:
            recall, label, support = min(tested)
            yield f"lowest recall: {label} {recall:.1%}, of {count(support, 'image')}"


@dataclass(frozen=True, slots=True)
class Interval:
    """Percentile interval of the accuracy over `resamples` resamples."""

    low: float
    high: float
    level: float
    resamples: int
    seed: int


def compute_scores(counts: Counts) -> Scores:
    """Return the figures of a confusion matrix.

    Args:
        counts: Images (classes, classes) by true class (row) and predicted class (column).
    """
    # Three vectors are enough: true positives, support and predictions of each class.
    hits, support, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    total, correct = int(counts.sum()), int(hits.sum())
    rows = tuple(tuple(row) for row in counts.tolist())
    return _build_scores((hits, support, predicted), total, correct, rows)


def compute_decision_scores(truth: Truth, predicted: Truth) -> Scores:
    """Return the figures of decisions that are not exclusive.

    An image counts as correct if all its decisions are correct.

    Args:
        truth: Whether each decision (images, decisions) should be yes.
        predicted: Whether it is yes, of the same shape.
    """
    counts = ((truth & predicted).sum(axis=0), truth.sum(axis=0), predicted.sum(axis=0))
    return _build_scores(counts, len(truth), int((truth == predicted).all(axis=1).sum()), ())


def _build_scores(
    counts: tuple[Counts, Counts, Counts],
    total: int,
    correct: int,
    rows: tuple[tuple[int, ...], ...],
) -> Scores:
    class_counts = zip(*(per_class.tolist() for per_class in counts), strict=True)
    classes = tuple(
        ClassScores(
            Rates(
                _compute_ratio(true_positives, predicted_count),
                _compute_ratio(true_positives, support_count),
                _compute_ratio(2 * true_positives, support_count + predicted_count),
            ),
            support_count,
            predicted_count,
            _compute_ratio(
                total - support_count - predicted_count + true_positives, total - support_count
            ),
        )
        for true_positives, support_count, predicted_count in class_counts
    )
    # A class without images and predictions has no rates. Counting it as 0 would make an average
    # depend on the number of classes that a network supports.
    occurrences = [int(per_class.occurs) for per_class in classes]
    support = [per_class.support for per_class in classes]
    return Scores(
        total,
        correct,
        classes,
        _compute_average(classes, occurrences),
        _compute_average(classes, support),
        rows,
    )


def _compute_average(classes: Sequence[ClassScores], weights: Sequence[int]) -> Rates:
    rates = [class_scores.rates for class_scores in classes]
    return Rates(
        compute_weighted_mean([r.precision for r in rates], weights),
        compute_weighted_mean([r.recall for r in rates], weights),
        compute_weighted_mean([r.f1 for r in rates], weights),
    )


def estimate_accuracy_interval(correct: int, images: int, resamples: int, seed: int) -> Interval:
    """Return the percentile bootstrap interval of an accuracy.

    A resample draws as many images as there are, with replacement. Its number of correct images is
    binomial and is drawn directly (Efron and Tibshirani, An Introduction to the Bootstrap, chapter
    13).

    Args:
        correct: Number of images with the correct class.
        images: Number of images.
        resamples: Number of resamples.
        seed: Seed of the random numbers.
    """
    accuracy = _compute_ratio(correct, images)
    resampled = np.random.default_rng(seed).binomial(images, accuracy, resamples) / max(images, 1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(low), float(high), LEVEL, resamples, seed)


def _compute_ratio(count: int, total: int) -> float:
    return count / total if total else 0.0


def compute_weighted_mean(numbers: Sequence[float], weights: Sequence[int]) -> float:
    """Return a weighted mean; 0 if all weights are 0."""
    total = sum(v * w for v, w in zip(numbers, weights, strict=True))
    return total / sum(weights) if any(weights) else 0.0


@dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """True and predicted classes of each item, and the figures of the counts.

    Args:
        labels: The classes' names, or their indices.
        truth: Whether each item is of each class: (items, classes).
        predicted: Whether it was assigned to the class, of the same shape.
        odds: A score that grows with the class probability, of the same shape; None if unknown.
        scores: The figures of the counts.
    """

    labels: tuple[str, ...]
    truth: Truth
    predicted: Truth
    odds: Float64 | None
    scores: Scores

    @cached_property
    def areas(self) -> tuple[float | None, ...]:
        """Area under each class's ROC curve, against all other classes; None if undefined."""
        if self.odds is None:
            return (None,) * len(self.labels)
        return roc_curve.compute_aucs(self.odds, self.truth)

    def compute_mean_area(self, weighted: bool) -> float | None:
        """Return the mean of the defined areas; None if there are none."""
        weighted_areas = [
            (area, class_scores.support if weighted else 1)
            for area, class_scores in zip(self.areas, self.scores.classes, strict=True)
            if area is not None
        ]
        return (
            compute_weighted_mean([a for a, _ in weighted_areas], [w for _, w in weighted_areas])
            if weighted_areas
            else None
        )

    @property
    def accuracy_bounds(self) -> Bounds | None:
        """Exact confidence interval of the accuracy."""
        return intervals.compute_share_interval(self.scores.correct, self.scores.images)

    @cached_property
    def class_bounds(self) -> tuple[tuple[Bounds | None, Bounds | None, Bounds | None], ...]:
        """Confidence intervals of each class's sensitivity, specificity and area."""
        total = self.scores.images
        hits = (self.predicted & self.truth).sum(axis=0).tolist()
        bounds_by_class = []
        for class_scores, area, true_positives in zip(
            self.scores.classes, self.areas, hits, strict=True
        ):
            negatives = total - class_scores.support
            true_negatives = negatives - (class_scores.predicted - true_positives)
            auc_interval = intervals.compute_auc_interval(area, class_scores.support, negatives)
            compute_interval = intervals.compute_share_interval
            bounds_by_class.append(
                (
                    compute_interval(true_positives, class_scores.support),
                    compute_interval(true_negatives, negatives),
                    auc_interval,
                )
            )
        return tuple(bounds_by_class)

    def estimate_average_intervals(
        self, resamples: int | None, seed: int
    ) -> dict[str, Bounds | None]:
        """Return the intervals of averages over classes, by a bootstrap over items.

        Args:
            resamples: Number of resamples; None for the default.
            seed: Seed of the random numbers.
        """
        if self.odds is None or not len(self.truth):
            return dict.fromkeys(intervals.AVERAGES)
        count = resamples or intervals.RESAMPLES
        return intervals.estimate_average_intervals(
            self.odds, self.truth, self.predicted, count, seed
        )


def evaluate_exclusive_classes(
    labels: tuple[str, ...], truth: Truth, predicted: Truth, odds: Float64 | None
) -> ClassEvaluation:
    """Return the figures of exclusive classes: each item has exactly one."""
    # The confusion matrix as one matrix product of truth and predictions.
    counts = truth.astype("int64").T @ predicted
    return ClassEvaluation(labels, truth, predicted, odds, compute_scores(counts))
