"""What classes were taken for, and every figure of that, with intervals."""

from dataclasses import dataclass
from functools import cached_property

from tcc.compiler.reference import classification_metrics, roc_curve
from tcc.compiler.reference import confidence_intervals as intervals
from tcc.compiler.reference.classification_metrics import Scores, Truth
from tcc.compiler.reference.confidence_intervals import Bounds
from tcc.compiler.reference.roc_curve import Values


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
        mean = classification_metrics.mean
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
    scores = classification_metrics.scores(holds.astype("int64").T @ taken)
    return JudgedClasses(labels, holds, taken, odds, scores)
