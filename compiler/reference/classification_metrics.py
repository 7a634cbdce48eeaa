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
from tcc.compiler.reference.roc_curve import Values
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
        return _ratio(self.correct, self.images)

    def _summary(self) -> Iterator[str]:
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


def scores(counts: Counts) -> Scores:
    """Return the figures of a confusion matrix.

    Args:
        counts: Images (classes, classes) by their class, a row, and the one taken, a column.
    """
    # Three vectors tell all of it: what is taken for a class, what is of it, and what is both.
    hits, support, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    total, right = int(counts.sum()), int(hits.sum())
    rows = tuple(tuple(row) for row in counts.tolist())
    return _scores((hits, support, predicted), total, right, rows)


def decision_scores(holds: Truth, taken: Truth) -> Scores:
    """Return the figures of decisions that do not exclude each other.

    An image counts as correct where every decision is right.

    Args:
        holds: Whether each decision (images, classes) should be yes.
        taken: Whether it is.
    """
    counts = ((holds & taken).sum(axis=0), holds.sum(axis=0), taken.sum(axis=0))
    return _scores(counts, len(holds), int((holds == taken).all(axis=1).sum()), ())


def _scores(
    counts: tuple[Counts, Counts, Counts], total: int, right: int, rows: tuple[tuple[int, ...], ...]
) -> Scores:
    listed = zip(*(each.tolist() for each in counts), strict=True)
    classes = tuple(
        ClassScores(
            Rates(_ratio(tp, of_it), _ratio(tp, its), _ratio(2 * tp, its + of_it)),
            its,
            of_it,
            _ratio(total - its - of_it + tp, total - its),
        )
        for tp, its, of_it in listed
    )
    # A class without images and without predictions has no rates: counting it as 0 would make an
    # average depend on how many classes a network could tell.
    met = [int(each.occurs) for each in classes]
    support = [each.support for each in classes]
    return Scores(total, right, classes, _average(classes, met), _average(classes, support), rows)


def _average(classes: Sequence[ClassScores], weights: Sequence[int]) -> Rates:
    rates = [each.rates for each in classes]
    return Rates(
        mean([r.precision for r in rates], weights),
        mean([r.recall for r in rates], weights),
        mean([r.f1 for r in rates], weights),
    )


def interval(correct: int, images: int, resamples: int, seed: int) -> Interval:
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
    share = _ratio(correct, images)
    drawn = np.random.default_rng(seed).binomial(images, share, resamples) / max(images, 1)
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, (outside, 1 - outside))
    return Interval(float(low), float(high), LEVEL, resamples, seed)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Return a weighted mean; 0 where no weight is."""
    total = sum(v * w for v, w in zip(values, weights, strict=True))
    return total / sum(weights) if any(weights) else 0.0


@dataclass(frozen=True, eq=False)
class JudgedClasses:
    """Which classes hold of each item, and which it was taken for.

    Args:
        labels: The classes' names, or their indices.
        holds: Whether each item is of each class: (items, classes).
        taken: Whether it was taken for it, the same shape.
        odds: What grows with the probability of each, the same shape; None where it is not known.
        scores: The figures of the counts.
    """

    labels: tuple[str, ...]
    holds: Truth
    taken: Truth
    odds: Values | None
    scores: Scores

    @cached_property
    def areas(self) -> tuple[float | None, ...]:
        """The area under each class's ROC curve, against all others."""
        if self.odds is None:
            return (None,) * len(self.labels)
        return roc_curve.areas(self.odds, self.holds)

    def area(self, weighted: bool) -> float | None:
        """Return the mean of the areas that there are."""
        known = [
            (area, each.support if weighted else 1)
            for area, each in zip(self.areas, self.scores.classes, strict=True)
            if area is not None
        ]
        return mean([a for a, _ in known], [w for _, w in known]) if known else None

    @property
    def accuracy_bounds(self) -> Bounds | None:
        """The exact interval of the accuracy."""
        return intervals.of_share(self.scores.correct, self.scores.images)

    @cached_property
    def class_bounds(self) -> tuple[tuple[Bounds | None, Bounds | None, Bounds | None], ...]:
        """The intervals of each class's sensitivity, specificity and area."""
        total = self.scores.images
        hits = (self.taken & self.holds).sum(axis=0).tolist()
        found = []
        for each, area, own in zip(self.scores.classes, self.areas, hits, strict=True):
            others = total - each.support
            passed = others - (each.predicted - own)
            bounds = intervals.of_area(area, each.support, others)
            of_share = intervals.of_share
            found.append((of_share(own, each.support), of_share(passed, others), bounds))
        return tuple(found)

    def averages(self, resamples: int | None, seed: int) -> dict[str, Bounds | None]:
        """Return the intervals of averages over classes, by a bootstrap over items.

        Args:
            resamples: How many are drawn; None for as many as is usual.
            seed: That of the draw.
        """
        if self.odds is None or not len(self.holds):
            return dict.fromkeys(intervals.AVERAGES)
        count = resamples or intervals.RESAMPLES
        return intervals.of_averages(self.odds, self.holds, self.taken, count, seed)


def exclusive(
    labels: tuple[str, ...], holds: Truth, taken: Truth, odds: Values | None
) -> JudgedClasses:
    """Return the figures of classes of which one holds of each item."""
    # The confusion matrix as one product of what is and what was taken.
    counts = holds.astype("int64").T @ taken
    return JudgedClasses(labels, holds, taken, odds, scores(counts))
