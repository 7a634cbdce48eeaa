"""What `tcc eval` finds of one network: figures with intervals, and the document of them."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli import saturation

if TYPE_CHECKING:
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.saturation import Saturation
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import ClassScores, Interval, Scores
    from tcc.compiler.reference.confidence_intervals import Bounds

TIES = "the largest output, of equal ones the first"


@dataclass(frozen=True)
class Resampling:
    """How many resamples are asked for, if any are, and the seed of their draw."""

    count: int | None
    seed: int


@dataclass(frozen=True)
class EvaluationReport:
    """How a network did on labelled images; `about` says what ran, for the document.

    `stored` is the bundle that the operating point was just stored in; `saturation` how often
    integers are the last of their levels, where that is asked for.
    """

    about: dict[str, Any]
    found: "Evaluated"
    point: "OperatingPoint | None" = None
    stored: str | None = None
    saturation: "Saturation | None" = None

    @property
    def name(self) -> str:
        """What ran, in one word."""
        return str(self.about.get("bundle") or self.about["spec"])

    @cached_property
    def scores(self) -> "Scores":
        """The figures of the counts."""
        return self.found.scores

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, or their indices."""
        return self.found.given.labels

    @cached_property
    def areas(self) -> "tuple[float | None, ...]":
        """The area under each class's ROC curve, against all others."""
        from tcc.compiler.reference import roc_curve

        odds = self._odds
        holds = self.found.given.holds
        return (None,) * len(self.labels) if odds is None else roc_curve.areas(odds, holds)

    def area(self, weighted: bool) -> float | None:
        """Return the mean of the areas that there are."""
        from tcc.compiler.reference.classification_metrics import mean

        known = [
            (area, each.support if weighted else 1)
            for area, each in zip(self.areas, self.scores.classes, strict=True)
            if area is not None
        ]
        return mean([a for a, _ in known], [w for _, w in known]) if known else None

    @property
    def accuracy_bounds(self) -> "Bounds | None":
        """The exact interval of the accuracy."""
        from tcc.compiler.reference.confidence_intervals import of_share

        return of_share(self.scores.correct, self.scores.images)

    @cached_property
    def class_bounds(self) -> "tuple[tuple[Bounds | None, Bounds | None, Bounds | None], ...]":
        """The intervals of each class's sensitivity, specificity and area."""
        from tcc.compiler.reference.confidence_intervals import of_area, of_share

        total = self.scores.images
        found = []
        for each, area, column in zip(
            self.scores.classes, self.areas, range(len(self.labels)), strict=True
        ):
            others = total - each.support
            hits = int((self.found.taken & self.found.given.holds)[:, column].sum())
            passed = others - (each.predicted - hits)
            bounds = of_area(area, each.support, others)
            found.append((of_share(hits, each.support), of_share(passed, others), bounds))
        return tuple(found)

    def averages(self, drawn: Resampling) -> "dict[str, Bounds | None]":
        """Return the intervals of averages over classes, by a bootstrap."""
        from tcc.compiler.reference import confidence_intervals as intervals

        odds, taken = self._odds, self.found.taken
        if odds is None:
            return dict.fromkeys(intervals.AVERAGES)
        count = drawn.count or intervals.RESAMPLES
        return intervals.of_averages(odds, self.found.given.holds, taken, count, drawn.seed)

    @cached_property
    def _odds(self) -> Any:
        return self.found.odds(self.point.temperature if self.point else 1.0)

    @property
    def log_loss(self) -> float | None:
        """The mean negative log-likelihood of the images' classes; None without probabilities."""
        from tcc.compiler.reference import decision_rule

        given, raw = self.found.given, self.found.raw
        if raw is None or given.output.activation == "none":
            return None
        # One value tells two classes apart: its likelihood is that of the second.
        holds = given.holds[:, 1:] if given.single else given.holds
        temperature = self.point.temperature if self.point else 1.0
        return decision_rule.likelihood(given.output.activation, raw, holds, temperature)


def document(
    found: EvaluationReport, within: "Interval | None", averages: "dict[str, Bounds | None]"
) -> dict[str, Any]:
    """Return what `--json` prints of a network.

    Args:
        found: How a network did.
        within: The interval of its accuracy, if one was resampled.
        averages: The intervals of averages by name.
    """
    scores, given = found.scores, found.found.given
    ends = {"saturation": saturation.document(found.saturation)} if found.saturation else {}
    return ends | {
        **found.about,
        "data": {"path": str(given.path), "digest": given.data.digest, "images": scores.images},
        "output": given.output.name,
        "ties": TIES,
        "operating_point": _point(found),
        "accuracy": scores.accuracy,
        "correct": scores.correct,
        "interval": asdict(within) if within else None,
        "log_loss": found.log_loss,
        "macro": asdict(scores.macro),
        "weighted": asdict(scores.weighted),
        "auc": {"macro": found.area(False), "weighted": found.area(True)},
        "intervals": {
            "level": 0.95,
            "accuracy": _bounds(found.accuracy_bounds),
            "averages": {name: _bounds(each) for name, each in averages.items()},
        },
        "classes": [_class(found, index, each) for index, each in enumerate(scores.classes)],
        "confusion": [list(row) for row in scores.confusion] or None,
    }


def _class(found: EvaluationReport, index: int, each: "ClassScores") -> dict[str, Any]:
    hits, passed, area = found.class_bounds[index]
    return {
        "index": index,
        "label": found.labels[index],
        **asdict(each.rates),
        "support": each.support,
        "predicted": each.predicted,
        "sensitivity": each.rates.recall if hits else None,
        "specificity": each.specificity if passed else None,
        "auc": found.areas[index],
        "intervals": {
            "sensitivity": _bounds(hits),
            "specificity": _bounds(passed),
            "auc": _bounds(area),
        },
    }


def _bounds(found: "Bounds | None") -> dict[str, float] | None:
    return asdict(found) if found else None


def _point(found: EvaluationReport) -> dict[str, Any] | None:
    point = found.point
    if point is None:
        return None
    return {**asdict(point), "probabilities": point.probabilities, "stored": found.stored}
