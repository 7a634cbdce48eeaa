"""How well classes are told apart: the usual figures of counts, and their intervals.

With TP images of a class taken for it, FP images of others taken for it, and FN of its images
taken for others:

- precision is TP / (TP + FP), recall TP / (TP + FN), which is sensitivity;
- specificity is TN / (TN + FP), with TN images of others that were not taken for it;
- F1 is their harmonic mean, 2 TP / (2 TP + FP + FN);
- support is TP + FN, the number of its images;
- a quotient whose divisor is zero is 0: precision where nothing was taken for the class, recall
  where it has no images, F1 where both hold;
- a macro average is the plain mean over the classes that occur: those that an image is of or was
  taken for; a weighted average is that over all, each as often as it has images;
- accuracy is the share of images whose class was found.
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
"""Images by their class (row) and the one that they were taken for (column)."""
Truth = NDArray[np.bool_]
LEVEL = 0.95
"""The share of resamples within an interval."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision, recall and F1: of a class, or averages."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class: its rates, its images, and how many images were taken for it."""

    rates: Rates
    support: int
    predicted: int
    specificity: float

    @property
    def occurs(self) -> bool:
        """Whether an image is of it or was taken for it."""
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
    """Nothing where classes do not exclude each other."""

    @property
    def accuracy(self) -> float:
        """The share of images whose class was found."""
        return _compute_ratio(self.correct, self.images)

    def _summarize(self) -> Iterator[str]:
        yield from self.describe(tuple(map(str, range(len(self.classes)))))

    def describe(self, labels: Sequence[str]) -> Iterator[str]:
        """Yield the accuracy with its interval, and the class of which the most is missed."""
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
    """Where the accuracy of `resamples` resamples lies, but for the outermost on each side."""

    low: float
    high: float
    level: float
    resamples: int
    seed: int


def compute_scores(counts: Counts) -> Scores:
    """Return the figures of a confusion matrix.

    Args:
        counts: Images (classes, classes) by their class, a row, and the one taken, a column.
    """
    # Three vectors tell all of it: what is taken for a class, what is of it, and what is both.
    hits, support, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    total, correct = int(counts.sum()), int(hits.sum())
    rows = tuple(tuple(row) for row in counts.tolist())
    return _build_scores((hits, support, predicted), total, correct, rows)


def compute_decision_scores(truth: Truth, predicted: Truth) -> Scores:
    """Return the figures of decisions that do not exclude each other.

    An image counts as correct where every decision is right.

    Args:
        truth: Whether each decision (images, classes) should be yes.
        predicted: Whether it is.
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
    # A class without images and without predictions has no rates: counting it as 0 would make an
    # average depend on how many classes a network could tell.
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

    A resample draws as many images as there are, with replacement: how many of them are correct
    is binomial, and is drawn as such (Efron and Tibshirani, An Introduction to the Bootstrap,
    chapter 13).

    Args:
        correct: Images whose class was found.
        images: All images.
        resamples: How many are drawn.
        seed: That of the draw.
    """
    accuracy = _compute_ratio(correct, images)
    resampled = np.random.default_rng(seed).binomial(images, accuracy, resamples) / max(images, 1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(low), float(high), LEVEL, resamples, seed)


def _compute_ratio(count: int, total: int) -> float:
    return count / total if total else 0.0


def compute_weighted_mean(numbers: Sequence[float], weights: Sequence[int]) -> float:
    """Return a weighted mean; 0 where no weight is."""
    total = sum(v * w for v, w in zip(numbers, weights, strict=True))
    return total / sum(weights) if any(weights) else 0.0


@dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """Which classes hold of each item, and which it was taken for.

    Args:
        labels: The classes' names, or their indices.
        truth: Whether each item is of each class: (items, classes).
        predicted: Whether it was taken for it, the same shape.
        odds: What grows with the probability of each, the same shape; None where it is not known.
        scores: The figures of the counts.
    """

    labels: tuple[str, ...]
    truth: Truth
    predicted: Truth
    odds: Float64 | None
    scores: Scores

    @cached_property
    def areas(self) -> tuple[float | None, ...]:
        """The area under each class's ROC curve, against all others."""
        if self.odds is None:
            return (None,) * len(self.labels)
        return roc_curve.compute_aucs(self.odds, self.truth)

    def compute_mean_area(self, weighted: bool) -> float | None:
        """Return the mean of the areas that there are."""
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
        """The exact interval of the accuracy."""
        return intervals.compute_share_interval(self.scores.correct, self.scores.images)

    @cached_property
    def class_bounds(self) -> tuple[tuple[Bounds | None, Bounds | None, Bounds | None], ...]:
        """The intervals of each class's sensitivity, specificity and area."""
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
            resamples: How many are drawn; None for as many as is usual.
            seed: That of the draw.
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
    """Return the figures of classes of which one holds of each item."""
    # The confusion matrix as one product of what is and what was taken.
    counts = truth.astype("int64").T @ predicted
    return ClassEvaluation(labels, truth, predicted, odds, compute_scores(counts))
