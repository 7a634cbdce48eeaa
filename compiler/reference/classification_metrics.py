"""How well classes are told apart: the usual figures, of counts alone.

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

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.reference.confidence_intervals import describe_accuracy
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
