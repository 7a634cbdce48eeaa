"""The report page of a bundle, `report.html`: self-contained, for readers who assess the bundle.

It starts with accuracy, cost, and the effect of int8. Hashes and versions come last.

It has nothing that depends on the machine of the build: for float outputs it has the tolerance, not
the measured difference. Its images are the figure of the graph, and charts of probabilities.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tcc.compiler.bundle import bundle_folder, manifest, model_card
from tcc.compiler.bundle.bundle_folder import BundleContents
from tcc.compiler.bundle.manifest import Manifest
from tcc.compiler.data.training_record import TrainingRecord
from tcc.compiler.driver import build_plan, int8_program
from tcc.compiler.driver.report_html import (
    escape_text,
    render_confusion,
    render_document,
    render_section,
    render_table,
)
from tcc.compiler.driver.report_probabilities import render_curves, render_reliability
from tcc.compiler.driver.target_agreement import ComparedTarget
from tcc.compiler.figures.graph_image import FigureOptions, draw
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph
from tcc.compiler.quant import calibration_document

NAME = "report.html"
MAX_BYTES = 1_000_000
"""Largest page. If it is larger, the figure is left out, and then the table of layers."""
NO_DEVICE = "<strong>Not a medical device.</strong> Do not base a diagnosis on the results."
MAX_MISTAKES = 8
"""Most pairs of classes in the list of mistakes."""
MAX_BAR_SNR = 60.0
"""Signal-to-noise ratio of a full bar, in dB."""


def add_page(
    contents: BundleContents,
    graph: Graph,
    compared: ComparedTarget,
    training: TrainingRecord | None,
) -> BundleContents:
    """Return a bundle with its report page added to its files.

    Args:
        contents: The bundle without the page.
        graph: The network as written, for the figure.
        compared: How its artifact agreed with the reference.
        training: The training record of its weights, if known.
    """
    page = _render_page(_Subject(contents, graph, compared, training))
    (page_file,) = bundle_folder.list_files({NAME: page}, frozenset())
    files = tuple(sorted((*contents.manifest.files, page_file), key=lambda file: file.path))
    sealed_manifest = manifest.seal_manifest(replace(contents.manifest, files=files))
    return replace(contents, manifest=sealed_manifest, files={**contents.files, NAME: page})


@dataclass(frozen=True, slots=True)
class _Subject:
    """The subject of a page."""

    contents: BundleContents
    graph: Graph
    compared: ComparedTarget
    training: TrainingRecord | None


def _render_page(subject: _Subject) -> bytes:
    """Return the page, without parts that would make it too large."""
    graph_image = _render_graph(subject.graph)
    for picture, layers in ((graph_image, True), ("", True), ("", False)):
        page = _render_document(subject, picture, layers=layers).encode()
        if len(page) <= MAX_BYTES:
            break
    return page


def _render_document(subject: _Subject, picture: str, *, layers: bool) -> str:
    bundle_manifest = subject.contents.manifest
    title = (
        f"{bundle_manifest.model.name} for {bundle_manifest.target} at {bundle_manifest.precision}"
    )
    parts = (
        _render_head(bundle_manifest, title),
        render_section("Summary", _render_summary(subject)),
        render_section("Accuracy by class", _render_classes(bundle_manifest, subject.training)),
        _render_probabilities(bundle_manifest, subject.training),
        render_section("int8 against fp32", _render_int8(subject.contents)),
        render_section("Agreement", _render_agreement(bundle_manifest, subject.compared)),
        render_section("Cost", _render_cost(subject.graph)),
        render_section("Network", picture or "<p>The figure is too large for this page.</p>"),
        _render_layer_section(subject.contents) if layers else "",
        render_section("Training", _render_training(subject.training)),
        render_section("Goldens", _render_goldens(bundle_manifest)),
        render_section("Identity", _render_identity(bundle_manifest)),
        render_section("Files", _render_sizes(bundle_manifest)),
        render_section(
            "Built with",
            render_table(("library", "version"), bundle_manifest.made_with.items(), ""),
        ),
    )
    return render_document(title, "".join(parts))


def _render_head(bundle_manifest: Manifest, title: str) -> str:
    parts = [f"<h1>{escape_text(title)}</h1>\n", f"<p>{NO_DEVICE}</p>\n"]
    if bundle_manifest.model.doc:
        parts.append(f"<p>{escape_text(bundle_manifest.model.doc)}</p>\n")
    parts += [f'<p class="warn">{escape_text(notice)}</p>\n' for notice in bundle_manifest.notices]
    parts += [f'<p class="warn">{escape_text(f"{w.code}: {w.message}: {w.found}")}</p>\n'
             for w in bundle_manifest.warnings]  # fmt: skip
    return "".join(parts)


def _render_summary(subject: _Subject) -> str:
    """Return the summary table; rows for unknown values name the command that measures them."""
    bundle_manifest, costs = subject.contents.manifest, compute_cost(subject.graph)
    accuracy = model_card.list_accuracy(bundle_manifest, subject.training)
    rows = [(title, text.replace("`", "")) for title, text, _ in accuracy]
    if bundle_manifest.calibration and bundle_manifest.calibration.measured:
        measured = bundle_manifest.calibration.measured
        for name, quality in measured.outputs.items():
            text = ", ".join(quality.describe())
            rows.append((f"int8 against fp32, {name}", f"{text}, over {quality.images:,} images"))
    memory = "not known for this target"
    if bundle_manifest.memory:
        memory = (
            f"{bundle_manifest.memory.arena:,} bytes, and {bundle_manifest.memory.weights:,} "
            "bytes of constants"
        )
    rows += [
        ("working memory (RAM)", memory),
        ("model files (flash)", f"{bundle_manifest.model_bytes:,} bytes"),
        ("work for one image", f"{costs.macs:,} multiply-accumulates"),
        ("time for one image", "not measured by a build: tcc bench measures it on the target"),
        ("misclassified images", "not in a bundle: tcc eval counts them on your images"),
    ]
    return render_table(("", ""), rows, "")


def _render_classes(bundle_manifest: Manifest, training: TrainingRecord | None) -> str:
    """Return the float32 accuracy of each class on the test images, with a confusion matrix."""
    sentences = list(model_card.list_classes(bundle_manifest, training))
    if training is None or not sentences:
        return "<p>Not known: no training record of this network has it.</p>\n"
    list_html = "".join(f"<li>{escape_text(sentence)}</li>\n" for sentence in sentences)
    matrix = render_confusion(training.classes, training.confusion) if training.confusion else ""
    mistakes = sorted(
        (-count, actual, predicted)
        for actual, row in zip(training.classes, training.confusion, strict=False)
        for predicted, count in zip(training.classes, row, strict=True)
        if count and actual != predicted
    )
    rows = [
        (actual, predicted, f"{-count:,}") for count, actual, predicted in mistakes[:MAX_MISTAKES]
    ]
    worst = render_table(
        ("true class", "predicted class", "images"), rows, "most frequent mistakes", numbers=(2,)
    )
    intro = (
        "<p>On the test images of the training, in float32, with 95 % confidence intervals.</p>\n"
    )
    return f"{intro}{matrix}<ul>\n{list_html}</ul>\n{worst if rows else ''}"


def _render_probabilities(bundle_manifest: Manifest, training: TrainingRecord | None) -> str:
    """Return the calibration errors and decision curves of the training's test images, if known."""
    if training is None or training.spec != bundle_manifest.model.spec:
        return ""
    return "".join(
        (
            render_section("Calibration of probabilities", render_reliability(training.reliability))
            if training.reliability
            else "",
            render_section("Decision curves", render_curves(training.curves))
            if training.curves
            else "",
        )
    )


def _render_training(training: TrainingRecord | None) -> str:
    if training is None:
        return "<p>There is no training record for these weights.</p>\n"
    sentences = (*training.images, *training.method, *training.limits)
    list_html = "".join(f"<li>{escape_text(sentence)}</li>\n" for sentence in sentences)
    return f"<p>From {escape_text(training.source)}.</p>\n<ul>\n{list_html}</ul>\n"


def _render_identity(bundle_manifest: Manifest) -> str:
    rows = [
        ("spec", bundle_manifest.model.spec),
        ("weights", f"{bundle_manifest.weights.digest} ({bundle_manifest.weights.origin})"),
        *((f"parameter {name}", value) for name, value in bundle_manifest.model.params.items()),
        (
            "input",
            f"{bundle_manifest.input.name}: {_format_shape(bundle_manifest.input.shape)} "
            f"{bundle_manifest.input.dtype}",
        ),
        *(
            (
                f"output {o.name}",
                f"{_format_shape(o.shape)}, {o.kind}, {o.activation}"
                f"{': ' if o.labels else ''}{', '.join(o.labels)}",
            )
            for o in bundle_manifest.outputs
        ),
    ]
    return render_table(("", ""), rows, "")


def _render_agreement(bundle_manifest: Manifest, compared: ComparedTarget) -> str:
    if compared.unchecked:
        reason = escape_text(compared.unchecked)
        return f'<p class="warn">Not compared with the reference: {reason}.</p>\n'
    tolerance = bundle_manifest.goldens.tolerance
    exact = [(output.values, output.differing) for output in compared.outputs if not output.allowed]
    loose = sum(output.values for output in compared.outputs if output.allowed)
    exact_layers = [layer for layer in compared.layers or () if layer.exact]
    rows = [("inputs: goldens and images", f"{compared.inputs:,}")]
    if exact:
        total, differing = (sum(column) for column in zip(*exact, strict=True))
        rows.append(("outputs that are not bit-exact", f"{differing:,} of {total:,}"))
    if loose:
        rows.append(
            (
                f"outputs within {tolerance.relative:.0e} of the largest magnitude",
                f"{loose:,} of {loose:,}",
            )
        )
    if compared.layers is not None:
        off = sum(layer.differing for layer in exact_layers)
        rows.append(("compared layers", f"{len(exact_layers):,}"))
        rows.append(
            (
                "different values in these layers",
                f"{off:,} of {sum(shown_layer.values for shown_layer in exact_layers):,}",
            )
        )
    note = f"<p>{escape_text(compared.float_notice)}</p>\n" if compared.float_notice else ""
    file = compared.device.simulated_file
    subject = f"{file} in ONNX Runtime, not the NPU," if file else "the artifact"
    return render_table(("", ""), rows, f"{subject} against the reference executor") + note


def _render_sizes(bundle_manifest: Manifest) -> str:
    rows = [(file.path, f"{file.bytes:,}", file.sha256) for file in bundle_manifest.files]
    total = sum(file.bytes for file in bundle_manifest.files)
    model_bytes = sum(
        file.bytes for file in bundle_manifest.files if file.path.startswith("model/")
    )
    caption = f"model files: {model_bytes:,} bytes; all files except this page: {total:,} bytes"
    return render_table(("file", "bytes", "SHA-256"), rows, caption, numbers=(1,))


def _render_int8(contents: BundleContents) -> str:
    calibration = contents.manifest.calibration
    if calibration is None:
        return "<p>This bundle has no int8 model.</p>\n"
    intro = f"<p>Scales: {escape_text(calibration.method)}, {calibration.images:,} images.</p>\n"
    parts = [intro, _render_measured(contents), _render_expected(contents)]
    if calibration.in_float:
        parts.append(f"<p>Layers in float: {escape_text(', '.join(calibration.in_float))}.</p>\n")
    return "".join(parts)


def _render_layer_section(contents: BundleContents) -> str:
    if int8_program.REPORT not in contents.files:
        return ""
    return render_section(
        "Layers", _render_layers(json.loads(contents.files[int8_program.REPORT])["layers"])
    )


def _render_measured(contents: BundleContents) -> str:
    calibration = contents.manifest.calibration
    if calibration is None or calibration.measured is None:
        return '<p class="warn">The accuracy of the int8 model was not measured.</p>\n'
    rows = [
        (
            name,
            *(
                _format_number(figure, 6)
                for figure in (q.cosine, q.least_cosine, q.correlation, q.error, q.agreement)
            ),
        )
        for name, q in calibration.measured.outputs.items()
    ]
    head = (
        "output",
        "mean cosine",
        "lowest cosine",
        "correlation",
        "relative error",
        "equal decisions",
    )
    images = max((q.images for q in calibration.measured.outputs.values()), default=0)
    caption = f"over {images:,} images {calibration.measured.where}"
    return render_table(head, rows, caption, numbers=range(1, 6))


def _render_expected(contents: BundleContents) -> str:
    """Return the loss that the calibration expects on unseen images."""
    losses = calibration_document.decode(
        contents.files[build_plan.CALIBRATION], build_plan.CALIBRATION
    ).expected
    rows = [
        (
            name,
            f"{e.loss:.2e}",
            f"{e.low:.2e} to {e.high:.2e}",
            f"{e.worst:.2e}" if e.limits else "-",
            f"{e.images:,}",
        )
        for name, e in losses.items()
    ]
    if not rows:
        return "<p>The calibration had too few images to estimate the loss on others.</p>\n"
    head = (
        "output",
        "mean loss",
        "95 % confidence interval",
        "exceeded by at most 1 in 100 images",
        "images",
    )
    return render_table(head, rows, "expected loss on unseen images", numbers=range(1, 5))


def _render_layers(layers: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            layer["name"],
            layer["op"],
            f"{layer['cosine']:.6f}",
            _format_number(layer["snr"], 1),
            f"{layer['error']:.2f}",
            f"{layer['saturated']:.3%}",
            _render_bar(layer["snr"]),
        )
        for layer in layers
    ]
    head = ("layer", "op", "cosine", "SNR, dB", "max. error, LSB", "saturated", "")
    caption = "int8 against fp32 by layer, in execution order; the bar shows the SNR up to 60 dB"
    return render_table(head, rows, caption, numbers=range(2, 6), html_columns=(6,))


def _render_bar(snr: float | None) -> str:
    width = 0.0 if snr is None else max(0.0, min(snr / MAX_BAR_SNR, 1.0))
    return f'<span class="bar" aria-hidden="true" style="width:{width:.0%}"></span>'


def _render_cost(graph: Graph) -> str:
    costs = compute_cost(graph)
    rows = [
        ("layers", f"{len(costs.rows):,}"),
        ("parameters", f"{costs.params:,}"),
        ("multiply-accumulates for one image", f"{costs.macs:,}"),
        ("weight memory in float32, bytes", f"{costs.weight_bytes:,}"),
        ("peak activation memory in float32, bytes", f"{costs.peak_bytes:,}"),
    ]
    return render_table(("", ""), rows, "of the network as written", numbers=(1,))


def _render_goldens(bundle_manifest: Manifest) -> str:
    goldens = bundle_manifest.goldens
    rows = [(case.name, case.source, ", ".join(case.outputs)) for case in goldens.cases]
    tolerance = goldens.tolerance
    allowed = (
        f"within {tolerance.relative:.0e} of the largest magnitude"
        if tolerance.relative
        else "bit for bit"
    )
    caption = (
        f"from the reference executor {goldens.executor}; to be reproduced {allowed}:"
        f" {tolerance.reason}"
    )
    return render_table(("golden", "source", "outputs"), rows, caption)


def _render_graph(graph: Graph) -> str:
    encoded = base64.b64encode(draw(graph, FigureOptions()).encode()).decode()
    alt_text = f"layers of {graph.name} from input to output; graph/float.txt has them as text"
    return (
        '<div class="box drawn" tabindex="0" role="region" aria-label="figure of the network">'
        f'<img alt="{escape_text(alt_text)}" src="data:image/svg+xml;base64,{encoded}"></div>\n'
    )


def _format_number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
