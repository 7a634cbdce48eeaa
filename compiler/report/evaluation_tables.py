"""The report of `tcc eval`: metrics of one network, comparison of several, saturated values."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver.evaluation_run import EvaluationReport, Resampling
from tcc.compiler.report import probability_tables
from tcc.compiler.support.console import Report, TableCell, format_cell
from tcc.compiler.support.diagnostics import fail, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.data.probability_quality import Reliability
    from tcc.compiler.driver.evaluation_run import SaturationReport
    from tcc.compiler.driver.saturation import LayerSaturation, Saturation
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import (
        ClassEvaluation,
        ClassScores,
        Interval,
        Rates,
    )
    from tcc.compiler.reference.confidence_intervals import Bounds


MAX_MATRIX_CLASSES = 12
"""Maximum classes for which the full confusion matrix is printed."""
MAX_CONFUSED_PAIRS = 10
"""Pairs of classes listed instead, if there are more classes."""
FIGURES = ("precision", "recall", "f1", "auc")
"""Metrics that are averaged over classes."""


def print_evaluation(
    report: Report, evaluation: EvaluationReport, resampling: Resampling
) -> dict[str, Any]:
    """Print the metrics of a network, and return its JSON document.

    Args:
        report: Receives results and warnings.
        evaluation: The network's evaluation.
        resampling: The number of bootstrap resamples per interval, and their seed.
    """
    from tcc.compiler.reference.classification_metrics import estimate_accuracy_interval

    scores = evaluation.scores
    accuracy_interval = None
    if resampling.count:
        accuracy_interval = estimate_accuracy_interval(
            scores.correct, scores.images, resampling.count, resampling.seed
        )
    averages = evaluation.estimate_averages(resampling)
    reliability = evaluation.measure_reliability(resampling)
    report.print_text(_describe_accuracy(evaluation, accuracy_interval))
    if not report.quiet:
        _print_point(report, evaluation)
        print_classes(report, evaluation.class_evaluation, averages)
        probability_tables.print_reliability(report, reliability)
        probability_tables.print_curves(report, evaluation.decision_curves)
    if evaluation.saturation:
        print_counts(report, evaluation.saturation)
    return encode_evaluation(evaluation, accuracy_interval, averages, reliability)


def _describe_accuracy(evaluation: EvaluationReport, accuracy_interval: "Interval | None") -> str:
    text = describe_accuracy(evaluation.class_evaluation, "images")
    if accuracy_interval:
        text += (
            f" ({100 * accuracy_interval.level:.0f} % bootstrap interval"
            f" {accuracy_interval.low:.2%} to {accuracy_interval.high:.2%})"
        )
    return text


def describe_accuracy(classes: "ClassEvaluation", noun: str) -> str:
    """Return the accuracy with its confidence interval. `noun` names the items."""
    scores, accuracy_bounds = classes.scores, classes.accuracy_bounds
    text = f"accuracy {scores.accuracy:.2%}, {scores.correct:,} of {scores.images:,} {noun}"
    if accuracy_bounds:
        text += f" (95 % confidence interval {render_interval(accuracy_bounds)})"
    return text


def render_interval(bounds: "Bounds") -> str:
    """Return an interval of shares, in per cent."""
    return f"{bounds.low:.2%} to {bounds.high:.2%}"


def render_figure(figure: float | None, bounds: "Bounds | None") -> str:
    """Return a metric with its confidence interval."""
    if figure is None:
        return "-"
    return f"{figure:.4f} ({bounds.low:.4f}-{bounds.high:.4f})" if bounds else f"{figure:.4f}"


def _print_point(report: Report, evaluation: EvaluationReport) -> None:
    """Print the operating point: temperature and thresholds, and how they were fitted."""
    from tcc.compiler.driver import target_check

    point = evaluation.point
    if point is None:
        return
    fitted = point.fitted
    text = f"temperature {point.temperature:.4g}"
    if fitted.likelihood:
        unscaled_loss, scaled_loss = fitted.likelihood
        text += f" (log loss {unscaled_loss:.4f} without, {scaled_loss:.4f} with temperature)"
    if fitted.likelihood and unscaled_loss == scaled_loss and point.temperature == 1:
        text = "temperature 1 (no other temperature lowers the log loss)"
    program = f"{evaluation.subject['target']} {evaluation.subject['precision']}"
    applied_to = "" if fitted.program == program else f", applied to {program}"
    report.print_text(
        f"{text}, fitted on {fitted.images:,} images with {fitted.program}{applied_to}"
    )
    if evaluation.log_loss is not None:
        report.print_text(f"log loss {evaluation.log_loss:.4f} on the held-out images")
    names = evaluation.labels if point.positive is None else (evaluation.labels[point.positive],)
    # A single decision has one threshold: that of the positive label.
    names = names[1:] if evaluation.evaluated.images.single else names
    if point.thresholds:
        named_thresholds = zip(names, point.probabilities, strict=True)
        text = ", ".join(f"`{name}` at {p:.6g} or more" for name, p in named_thresholds)
        report.print_text(f"probability thresholds: {text}; criterion: {point.criterion}")
    for line in target_check.describe_certificates(point):
        report.print_text(line)
    _print_checks(report, point)
    if evaluation.stored_bundle:
        report.print_text(f"stored in {evaluation.stored_bundle}")


def _print_checks(report: Report, point: "OperatingPoint") -> None:
    """Print the metrics on the held-out images with each threshold, and without it."""
    from tcc.compiler.driver import target_check

    if point.judged:
        for line in target_check.describe(point.judged.thresholds):
            report.print_text(line)


def print_classes(
    report: Report,
    classes: "ClassEvaluation",
    averages: "dict[str, Bounds | None]",
    noun: str = "images",
) -> None:
    """Print metrics by class, averages and the confusion matrix.

    Args:
        report: Receives results.
        classes: The evaluation by class.
        averages: The confidence intervals of averages, by name.
        noun: The name of the classified items.
    """
    _print_rates(report, classes)
    _print_bounds(report, classes, averages, noun)
    _print_confusion(report, classes, noun)


def _print_rates(report: Report, classes: "ClassEvaluation") -> None:
    scores = classes.scores
    rows: list[tuple[TableCell, ...]] = [
        (label, *_render_rates(c.rates), c.support)
        for label, c in zip(classes.labels, scores.classes, strict=True)
        if c.occurs
    ]
    rows.append(("macro average", *_render_rates(scores.macro), scores.images))
    rows.append(("weighted average", *_render_rates(scores.weighted), scores.images))
    report.print_text("")
    report.print_table(("class", "precision", "recall", "F1", "support"), rows)


def _render_rates(rates: "Rates") -> tuple[str, ...]:
    return f"{rates.precision:.4f}", f"{rates.recall:.4f}", f"{rates.f1:.4f}"


def _print_bounds(
    report: Report, classes: "ClassEvaluation", averages: "dict[str, Bounds | None]", noun: str
) -> None:
    """Print sensitivity, specificity and ROC-AUC by class, and averages, with intervals."""
    rows = []
    class_rows = zip(
        classes.labels, classes.scores.classes, classes.areas, classes.class_bounds, strict=True
    )
    for label, class_scores, area, (hits, rejected, bounds) in class_rows:
        if class_scores.occurs:
            sensitivity = render_figure(class_scores.rates.recall if hits else None, hits)
            specificity = render_figure(class_scores.specificity if rejected else None, rejected)
            rows.append((label, sensitivity, specificity, render_figure(area, bounds)))
    report.print_text("")
    report.print_text(
        f"95 % confidence intervals: exact for shares of {noun}, bootstrap for averages"
    )
    report.print_table(("class", "sensitivity", "specificity", "ROC-AUC"), rows)
    report.print_text("")
    lines = []
    for name, mean, weighted in (
        ("macro average", classes.scores.macro, False),
        ("weighted average", classes.scores.weighted, True),
    ):
        mean_figures = (mean.precision, mean.recall, mean.f1, classes.compute_mean_area(weighted))
        mean_bounds = [averages[f"{name.split()[0]}_{noun}"] for noun in FIGURES]
        lines.append(
            (name, *(render_figure(v, b) for v, b in zip(mean_figures, mean_bounds, strict=True)))
        )
    report.print_table(("", "precision", "recall", "F1", "ROC-AUC"), lines)


def _print_confusion(report: Report, classes: "ClassEvaluation", noun: str) -> None:
    labels, confusion = classes.labels, classes.scores.confusion
    if not confusion:
        return
    report.print_text("")
    if len(labels) > MAX_MATRIX_CLASSES:
        _print_confused(report, classes, noun)
        return
    report.print_text("confusion matrix (rows: true class, columns: predicted class)")
    lines: list[tuple[TableCell, ...]] = [
        (label, *row) for label, row in zip(labels, confusion, strict=True)
    ]
    report.print_table(("", *labels), lines)


def _print_confused(report: Report, classes: "ClassEvaluation", noun: str) -> None:
    """Print the most frequent confusions: true class and predicted class."""
    labels = classes.labels
    pairs = [
        (count, labels[i], labels[j])
        for i, row in enumerate(classes.scores.confusion)
        for j, count in enumerate(row)
        if count and i != j
    ]
    pairs.sort(key=lambda pair: -pair[0])
    if pairs:
        rows = [(truth, predicted, count) for count, truth, predicted in pairs[:MAX_CONFUSED_PAIRS]]
        report.print_text("most frequent confusions")
        report.print_table(("true class", "predicted class", noun), rows)


def print_comparison(
    report: Report, evaluations: Sequence[EvaluationReport], resampling: Resampling
) -> dict[str, Any]:
    """Print a table of networks and one of their pairs, and return the JSON document.

    Args:
        report: Receives results and warnings.
        evaluations: The evaluation of each network.
        resampling: The number of bootstrap resamples per interval, and their seed.

    Raises:
        UserError: The networks were evaluated on different images or classes (E1266).
    """
    from tcc.compiler.reference.confidence_intervals import compute_mcnemar

    _check_same(evaluations)
    averages = [evaluation.estimate_averages(resampling) for evaluation in evaluations]
    reliability = [evaluation.measure_reliability(resampling) for evaluation in evaluations]
    rows = []
    for evaluation, bounds in zip(evaluations, averages, strict=True):
        scores, accuracy_bounds = evaluation.scores, evaluation.class_evaluation.accuracy_bounds
        rows.append(
            (
                evaluation.name,
                evaluation.subject["precision"],
                f"{scores.accuracy:.2%}"
                + (f" ({render_interval(accuracy_bounds)})" if accuracy_bounds else ""),
                render_figure(scores.macro.f1, bounds["macro_f1"]),
                render_figure(scores.weighted.f1, bounds["weighted_f1"]),
                render_figure(
                    evaluation.class_evaluation.compute_mean_area(False), bounds["macro_auc"]
                ),
            )
        )
    images = f"{evaluations[0].scores.images:,} images, 95 % confidence intervals"
    report.print_text(images)
    report.print_table(("", "", "accuracy", "macro F1", "weighted F1", "macro ROC-AUC"), rows)
    errors = [(e.name, m) for e, r in zip(evaluations, reliability, strict=True) for m in r]
    probability_tables.print_errors(report, errors)
    pairs = [
        (a, b, compute_mcnemar(a.evaluated.correct, b.evaluated.correct))
        for a, b in combinations(evaluations, 2)
    ]
    report.print_text("")
    report.print_text("McNemar's test: p is the probability of so large a difference by chance")
    report.print_table(
        ("first", "second", "only first correct", "only second correct", "p"),
        [(a.name, b.name, format_cell(t.first_only), format_cell(t.second_only), f"{t.p:.4g}")
         for a, b, t in pairs],
    )  # fmt: skip
    return {
        "networks": [
            encode_evaluation(e, None, b, r)
            for e, b, r in zip(evaluations, averages, reliability, strict=True)
        ],
        "pairs": [{"first": a.name, "second": b.name, **asdict(t)} for a, b, t in pairs],
    }


def _check_same(evaluations: Sequence[EvaluationReport]) -> None:
    reference = evaluations[0].evaluated.images
    for evaluation in evaluations[1:]:
        evaluated = evaluation.evaluated.images
        digests = [judged_set.dataset.digest for judged_set in (reference, evaluated)]
        # McNemar's test counts images that only one network classifies correctly, so that both
        # need the same images.
        if len(set(digests)) > 1 or reference.labels != evaluated.labels:
            message = "these networks were evaluated on different images or classes"
            first, second = (", ".join(s.labels[:8]) for s in (reference, evaluated))
            label = f"{evaluations[0].name} has classes {first}; this network has {second}"
            if reference.labels == evaluated.labels:
                label = f"{evaluations[0].name} was evaluated on {reference.path}"
            help = "evaluate all networks on the same dataset; their labels must be equal"
            at = make_file_span(evaluation.name)
            raise fail("E1266", message, at, label=label, help=help)


TIE_RULE = "the class with the largest output; the first of equal ones"


def encode_evaluation(
    evaluation: EvaluationReport,
    accuracy_interval: "Interval | None",
    averages: "dict[str, Bounds | None]",
    reliability: "Sequence[Reliability]",
) -> dict[str, Any]:
    """Return the JSON document of a network's evaluation.

    Args:
        evaluation: The network's evaluation.
        accuracy_interval: The bootstrap interval of the accuracy, if there is one.
        averages: The confidence intervals of averages, by name.
        reliability: The calibration error of the classes or of each decision.
    """
    scores, inputs = evaluation.scores, evaluation.evaluated.images
    saturation_fields = (
        {"saturation": encode_saturation(evaluation.saturation)} if evaluation.saturation else {}
    )
    warnings = [warning.to_json() for warning in evaluation.warnings]
    return (
        saturation_fields
        | ({"warnings": warnings} if evaluation.point else {})
        | {
            **evaluation.subject,
            "data": {
                "path": str(inputs.path),
                "digest": inputs.dataset.digest,
                "images": scores.images,
            },
            "output": inputs.output.name,
            "ties": TIE_RULE,
            "operating_point": _encode_point(evaluation),
            "accuracy": scores.accuracy,
            "correct": scores.correct,
            "interval": asdict(accuracy_interval) if accuracy_interval else None,
            "log_loss": evaluation.log_loss,
            **encode_figures(evaluation.class_evaluation, averages),
            **probability_tables.encode_quality(reliability, evaluation.decision_curves),
        }
    )


def encode_figures(
    classes: "ClassEvaluation", averages: "dict[str, Bounds | None]"
) -> dict[str, Any]:
    """Return the JSON document of metrics by class and their averages."""
    scores = classes.scores
    return {
        "macro": asdict(scores.macro),
        "weighted": asdict(scores.weighted),
        "auc": {
            "macro": classes.compute_mean_area(False),
            "weighted": classes.compute_mean_area(True),
        },
        "intervals": {
            "level": 0.95,
            "accuracy": encode_bounds(classes.accuracy_bounds),
            "averages": {name: encode_bounds(figure) for name, figure in averages.items()},
        },
        "classes": [
            _encode_class(classes, index, figure) for index, figure in enumerate(scores.classes)
        ],
        "confusion": [list(row) for row in scores.confusion] or None,
    }


def _encode_class(
    classes: "ClassEvaluation", index: int, class_scores: "ClassScores"
) -> dict[str, Any]:
    hits, rejected, area = classes.class_bounds[index]
    return {
        "index": index,
        "label": classes.labels[index],
        **asdict(class_scores.rates),
        "support": class_scores.support,
        "predicted": class_scores.predicted,
        "sensitivity": class_scores.rates.recall if hits else None,
        "specificity": class_scores.specificity if rejected else None,
        "auc": classes.areas[index],
        "intervals": {
            "sensitivity": encode_bounds(hits),
            "specificity": encode_bounds(rejected),
            "auc": encode_bounds(area),
        },
    }


def encode_bounds(interval: "Bounds | None") -> dict[str, float] | None:
    """Return an interval as plain data; None stays None."""
    return asdict(interval) if interval else None


def _encode_point(evaluation: EvaluationReport) -> dict[str, Any] | None:
    from tcc.compiler.reference import confidence_intervals

    point = evaluation.point
    if point is None:
        return None
    needed = [
        confidence_intervals.count_images_needed(check.target, check.positives - check.detected)
        for check in (point.judged.thresholds if point.judged else ())
        if check.target is not None
    ]
    return {
        **asdict(point),
        "probabilities": point.probabilities,
        "positives_needed": needed,
        "stored": evaluation.stored_bundle,
    }


MAX_LISTED_LAYERS = 20
"""Maximum layers in the table."""


def print_counts(report: Report, counts: "Saturation") -> None:
    """Print the layers with the most saturated values, and mark those that clip unusually often."""
    deviating = counts.deviating
    if not report.quiet:
        report.print_text(f"\nsaturated values, on {_count(counts.images, 'image')}")
        report.print_table(
            ("layer", "share", "worst image", "calibration", "images above calibration", ""),
            [_build_row(layer, layer in deviating) for layer in _choose_layers(counts)],
        )
    if deviating:
        report.warn_text(_describe_deviation(counts, deviating))
    elif not counts.can_deviate:
        report.warn_text(_explain_no_comparison(counts))
    elif not report.quiet:
        report.print_text("no layer clips significantly more values than on the calibration images")
    if not report.quiet:
        report.print_text(
            "These counts do not show how accurate the network is: images of another kind can clip"
            " as little as the calibration images."
        )


def _describe_deviation(counts: "Saturation", deviating: "Sequence[LayerSaturation]") -> str:
    worst = deviating[0]
    assert worst.usual is not None
    return (
        f"in {len(deviating)} of {_count(len(counts.compared), 'layer')}, more values clip than on"
        f" the calibration images. On {worst.above:,} of {_count(counts.images, 'image')},"
        f" `{worst.name}` saturates more than on any of the"
        f" {_count(worst.usual.images, 'calibration image')}. To measure the accuracy drop,"
        " evaluate labelled images of this kind. To widen the ranges, add such images to the"
        " calibration images and calibrate again"
    )


def _explain_no_comparison(counts: "Saturation") -> str:
    if not counts.compared:
        return (
            "saturated values are not compared with the calibration images: the calibration file"
            " has no counts per image. Calibrate again to record them"
        )
    reference = max(layer.usual.images for layer in counts.compared if layer.usual)
    return (
        "saturated values are not compared with the calibration images:"
        f" {_count(counts.images, 'image')} and {_count(reference, 'calibration image')} are too"
        f" few for {_count(len(counts.compared), 'layer')}. Give more images"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_counted(report: Report, saturation: "SaturationReport") -> dict[str, Any]:
    """Print the counts of saturated values, and return their JSON document."""
    refusal = saturation.refusal
    label = f" ({refusal.label})" if refusal.label else ""
    report.warn_text(f"accuracy on {saturation.path} is not measured: {refusal.message}{label}")
    print_counts(report, saturation.counts)
    images = {
        "path": str(saturation.path),
        "digest": saturation.dataset.digest,
        "images": len(saturation.dataset),
    }
    counts = {"saturation": encode_saturation(saturation.counts)}
    return counts | {**saturation.subject, "data": images, "accuracy": None}


def encode_saturation(counts: "Saturation") -> dict[str, Any]:
    """Return the JSON document of the counts."""
    compared = counts.compared
    layers = [
        {
            "layer": layer.name,
            "share": layer.mean,
            "standard_error": layer.error,
            "worst_image": max(layer.shares),
            "at_calibration": layer.usual.mean if layer.usual else None,
            "images_above": layer.above,
            "clips_more": layer.has_more_clipping(len(compared)) if counts.can_deviate else None,
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
    # Layers that clip unusually often come first, whatever their share.
    return sorted(layers, key=lambda layer: (layer.name not in deviating, -layer.mean))[
        :MAX_LISTED_LAYERS
    ]


def _build_row(layer: "LayerSaturation", deviates: bool) -> tuple[str, ...]:
    usual_share = "-" if layer.usual is None else f"{layer.usual.mean:.4%}"
    above = "-" if layer.above is None else f"{layer.above:,} of {len(layer.shares):,}"
    mark = "clips more" if deviates else ""
    return (layer.name, f"{layer.mean:.4%}", f"{max(layer.shares):.4%}", usual_share, above, mark)
