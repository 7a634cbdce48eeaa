"""What a training's folder says of the weights that lie in it: their images, and how good they are.

It is believed of weights of the same digest alone: a file of another training that lies in the
folder, or the same file under another name, is told apart by its contents.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.compiler.support import regular_files

REPORT = "report.json"
VERSION = 1
MAX_BYTES = 1 << 24
"""Most bytes of a report."""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What is known of the training of weights, in sentences.

    Attributes:
        source: What says so.
        spec: The digest of the spec that `accuracy` is of.
        images: The images that the weights learned from, and others of the same set.
        accuracy: How good the network is in float32, on images that it has not learned from.
        limits: What it is not fit for.
        calibration: The SHA-256 of the calibration file that `int8_accuracy` is of.
        int8_accuracy: How good its int8 model of that calibration is, by target.
        method: How the weights were trained.
        classes: The names of the classes of `confusion`.
        confusion: Test images by their class, a row, and the one taken in float32; empty where that
            is not known, or the network tells more than one class.
        by_class: How good the network is at each class, where `confusion` does not say it.
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


def read_run(folder: Path, digest: str) -> TrainingRecord | None:
    """Return what the report of a finished training says of weights.

    Args:
        folder: The training's folder.
        digest: That of the weights' tensors.

    Returns:
        The record; None where there is no report, or it is of other weights or another form.
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
        method, limits = tuple(_describe_method(report)), tuple(_describe_limits(report))
        accuracy = (describe_test(test),) if test else ("no test images were kept apart",)
        spec = str(report["network"]["spec"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return TrainingRecord(
        "the report of the training's folder",
        spec,
        images,
        accuracy,
        limits,
        method=method,
        classes=classes,
        confusion=confusion,
    )


def _read_confusion(
    test: Mapping[str, Any], classes: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return the confusion matrix of a test; empty where it has none.

    Raises:
        ValueError: It is not one of these classes, or not of the figures beside it.
    """
    rows = tuple(tuple(map(int, row)) for row in test.get("confusion", ()))
    if not rows:
        return ()
    is_square = len(rows) == len(classes) and all(len(row) == len(classes) for row in rows)
    if not is_square or min(map(min, rows)) < 0:
        raise ValueError("the confusion matrix has other classes")
    correct = sum(row[index] for index, row in enumerate(rows))
    if (sum(map(sum, rows)), correct) != (int(test["images"]), int(test["correct"])):
        raise ValueError("the confusion matrix is of other figures")
    return rows


def _describe_method(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield how weights were trained, as far as a report says so."""
    if "epochs" in report and "kept" in report:
        yield f"{int(report['epochs']):,} epochs; the weights of epoch {int(report['kept']):,}"
    if "seed" in report and "recipe" in report:
        yield f"seed {int(report['seed'])}, recipe of digest {str(report['recipe'])[:16]}"
    if made_with := report.get("made_with"):
        yield f"made with {', '.join(f'{name} {version}' for name, version in made_with.items())}"
    if validation := report.get("val"):
        yield (
            f"validation accuracy {float(validation['accuracy']):.2%} of "
            f"{int(validation['images']):,} images, "
            "by which the state may have been chosen: it is no measure of unseen images"
        )


def _describe_limits(report: Mapping[str, Any]) -> Iterator[str]:
    if report.get("finished") is False:
        yield "the training was not finished: its time was over first"


def describe_splits(
    classes: Sequence[str], counts_by_split: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    """Yield a sentence for each side: how many images, and of which classes.

    Args:
        classes: Their names.
        counts_by_split: The images of each class, by the side's name.

    Raises:
        ValueError: A side has another number of classes.
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
    """Return how many test images are told right, with the interval of 95 %."""
    low, high = (float(test["interval"][end]) for end in ("low", "high"))
    correct, images = int(test["correct"]), int(test["images"])
    return (
        f"{correct:,} of {images:,} test images right, {float(test['accuracy']):.2%}"
        f" (95% interval {low:.2%} to {high:.2%}), in float32"
    )
