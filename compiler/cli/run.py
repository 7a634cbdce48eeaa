"""`tcc run`: classes and probabilities of images, by a bundle's own artifact."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import Json, Quiet, Verbose
from tcc.compiler.cli.report import Report
from tcc.compiler.source import Diagnostic, UserError, fail, whole_file

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.bundle import Bundle
    from tcc.compiler.cli.devices import Bound
    from tcc.compiler.manifest import Result

BATCH = 8
"""Images handed to the artifact at a time, which bounds the memory."""

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `tcc build` wrote.")
]
Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE", help="Image files, or folders of them.", show_default=False),
]
Top = Annotated[
    int, typer.Option("--top", metavar="N", min=1, help="How many classes to print of an image.")
]


@dataclass(frozen=True)
class Prediction:
    """One output of one image: raw values, and the probabilities that its activation makes."""

    output: "Result"
    raw: "np.ndarray"
    values: "np.ndarray"

    def ranked(self) -> list[tuple[int, str, float]]:
        """Return class index, label and value, the largest value first."""
        order = sorted(range(len(self.values)), key=lambda i: (-self.values[i], i))
        labels = self.output.labels or tuple(map(str, range(len(self.values))))
        return [(i, labels[i], float(self.values[i])) for i in order]


def run(
    bundle: BundleArgument,
    images: Images,
    top: Top = 5,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Classify images with a bundle.

    It runs the program in the bundle: take only those that you trust.
    """
    report = Report(json, quiet, verbose)

    from tcc.compiler import bundle as bundles
    from tcc.compiler.cli import devices

    found = bundles.read(bundle)
    about = found.manifest
    device = devices.find(about.target, whole_file(str(bundle / "manifest.json")))
    if about.input.preprocess is None:
        raise fail("E0625", "this network does not take an image", whole_file(str(bundle)))
    if about.weights.notice:
        report.notice(about.weights.notice)
    paths = _expanded(images)
    listed = []
    with report.stages() as stages:
        for index, (path, predictions) in enumerate(_predicted(found, device, paths)):
            _print(report, path, predictions, top)
            listed.append(_document(path, predictions))
            stages("images", index + 1, len(paths))
    report.document({"bundle": str(bundle), "target": about.target, "images": listed})


def _expanded(images: Sequence[Path]) -> list[Path]:
    """Return image files; a folder stands for those in it and below, sorted."""
    from tcc.compiler import known

    paths: list[Path] = []
    empty: list[Diagnostic] = []
    for path in images:
        below = known.images_below(path) if os.path.isdir(path) else (path,)
        if not below:
            empty.append(Diagnostic("E0701", "no image in this folder", whole_file(str(path))))
        paths += below
    if empty:
        raise UserError(tuple(empty))
    return paths


def _predicted(
    bundle: "Bundle", device: "Bound", paths: Sequence[Path]
) -> "Iterator[tuple[Path, list[Prediction]]]":
    from tcc.compiler.activations import applied

    outputs = bundle.manifest.outputs
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        images = _read(batch)
        for path, raw in zip(batch, device.run(bundle, images), strict=True):
            yield (
                path,
                [Prediction(o, raw[o.name], applied(o.activation, raw[o.name])) for o in outputs],
            )


def _read(paths: Sequence[Path]) -> "list[np.ndarray]":
    """Return the pixels of image files, or raise what is wrong with all of them."""
    from tcc.compiler import images

    found = []
    problems: list[Diagnostic] = []
    for path in paths:
        try:
            found.append(images.read(path))
        except UserError as error:
            problems += error.diagnostics
    if problems:
        raise UserError(tuple(problems))
    return found


def _print(report: Report, path: Path, predictions: Sequence[Prediction], top: int) -> None:
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


def _document(path: Path, predictions: Sequence[Prediction]) -> dict[str, Any]:
    return {"image": str(path), "outputs": {p.output.name: _output(p) for p in predictions}}


def _output(prediction: Prediction) -> Mapping[str, Any]:
    output = prediction.output
    found: dict[str, Any] = {"activation": output.activation, "shape": list(output.shape)}
    if prediction.values.ndim == 1:
        found["classes"] = [
            {"index": i, "label": label if output.labels else None, "value": _number(value)}
            for i, label, value in prediction.ranked()
        ]
    found["raw"] = [_number(float(v)) for v in prediction.raw.reshape(-1)]
    return found


def _number(value: float) -> float | None:
    """Return a number as JSON has it: none that is not finite."""
    return value if math.isfinite(value) else None
