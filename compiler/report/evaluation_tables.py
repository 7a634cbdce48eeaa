"""What `tcc eval` prints: how one network did, how several compare, and what saturates."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver.evaluation_run import EvaluationReport, Resampling
from tcc.compiler.support.console import Report, TableCell, cell
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from tcc.compiler.driver.evaluation_run import SaturationReport
    from tcc.compiler.driver.saturation import LayerSaturation, Saturation
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import (
        ClassScores,
        Interval,
        JudgedClasses,
        Rates,
    )
    from tcc.compiler.reference.confidence_intervals import Bounds


MATRIX = 12
"""Most classes whose confusion matrix is printed whole."""
CONFUSED = 10
"""Pairs of classes that are listed where it is not."""
FIGURES = ("precision", "recall", "f1", "auc")
"""What is averaged over classes."""


def print_one(report: Report, found: EvaluationReport, drawn: Resampling) -> dict[str, Any]:
    """Print how a network did, and return the document that says it.

    Args:
        report: Where results and warnings are told.
        found: How the network did.
        drawn: How many resamples an interval takes, and their seed.
    """
    from tcc.compiler.reference.classification_metrics import interval

    scores = found.scores
    within = None
    if drawn.count:
        within = interval(scores.correct, scores.images, drawn.count, drawn.seed)
    averages = found.averages(drawn)
    report.text(_accuracy(found, within))
    if not report.quiet:
        _print_point(report, found)
        print_classes(report, found.judged, averages)
    if found.saturation:
        print_counts(report, found.saturation)
    return document(found, within, averages)


def _accuracy(found: EvaluationReport, within: "Interval | None") -> str:
    text = accuracy(found.judged, "images")
    if within:
        text += f" ({within.level:.0%} of resamples within {within.low:.2%} and {within.high:.2%})"
    return text


def accuracy(found: "JudgedClasses", what: str) -> str:
    """Return the share of items that were taken for what they are; `what` are these."""
    scores, within = found.scores, found.accuracy_bounds
    text = f"accuracy {scores.accuracy:.2%}, {scores.correct:,} of {scores.images:,} {what}"
    return text + (f" (95% interval {percent(within)})" if within else "")


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
    here = f"{found.about['target']} {found.about['precision']}"
    over = "" if fitted.program == here else f", carried over to {here}"
    report.text(f"{text}, fitted to {fitted.images:,} images by {fitted.program}{over}")
    if found.log_loss is not None:
        report.text(f"log loss {found.log_loss:.4f} on the images judged by")
    names = found.labels if point.positive is None else (found.labels[point.positive],)
    # A single decision has one threshold, that of yes.
    names = names[1:] if found.found.given.single else names
    if point.thresholds:
        listed = zip(names, point.probabilities, strict=True)
        text = ", ".join(f"`{name}` from {p:.6g} on" for name, p in listed)
        report.text(f"taken for {text}; chosen for {point.criterion}")
    _print_checks(report, point)
    if found.stored:
        report.text(f"stored in {found.stored}")


def _print_checks(report: Report, point: "OperatingPoint") -> None:
    """Print what each threshold gives on the images that judge, and what none gives."""
    from tcc.compiler.driver import target_check

    if point.judged:
        for line in target_check.describe(point.judged.thresholds):
            report.text(line)


def print_classes(
    report: Report,
    found: "JudgedClasses",
    averages: "dict[str, Bounds | None]",
    what: str = "images",
) -> None:
    """Print classes, averages and the confusion matrix.

    Args:
        report: Where results are told.
        found: The classes.
        averages: The intervals of averages by name.
        what: What was taken for classes.
    """
    _print_rates(report, found)
    _print_bounds(report, found, averages, what)
    _print_confusion(report, found, what)


def _print_rates(report: Report, found: "JudgedClasses") -> None:
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
    report: Report, found: "JudgedClasses", averages: "dict[str, Bounds | None]", what: str
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
    report.text(f"95% intervals: exact for shares of {what}, of averages by resampling")
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


def _print_confusion(report: Report, found: "JudgedClasses", what: str) -> None:
    labels, confusion = found.labels, found.scores.confusion
    if not confusion:
        return
    report.text("")
    if len(labels) > MATRIX:
        _print_confused(report, found, what)
        return
    report.text("rows: the class; columns: what it was taken for")
    lines: list[tuple[TableCell, ...]] = [
        (label, *row) for label, row in zip(labels, confusion, strict=True)
    ]
    report.table(("", *labels), lines)


def _print_confused(report: Report, found: "JudgedClasses", what: str) -> None:
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
        report.table(("class", "taken for", what), rows)


def print_all(
    report: Report, found: Sequence[EvaluationReport], drawn: Resampling
) -> dict[str, Any]:
    """Print a table of networks and one of their pairs; return the document that says it.

    Args:
        report: Where results and warnings are told.
        found: How each network did.
        drawn: How many resamples an interval takes, and their seed; none for exact intervals.

    Raises:
        UserError: They were not judged by the same images (E1266).
    """
    from tcc.compiler.reference.confidence_intervals import mcnemar

    _check_same(found)
    averages = [each.averages(drawn) for each in found]
    rows = []
    for each, bounds in zip(found, averages, strict=True):
        scores, within = each.scores, each.judged.accuracy_bounds
        rows.append(
            (
                each.name,
                each.about["precision"],
                f"{scores.accuracy:.2%}" + (f" ({percent(within)})" if within else ""),
                shown(scores.macro.f1, bounds["macro_f1"]),
                shown(scores.weighted.f1, bounds["weighted_f1"]),
                shown(each.judged.area(False), bounds["macro_auc"]),
            )
        )
    images = f"{found[0].scores.images:,} images, 95% intervals"
    report.text(images)
    report.table(("", "", "accuracy", "macro F1", "weighted F1", "macro ROC-AUC"), rows)
    pairs = [(a, b, mcnemar(a.found.right, b.found.right)) for a, b in combinations(found, 2)]
    report.text("")
    report.text("McNemar's test: how likely so large a difference is by chance alone")
    report.table(
        ("first", "second", "only first right", "only second right", "p"),
        [(a.name, b.name, cell(t.first_only), cell(t.second_only), f"{t.p:.4g}")
         for a, b, t in pairs],
    )  # fmt: skip
    return {
        "networks": [document(e, None, b) for e, b in zip(found, averages, strict=True)],
        "pairs": [{"first": a.name, "second": b.name, **asdict(t)} for a, b, t in pairs],
    }


def _check_same(found: Sequence[EvaluationReport]) -> None:
    first = found[0].found.given
    for each in found[1:]:
        given = each.found.given
        digests = [item.data.digest for item in (first, given)]
        # McNemar's test counts the images that one is right about and the other is not: they must
        # be the same ones.
        if len(set(digests)) > 1 or first.labels != given.labels:
            message = "networks are compared on the same images of the same classes"
            names = f"{', '.join(first.labels[:8])} and {', '.join(given.labels[:8])}"
            raise fail("E1266", message, whole_file(each.name), label=f"classes are {names}")


TIES = "the largest output, of equal ones the first"


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
    ends = {"saturation": document_saturation(found.saturation)} if found.saturation else {}
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


LISTED = 20
"""Layers that the table lists."""


def print_counts(report: Report, counts: "Saturation") -> None:
    """Print the layers with the most saturated values, and which clip more than at calibration."""
    deviating = counts.deviating
    if not report.quiet:
        report.text(f"\nsaturated values, over {_count(counts.images, 'image')}")
        report.table(
            ("layer", "share", "worst image", "at calibration", "images above", ""),
            [_build_row(layer, layer in deviating) for layer in _choose_layers(counts)],
        )
    if deviating:
        report.notice(_describe_deviation(counts, deviating))
    elif not counts.can_deviate:
        report.notice(_explain_no_comparison(counts))
    elif not report.quiet:
        report.text("no layer clips more than chance explains beside the calibration's images")
    if not report.quiet:
        report.text(
            "These are counts. Images of another kind may clip no more, so that counts do not show"
            " how accurate the network is on these images."
        )


def _describe_deviation(counts: "Saturation", deviating: "Sequence[LayerSaturation]") -> str:
    first = deviating[0]
    assert first.usual is not None
    return (
        f"more values clip than on the calibration's images, in {len(deviating)} of"
        f" {_count(len(counts.compared), 'layer')}: in {first.above:,} of"
        f" {_count(counts.images, 'image')} `{first.name}` has a larger share of saturated values"
        f" than in each of the calibration's {_count(first.usual.images, 'image')}. To find out"
        " what this costs, evaluate labelled images like these; to widen the ranges, calibrate"
        " again with such images among the others"
    )


def _explain_no_comparison(counts: "Saturation") -> str:
    if not counts.compared:
        return (
            "these counts are not compared with the calibration's: its file does not say them image"
            " by image. Calibrate again to record them"
        )
    reference = max(layer.usual.images for layer in counts.compared if layer.usual)
    return (
        f"these counts are not compared with the calibration's: {_count(counts.images, 'image')}"
        f" beside {reference:,} of the calibration are too few for {len(counts.compared):,} layers."
        " Give more images"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_counted(report: Report, found: "SaturationReport") -> dict[str, Any]:
    """Print the counts, and return the document of them."""
    refusal = found.refusal
    label = f" ({refusal.label})" if refusal.label else ""
    report.notice(f"accuracy is not measured on {found.path}: {refusal.message}{label}")
    print_counts(report, found.counts)
    images = {"path": str(found.path), "digest": found.data.digest, "images": len(found.data)}
    counts = {"saturation": document_saturation(found.counts)}
    return counts | {**found.about, "data": images, "accuracy": None}


def document_saturation(counts: "Saturation") -> dict[str, Any]:
    """Return what `--json` prints of it."""
    compared = counts.compared
    layers = [
        {
            "layer": layer.name,
            "share": layer.mean,
            "standard_error": layer.error,
            "worst_image": max(layer.shares),
            "at_calibration": layer.usual.mean if layer.usual else None,
            "images_above": layer.above,
            "clips_more": layer.clips_more(len(compared)) if counts.can_deviate else None,
        }
        for layer in counts.layers
    ]
    reference = max((layer.usual.images for layer in compared if layer.usual), default=0)
    return {
        "images": counts.images,
        "calibration_images": reference,
        "compared": counts.can_deviate,
        "layers": layers,
    }


def _choose_layers(counts: "Saturation") -> "list[LayerSaturation]":
    layers = [layer for layer in counts.layers if layer.mean]
    deviating = {layer.name for layer in counts.deviating}
    # Those that deviate first, whatever their share.
    return sorted(layers, key=lambda layer: (layer.name not in deviating, -layer.mean))[:LISTED]


def _build_row(layer: "LayerSaturation", deviates: bool) -> tuple[str, ...]:
    known = "-" if layer.usual is None else f"{layer.usual.mean:.4%}"
    above = "-" if layer.above is None else f"{layer.above:,} of {len(layer.shares):,}"
    mark = "clips more" if deviates else ""
    return (layer.name, f"{layer.mean:.4%}", f"{max(layer.shares):.4%}", known, above, mark)
