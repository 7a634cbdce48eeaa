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
    from tcc.compiler.reference.judged_classes import JudgedClasses
    from tcc.compiler.support.diagnostics import Diagnostic

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
    integers are saturated, where that is asked for. `warnings` say what of the
    operating point does not hold on these images.
    """

    about: dict[str, Any]
    found: "Evaluated"
    point: "OperatingPoint | None" = None
    stored: str | None = None
    saturation: "Saturation | None" = None
    warnings: "tuple[Diagnostic, ...]" = ()

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
    def judged(self) -> "JudgedClasses":
        """What the images were taken for."""
        from tcc.compiler.reference.judged_classes import JudgedClasses

        found = self.found
        odds = found.odds(self.point.temperature if self.point else 1.0)
        return JudgedClasses(self.labels, found.given.holds, found.taken, odds, self.scores)

    def averages(self, drawn: Resampling) -> "dict[str, Bounds | None]":
        """Return the intervals of averages over classes, by a bootstrap."""
        return self.judged.averages(drawn.count, drawn.seed)

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
    warnings = [warning.as_json() for warning in found.warnings]
    return (
        ends
        | ({"warnings": warnings} if found.point else {})
        | {
            **found.about,
            "data": {"path": str(given.path), "digest": given.data.digest, "images": scores.images},
            "output": given.output.name,
            "ties": TIES,
            "operating_point": _point(found),
            "accuracy": scores.accuracy,
            "correct": scores.correct,
            "interval": asdict(within) if within else None,
            "log_loss": found.log_loss,
            **figures(found.judged, averages),
        }
    )


def figures(found: "JudgedClasses", averages: "dict[str, Bounds | None]") -> dict[str, Any]:
    """Return what `--json` prints of classes and their averages."""
    scores = found.scores
    return {
        "macro": asdict(scores.macro),
        "weighted": asdict(scores.weighted),
        "auc": {"macro": found.area(False), "weighted": found.area(True)},
        "intervals": {
            "level": 0.95,
            "accuracy": bounds(found.accuracy_bounds),
            "averages": {name: bounds(each) for name, each in averages.items()},
        },
        "classes": [_class(found, index, each) for index, each in enumerate(scores.classes)],
        "confusion": [list(row) for row in scores.confusion] or None,
    }


def _class(found: "JudgedClasses", index: int, each: "ClassScores") -> dict[str, Any]:
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
            "sensitivity": bounds(hits),
            "specificity": bounds(passed),
            "auc": bounds(area),
        },
    }


def bounds(found: "Bounds | None") -> dict[str, float] | None:
    """Return an interval as a document has it."""
    return asdict(found) if found else None


def _point(found: EvaluationReport) -> dict[str, Any] | None:
    from tcc.compiler.reference import confidence_intervals

    point = found.point
    if point is None:
        return None
    needed = [
        confidence_intervals.images_needed(check.target, check.positives - check.detected)
        for check in (point.judged.thresholds if point.judged else ())
        if check.target is not None
    ]
    return {
        **asdict(point),
        "probabilities": point.probabilities,
        "positives_needed": needed,
        "stored": found.stored,
    }
