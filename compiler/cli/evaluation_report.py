"""What `tcc eval` says of one network: figures with intervals, as text and as a document."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.report import Report, TableCell

if TYPE_CHECKING:
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import ClassScores, Interval, Rates, Scores
    from tcc.compiler.reference.confidence_intervals import Bounds

MATRIX = 12
"""Most classes whose confusion matrix is printed whole."""
CONFUSED = 10
"""Pairs of classes that are listed where it is not."""
TIES = "the largest output, of equal ones the first"


@dataclass(frozen=True)
class Resampling:
    """How many resamples are asked for, if any are, and the seed of their draw."""

    count: int | None
    seed: int


@dataclass(frozen=True)
class EvaluationReport:
    """How a network did on labelled images; `about` says what ran, for the document.

    `stored` is the bundle that the operating point was just stored in.
    """

    about: dict[str, Any]
    found: "Evaluated"
    point: "OperatingPoint | None" = None
    stored: str | None = None

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
        holds = given.holds[:, 1:] if given.single else given.holds
        temperature = self.point.temperature if self.point else 1.0
        return decision_rule.likelihood(given.output.activation, raw, holds, temperature)


def print_one(report: Report, found: EvaluationReport, drawn: Resampling) -> dict[str, Any]:
    """Print how a network did, and return the document that says it."""
    from tcc.compiler.reference.classification_metrics import interval

    scores = found.scores
    within = None
    if drawn.count:
        within = interval(scores.correct, scores.images, drawn.count, drawn.seed)
    averages = found.averages(drawn)
    report.text(_accuracy(found, within))
    if not report.quiet:
        _print_point(report, found)
        _print_classes(report, found)
        _print_bounds(report, found, averages)
        _print_confusion(report, found)
    return document(found, within, averages)


def _accuracy(found: EvaluationReport, within: "Interval | None") -> str:
    scores = found.scores
    text = f"accuracy {scores.accuracy:.2%}, {scores.correct:,} of {scores.images:,} images"
    if found.accuracy_bounds:
        text += f" (95% interval {percent(found.accuracy_bounds)})"
    if within:
        text += f" ({within.level:.0%} of resamples within {within.low:.2%} and {within.high:.2%})"
    return text


def percent(bounds: "Bounds") -> str:
    """Return an interval of shares in per cent."""
    return f"{bounds.low:.2%} to {bounds.high:.2%}"


def shown(value: float | None, bounds: "Bounds | None") -> str:
    """Return a figure with its interval."""
    if value is None:
        return "-"
    return f"{value:.4f} ({bounds.low:.4f}-{bounds.high:.4f})" if bounds else f"{value:.4f}"


def _print_point(report: Report, found: EvaluationReport) -> None:
    """Print how outputs are read, and where that comes from."""
    point = found.point
    if point is None:
        return
    fitted = point.fitted
    text = f"temperature {point.temperature:.4g}"
    if fitted.likelihood:
        before, after = fitted.likelihood
        text += f" (log loss {before:.4f} before it, {after:.4f} with it)"
    if fitted.likelihood and before == after and point.temperature == 1:
        text = "temperature 1: no other is the likeliest for these images"
    report.text(f"{text}, fitted to {fitted.images:,} images by {fitted.program}")
    if found.log_loss is not None:
        report.text(f"log loss {found.log_loss:.4f} on the images judged by")
    names = found.labels if point.positive is None else (found.labels[point.positive],)
    names = names[1:] if found.found.given.single else names
    if point.thresholds:
        listed = zip(names, point.probabilities, strict=True)
        text = ", ".join(f"`{name}` from {p:.6g} on" for name, p in listed)
        report.text(f"taken for {text}; chosen for {point.criterion}")
    if found.stored:
        report.text(f"stored in {found.stored}")


def _print_classes(report: Report, found: EvaluationReport) -> None:
    scores = found.scores
    rows: list[tuple[TableCell, ...]] = [
        (label, *_rates(c.rates), c.support)
        for label, c in zip(found.labels, scores.classes, strict=True)
        if c.occurs
    ]
    rows.append(("macro average", *_rates(scores.macro), scores.images))
    rows.append(("weighted average", *_rates(scores.weighted), scores.images))
    report.text("")
    report.table(("class", "precision", "recall", "F1", "support"), rows)


def _rates(rates: "Rates") -> tuple[str, ...]:
    return f"{rates.precision:.4f}", f"{rates.recall:.4f}", f"{rates.f1:.4f}"


def _print_bounds(
    report: Report, found: EvaluationReport, averages: "dict[str, Bounds | None]"
) -> None:
    """Print sensitivity, specificity and area of each class, and the averages, with intervals."""
    rows = []
    listed = zip(found.labels, found.scores.classes, found.areas, found.class_bounds, strict=True)
    for label, each, area, (hits, passed, bounds) in listed:
        if each.occurs:
            sensitivity = shown(each.rates.recall if hits else None, hits)
            specificity = shown(each.specificity if passed else None, passed)
            rows.append((label, sensitivity, specificity, shown(area, bounds)))
    report.text("")
    report.text("95% intervals: exact for shares of images, of averages by resampling")
    report.table(("class", "sensitivity", "specificity", "ROC-AUC"), rows)
    report.text("")
    lines = []
    for name, mean, weighted in (
        ("macro average", found.scores.macro, False),
        ("weighted average", found.scores.weighted, True),
    ):
        values = (mean.precision, mean.recall, mean.f1, found.area(weighted))
        known = [averages[f"{name.split()[0]}_{what}"] for what in FIGURES]
        lines.append((name, *(shown(v, b) for v, b in zip(values, known, strict=True))))
    report.table(("", "precision", "recall", "F1", "ROC-AUC"), lines)


FIGURES = ("precision", "recall", "f1", "auc")
"""What is averaged over classes."""


def _print_confusion(report: Report, found: EvaluationReport) -> None:
    labels, confusion = found.labels, found.scores.confusion
    if not confusion:
        return
    report.text("")
    if len(labels) > MATRIX:
        _print_confused(report, found)
        return
    report.text("rows: the class; columns: what it was taken for")
    lines: list[tuple[TableCell, ...]] = [
        (label, *row) for label, row in zip(labels, confusion, strict=True)
    ]
    report.table(("", *labels), lines)


def _print_confused(report: Report, found: EvaluationReport) -> None:
    """Print the pairs of classes that are taken for each other most often."""
    labels = found.labels
    pairs = [
        (count, labels[i], labels[j])
        for i, row in enumerate(found.scores.confusion)
        for j, count in enumerate(row)
        if count and i != j
    ]
    pairs.sort(key=lambda pair: -pair[0])
    if pairs:
        rows = [(truth, taken, count) for count, truth, taken in pairs[:CONFUSED]]
        report.table(("class", "taken for", "images"), rows)


def document(
    found: EvaluationReport, within: "Interval | None", averages: "dict[str, Bounds | None]"
) -> dict[str, Any]:
    """Return what `--json` prints of a network."""
    scores, given = found.scores, found.found.given
    return {
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
