"""`tcc run`: classify images with the artifact of a bundle."""

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
    from tcc.compiler.driver.guard_stream import GuardStream
    from tcc.compiler.driver.predictions import Prediction
    from tcc.compiler.guard.stream import Reading
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.graph import Input

BATCH = 8
"""Most images in one batch."""
BATCH_BYTES = 1 << 26
"""A batch with more bytes of pixels than this is full."""

Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE", help="Image files, or folders of them.", show_default=False),
]
Top = Annotated[
    int, typer.Option("--top", metavar="N", min=1, help="Number of classes to print per image.")
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

    The artifact in the bundle runs. A program that was not built on this machine runs only with
    --trust.
    """
    from tcc.compiler.data.confined_images import DECODERS

    DECODERS.start()  # while the bundle and its runtime are loaded

    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.driver import guard_stream

    loaded_bundle, device = trusted_bundle.load(bundle, trust=program.trust, isa=program.isa)
    artifact_runs.check_images(loaded_bundle)
    manifest = loaded_bundle.manifest
    for notice in manifest.notices:
        report.warn_text(notice)
    paths = _expand_images(report, images)
    stream = guard_stream.open_stream(loaded_bundle, device)
    documents = []
    with report.track_stages() as stages:
        for index, (path, predictions, reading) in enumerate(
            _predict_images(report, loaded_bundle, device, paths, stream)
        ):
            _print(report, path, predictions, top)
            documents.append(_build_document(path, predictions))
            if reading:
                _report_reading(report, reading)
                documents[-1]["guard"] = _describe_reading(reading)
            stages("images", index + 1, len(paths))
    document: dict[str, Any] = {
        "bundle": str(bundle),
        "target": manifest.target,
        "images": documents,
    }
    if stream:
        report_alarm(report, stream)
        document["guard"] = {"alarm": stream.alarm.name.lower(), "text": stream.describe()}
    report.print_document(document)


def report_alarm(report: Report, stream: "GuardStream") -> None:
    """Warn of the alarm of a guard, if there is one; each image counts as one case."""
    from tcc.compiler.driver import guard_stream

    if text := stream.describe():
        report.warn_text(f"{text} ({guard_stream.describe_promise(stream.guard)})")


def _report_reading(report: Report, reading: "Reading") -> None:
    from tcc.compiler.driver import guard_stream

    if text := guard_stream.describe_reading(reading):
        report.print_text(f"  {text}")


def _describe_reading(reading: "Reading") -> dict[str, Any]:
    return {
        "unusual": reading.is_unusual,
        "feature": reading.feature,
        "picture": reading.picture,
        "layer": reading.layer,
    }


def _expand_images(report: Report, images: Sequence[Path]) -> list[Path]:
    """Return image files; a folder is replaced by its images, also those in subfolders, sorted."""
    from tcc.compiler.support.image_folders import list_images

    paths: list[Path] = []
    empty: list[Diagnostic] = []
    for path in images:
        if not os.path.isdir(path):
            paths.append(path)
            continue
        folder_listing = list_images(path)
        if not folder_listing.images:
            empty.append(folder_listing.make_empty_error("E0701", path))
            continue
        report.warn_grouped(folder_listing.collect_warnings())
        paths += folder_listing.images
    if empty:
        raise UserError(tuple(empty))
    return paths


def _predict_images(
    report: Report,
    bundle: "Bundle",
    device: "Device",
    paths: Sequence[Path],
    stream: "GuardStream | None",
) -> "Iterator[tuple[Path, list[Prediction], Reading | None]]":
    from tcc.compiler.driver.predictions import predict_by_artifact

    for batch, images in _iterate_batches(report, bundle.input, paths):
        readings = list(stream.judge_cases(images)) if stream else [None] * len(batch)
        predictions = predict_by_artifact(bundle, device, images)
        for path, outputs, reading in zip(batch, predictions, readings, strict=True):
            yield path, list(outputs.values()), reading


def _iterate_batches(
    report: Report, network_input: "Input", paths: Sequence[Path]
) -> "Iterator[tuple[Sequence[Path], list[np.ndarray]]]":
    """Yield batches of image files with their pixels; batches of large images are smaller."""
    start = 0
    batch: list[np.ndarray] = []
    for end, path in enumerate(paths, 1):
        batch.append(_read_image(report, network_input, path, paths[end : start + BATCH]))
        if end - start == BATCH or end == len(paths) or sum(a.nbytes for a in batch) > BATCH_BYTES:
            yield paths[start:end], batch
            start, batch = end, []


def _read_image(
    report: Report, network_input: "Input", path: Path, next_paths: Sequence[Path]
) -> "np.ndarray":
    """Return the pixels of an image file, and warn about lost information.

    Raises:
        UserError: The errors of this image and of the others in its batch.
    """
    try:
        return _decode_image(report, network_input, path)
    except UserError as error:
        problems = [*error.diagnostics]
    # Check the complete batch, so that a user can fix all broken images at once.
    for next_path in next_paths:
        try:
            _decode_image(report, network_input, next_path)
        except UserError as error:
            problems += error.diagnostics
    raise UserError(tuple(problems))


def _decode_image(report: Report, network_input: "Input", path: Path) -> "np.ndarray":
    from tcc.compiler.data import confined_images, image_files
    from tcc.compiler.data.dataset import check_image
    from tcc.compiler.support.image_folders import group_remarks

    # Read once: a pipe or a growing file would differ the second time.
    content = image_files.read_bytes(path)
    pixels = check_image(confined_images.decode(content, str(path)), network_input, str(path))
    report.warn_grouped(group_remarks([(str(path), confined_images.collect_remarks(content))]))
    return pixels


def _print(report: Report, path: Path, predictions: "Sequence[Prediction]", top: int) -> None:
    report.print_text(str(path))
    for prediction in predictions:
        output = prediction.output
        if len(predictions) > 1:
            report.print_text(f"  {output.name}")
        if prediction.values.ndim != 1:
            shape = "x".join(map(str, output.shape))
            low, high = prediction.values.min(), prediction.values.max()
            report.print_text(f"  {shape} values from {low:.4f} to {high:.4f}")
            continue
        ranked = prediction.ranked()
        width = max(len(label) for _, label, _ in ranked)
        for _, label, value in ranked[:top]:
            report.print_text(f"  {label:<{width}}  {value:.4f}")
        decided = prediction.decided()
        if decided is not None:
            names = ", ".join(prediction.labels[i] for i in decided) or "none"
            report.print_text(f"  decision: {names}")
        members = prediction.prediction_set()
        if members is not None:
            report.print_text(f"  set: {', '.join(prediction.labels[i] for i in members)}")
        if prediction.is_answered() is False:
            report.print_text("  no answer: the two largest outputs are too close")


def _build_document(path: Path, predictions: "Sequence[Prediction]") -> dict[str, Any]:
    return {
        "image": str(path),
        "outputs": {p.output.name: _describe_output(p) for p in predictions},
    }


def _describe_output(prediction: "Prediction") -> Mapping[str, Any]:
    output = prediction.output
    document: dict[str, Any] = {"activation": output.activation, "shape": list(output.shape)}
    if prediction.values.ndim == 1:
        document["classes"] = [
            {"index": i, "label": label if output.labels else None, "value": _to_json_number(value)}
            for i, label, value in prediction.ranked()
        ]
        if prediction.point:
            document["temperature"] = prediction.point.temperature
        decided = prediction.decided()
        if decided is not None:
            document["decision"] = [{"index": i, "label": prediction.labels[i]} for i in decided]
        members = prediction.prediction_set()
        if members is not None:
            document["set"] = [{"index": i, "label": prediction.labels[i]} for i in members]
        if (is_answered := prediction.is_answered()) is not None:
            document["answered"] = is_answered
    document["raw"] = [_to_json_number(float(v)) for v in prediction.raw.reshape(-1)]
    return document


def _to_json_number(number: float) -> float | None:
    """Return a number for JSON; None if it is not finite."""
    return number if math.isfinite(number) else None
