"""`tcc run`: classes and probabilities of images, by a bundle's own artifact."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import BundleArgument, ProgramOptions, ReportOptions
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.driver.predictions import Prediction
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.graph import Input

BATCH = 8
"""Most images handed to the artifact at a time."""
BATCH_BYTES = 1 << 26
"""Bytes of pixels beyond which a batch is full."""

Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE", help="Image files, or folders of them.", show_default=False),
]
Top = Annotated[
    int, typer.Option("--top", metavar="N", min=1, help="How many classes to print of an image.")
]


def run(
    bundle: BundleArgument,
    images: Images,
    top: Top = 5,
    *,
    program: ProgramOptions,
    report: ReportOptions,
) -> None:
    """Classify images with a bundle.

    It runs the artifact in the bundle; a program that was not built here only with --trust.
    """
    from tcc.compiler.data.confined_images import DECODERS

    DECODERS.start()  # while the bundle and its runtime are loaded

    from tcc.compiler.bundle import artifact_runs

    found, device = trusted_bundle.load(bundle, trust=program.trust, isa=program.isa)
    artifact_runs.check_images(found)
    about = found.manifest
    for notice in about.notices:
        report.notice(notice)
    paths = _expanded(report, images)
    listed = []
    with report.stages() as stages:
        for index, (path, predictions) in enumerate(_predicted(report, found, device, paths)):
            _print(report, path, predictions, top)
            listed.append(_document(path, predictions))
            stages("images", index + 1, len(paths))
    report.document({"bundle": str(bundle), "target": about.target, "images": listed})


def _expanded(report: Report, images: Sequence[Path]) -> list[Path]:
    """Return image files; a folder stands for those in it and below, sorted."""
    from tcc.compiler.support.image_folders import listing

    paths: list[Path] = []
    empty: list[Diagnostic] = []
    for path in images:
        if not os.path.isdir(path):
            paths.append(path)
            continue
        found = listing(path)
        if not found.images:
            empty.append(found.nothing("E0701", path))
            continue
        report.warnings(found.warnings())
        paths += found.images
    if empty:
        raise UserError(tuple(empty))
    return paths


def _predicted(
    report: Report, bundle: "Bundle", device: "Device", paths: Sequence[Path]
) -> "Iterator[tuple[Path, list[Prediction]]]":
    from tcc.compiler.driver.predictions import predicted

    for batch, images in _batches(report, bundle.input, paths):
        for path, found in zip(batch, predicted(bundle, device, images), strict=True):
            yield path, list(found.values())


def _batches(
    report: Report, source: "Input", paths: Sequence[Path]
) -> "Iterator[tuple[Sequence[Path], list[np.ndarray]]]":
    """Yield image files with their pixels, some at a time, fewer where they are large."""
    first = 0
    found: list[np.ndarray] = []
    for end, path in enumerate(paths, 1):
        found.append(_read(report, source, path, paths[end : first + BATCH]))
        if end - first == BATCH or end == len(paths) or sum(a.nbytes for a in found) > BATCH_BYTES:
            yield paths[first:end], found
            first, found = end, []


def _read(report: Report, source: "Input", path: Path, others: Sequence[Path]) -> "np.ndarray":
    """Return the pixels of an image file that the network takes, and say what is lost of it.

    Raises:
        UserError: What is wrong with this one, and with others that were to come with it.
    """
    try:
        return _taken(report, source, path)
    except UserError as error:
        problems = [*error.diagnostics]
    # Of all images that were to run together, so that a folder with two broken ones is mended in
    # one go.
    for other in others:
        try:
            _taken(report, source, other)
        except UserError as error:
            problems += error.diagnostics
    raise UserError(tuple(problems))


def _taken(report: Report, source: "Input", path: Path) -> "np.ndarray":
    from tcc.compiler.data import confined_images, image_files
    from tcc.compiler.data.dataset import fitting
    from tcc.compiler.support.image_folders import remarks

    # Read once: a pipe or a file that grows would be another one the second time.
    data = image_files.contents(path)
    pixels = fitting(confined_images.decode(data, str(path)), source, str(path))
    report.warnings(remarks([(str(path), confined_images.collect_remarks(data))]))
    return pixels


def _print(report: Report, path: Path, predictions: "Sequence[Prediction]", top: int) -> None:
    report.text(str(path))
    for prediction in predictions:
        output = prediction.output
        if len(predictions) > 1:
            report.text(f"  {output.name}")
        if prediction.values.ndim != 1:
            shape = "x".join(map(str, output.shape))
            low, high = prediction.values.min(), prediction.values.max()
            report.text(f"  {shape} values from {low:.4f} to {high:.4f}")
            continue
        ranked = prediction.ranked()
        width = max(len(label) for _, label, _ in ranked)
        for _, label, value in ranked[:top]:
            report.text(f"  {label:<{width}}  {value:.4f}")
        decided = prediction.decided()
        if decided is not None:
            names = ", ".join(prediction.labels[i] for i in decided) or "none"
            report.text(f"  decision: {names}")


def _document(path: Path, predictions: "Sequence[Prediction]") -> dict[str, Any]:
    return {"image": str(path), "outputs": {p.output.name: _output(p) for p in predictions}}


def _output(prediction: "Prediction") -> Mapping[str, Any]:
    output = prediction.output
    found: dict[str, Any] = {"activation": output.activation, "shape": list(output.shape)}
    if prediction.values.ndim == 1:
        found["classes"] = [
            {"index": i, "label": label if output.labels else None, "value": _number(value)}
            for i, label, value in prediction.ranked()
        ]
        if prediction.point:
            found["temperature"] = prediction.point.temperature
        decided = prediction.decided()
        if decided is not None:
            found["decision"] = [{"index": i, "label": prediction.labels[i]} for i in decided]
    found["raw"] = [_number(float(v)) for v in prediction.raw.reshape(-1)]
    return found


def _number(value: float) -> float | None:
    """Return a number as JSON has it: none that is not finite."""
    return value if math.isfinite(value) else None
