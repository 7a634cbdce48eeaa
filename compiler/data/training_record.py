"""Read what a run folder's report states about its weights: their images and accuracy.

A report applies only to weights with the same digest. File names do not matter: weights of another
training in the same folder are detected by their contents.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
from tcc.compiler.support import json_records, regular_files

REPORT = "report.json"
VERSION = 1
MAX_BYTES = 1 << 24
"""Maximum size of a report in bytes."""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What is known about the training of some weights, as sentences.

    Attributes:
        source: Where the information comes from.
        spec: The digest of the spec that `accuracy` was measured with.
        images: The training images, and the other images of the dataset.
        accuracy: The fp32 model's accuracy on images that it was not trained on.
        limits: Known limitations of the weights.
        calibration: The SHA-256 of the calibration file that `int8_accuracy` was measured with.
        int8_accuracy: The accuracy of the int8 model with that calibration, by target.
        method: How the weights were trained.
        classes: The class names of `confusion`.
        confusion: Test images by true class (row) and the fp32 model's predicted class; empty if
            unknown, or if the network has several class outputs.
        by_class: The accuracy for each class, where `confusion` is empty.
        reliability: The calibration error of the fp32 model's probabilities on the test images, or
            that of each decision; empty if unknown.
        curves: The decision curves of its classes; empty if unknown.
    """

    source: str
    spec: str
    images: tuple[str, ...]
    accuracy: tuple[str, ...]
    limits: tuple[str, ...] = ()
    calibration: str = ""
    int8_accuracy: Mapping[str, str] = field(default_factory=dict)
    method: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    by_class: tuple[str, ...] = ()
    reliability: tuple[Reliability, ...] = ()
    curves: tuple[DecisionCurve, ...] = ()


def read_run(folder: Path, digest: str) -> TrainingRecord | None:
    """Return the training record of some weights from the report of a run folder.

    Args:
        folder: The run folder.
        digest: The digest of the weights' tensors.

    Returns:
        The record; None if there is no report, or its weights or version differ.
    """
    try:
        with regular_files.open_file(folder / REPORT) as file:
            text = file.read(MAX_BYTES + 1)
        report: Any = json.loads(text) if len(text) <= MAX_BYTES else None
        if (report["tcc_training"], report["weights"]) != (VERSION, digest):
            return None
        data_report, test = report["data"], report["test"]
        counts_by_split = {
            split: tuple(map(int, counts)) for split, counts in data_report["images"].items()
        }
        classes = tuple(str(name) for name in data_report["classes"])
        images = tuple(describe_splits(classes, counts_by_split))
        confusion = _read_confusion(test, classes) if test else ()
        reliability, curves = _read_probability_quality(test or {})
        method, limits = tuple(_describe_method(report)), tuple(_describe_limits(report))
        accuracy = (describe_test(test),) if test else ("no test images were held out",)
        spec = str(report["network"]["spec"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return TrainingRecord(
        "the report of the run folder",
        spec,
        images,
        accuracy,
        limits,
        method=method,
        classes=classes,
        confusion=confusion,
        reliability=reliability,
        curves=curves,
    )


def _read_confusion(
    test: Mapping[str, Any], classes: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix of a test; empty if there is none.

    Raises:
        ValueError: The matrix does not match the classes, or the test's image counts.
    """
    rows = tuple(tuple(map(int, row)) for row in test.get("confusion", ()))
    if not rows:
        return ()
    is_square = len(rows) == len(classes) and all(len(row) == len(classes) for row in rows)
    if not is_square or min(map(min, rows)) < 0:
        raise ValueError("the confusion matrix does not match the classes")
    correct = sum(row[index] for index, row in enumerate(rows))
    if (sum(map(sum, rows)), correct) != (int(test["images"]), int(test["correct"])):
        raise ValueError("the confusion matrix does not match the image counts")
    return rows


def _read_probability_quality(
    test: Mapping[str, Any],
) -> tuple[tuple[Reliability, ...], tuple[DecisionCurve, ...]]:
    """Return the calibration errors and decision curves of a test; empty if there are none.

    Raises:
        ValueError: They are invalid, or do not match the test's image counts.
    """
    reliability: tuple[Reliability, ...] = tuple(
        json_records.decode(Reliability, document)
        for document in test.get("calibration_errors", ())
    )
    curves: tuple[DecisionCurve, ...] = tuple(
        json_records.decode(DecisionCurve, document) for document in test.get("decision_curves", ())
    )
    for measured in reliability:
        if sum(b.images for b in measured.bins) != measured.images:
            raise ValueError("the bins do not match the image counts")
    for curve in curves:
        if not curve.is_consistent:
            raise ValueError("a decision curve has numbers that do not match")
    image_counts = {*(m.images for m in reliability), *(c.images for c in curves)}
    if image_counts - {int(test.get("images", 0))}:
        raise ValueError("the calibration errors or curves do not match the image counts")
    return reliability, curves


def _describe_method(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the weights were trained, as far as the report states it."""
    if "epochs" in report and "kept" in report:
        yield f"{int(report['epochs']):,} epochs; the weights of epoch {int(report['kept']):,}"
    if "seed" in report and "recipe" in report:
        yield f"seed {int(report['seed'])}, recipe with digest {str(report['recipe'])[:16]}"
    if made_with := report.get("made_with"):
        yield f"made with {', '.join(f'{name} {version}' for name, version in made_with.items())}"
    if validation := report.get("val"):
        yield (
            f"validation accuracy {float(validation['accuracy']):.2%} on "
            f"{int(validation['images']):,} images; the checkpoint may have been chosen by it, "
            "so it does not estimate the accuracy on unseen images"
        )


def _describe_limits(report: Mapping[str, Any]) -> Iterator[str]:
    if report.get("finished") is False:
        yield "the training did not finish: it reached its time limit"


def describe_splits(
    classes: Sequence[str], counts_by_split: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    """Yield a sentence for each split with the number of images, in total and by class.

    Args:
        classes: The class names.
        counts_by_split: The number of images of each class, by split name.

    Raises:
        ValueError: The number of classes of a split is not that of `classes`.
    """
    for split, counts in counts_by_split.items():
        pairs = zip(classes, counts, strict=True)
        counted = ", ".join(f"{name} {count:,}" for name, count in pairs)
        total = sum(counts)
        yield (
            f"{split}: {total:,} image{'s' * (total != 1)} ({counted})"
            if total
            else f"{split}: none"
        )


def describe_test(test: Mapping[str, Any]) -> str:
    """Return the number of correct test images and the accuracy, with its confidence interval."""
    low, high = (float(test["interval"][end]) for end in ("low", "high"))
    correct, images = int(test["correct"]), int(test["images"])
    return (
        f"{correct:,} of {images:,} test images correct, {float(test['accuracy']):.2%}"
        f" (95 % confidence interval {low:.2%} to {high:.2%}), in float32"
    )
