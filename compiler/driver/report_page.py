"""`report.html` of a bundle: one page that needs nothing else, for whoever has to judge it.

It begins with what a user asks: how good the network is, what it takes, what int8 changes. Hashes
and versions come last.

It says what does not depend on the processor that built: of floats their tolerance, and not by how
much they happened to be off. It holds no image but the drawing of the graph.
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
from tcc.compiler.driver.report_html import confusion, document, plain, section, table
from tcc.compiler.driver.target_agreement import ComparedTarget
from tcc.compiler.figures.graph_picture import PictureOptions, draw
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph
from tcc.compiler.quant import calibration_document

NAME = "report.html"
MAX_BYTES = 1_000_000
"""Largest page; the picture, and then the table of layers, is left out of one that were larger."""
NO_DEVICE = "<strong>Not a medical device.</strong> No diagnosis may rest on what is shown here."
MOST_MISTAKES = 8
"""Most pairs of classes of which mistakes are listed."""
LOUDEST = 60.0
"""Signal to noise, in dB, that fills a bar."""


def added(
    contents: BundleContents,
    graph: Graph,
    found: ComparedTarget,
    training: TrainingRecord | None,
) -> BundleContents:
    """Return a bundle with its page, which is one of its files.

    Args:
        contents: The bundle without the page.
        graph: The network as written, which is drawn.
        found: How its artifact agreed with the reference.
        training: What is known of the training of its weights.
    """
    data = _page(_Subject(contents, graph, found, training))
    (own,) = bundle_folder.listed({NAME: data}, frozenset())
    files = tuple(sorted((*contents.manifest.files, own), key=lambda file: file.path))
    whole = manifest.sealed(replace(contents.manifest, files=files))
    return replace(contents, manifest=whole, files={**contents.files, NAME: data})


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a page is about."""

    contents: BundleContents
    graph: Graph
    compared: ComparedTarget
    training: TrainingRecord | None


def _page(subject: _Subject) -> bytes:
    """Return the page, without what makes it too large."""
    drawn = _drawing(subject.graph)
    for picture, layers in ((drawn, True), ("", True), ("", False)):
        page = _document(subject, picture, layers=layers).encode()
        if len(page) <= MAX_BYTES:
            break
    return page


def _document(subject: _Subject, picture: str, *, layers: bool) -> str:
    about = subject.contents.manifest
    title = f"{about.model.name} for {about.target} at {about.precision}"
    parts = (
        _head(about, title),
        section("At a glance", _glance(subject)),
        section("Accuracy by class", _classes(about, subject.training)),
        section("Integers against floats", _integers(subject.contents)),
        section("Agreement", _agreement(about, subject.compared)),
        section("Cost", _cost(subject.graph)),
        section("Network", picture or "<p>The drawing is too large for this page.</p>"),
        _layer_section(subject.contents) if layers else "",
        section("Training", _training(subject.training)),
        section("Goldens", _goldens(about)),
        section("What it is made of", _identity(about)),
        section("Files", _sizes(about)),
        section("Made with", table(("library", "version"), about.made_with.items(), "")),
    )
    return document(title, "".join(parts))


def _head(about: Manifest, title: str) -> str:
    parts = [f"<h1>{plain(title)}</h1>\n", f"<p>{NO_DEVICE}</p>\n"]
    if about.model.doc:
        parts.append(f"<p>{plain(about.model.doc)}</p>\n")
    parts += [f'<p class="warn">{plain(notice)}</p>\n' for notice in about.notices]
    parts += [f'<p class="warn">{plain(f"{w.code}: {w.message}: {w.found}")}</p>\n'
             for w in about.warnings]  # fmt: skip
    return "".join(parts)


def _glance(subject: _Subject) -> str:
    """Return what a user asks first; what is not known says so, and how to learn it."""
    about, costs = subject.contents.manifest, cost(subject.graph)
    accuracy = model_card.list_accuracy(about, subject.training)
    rows = [(what, said.replace("`", "")) for what, said, _ in accuracy]
    if about.calibration and about.calibration.measured:
        measured = about.calibration.measured
        for name, quality in measured.outputs.items():
            said = ", ".join(quality.describe())
            rows.append((f"int8 against fp32, {name}", f"{said}, over {quality.images:,} images"))
    memory = "not known for this target"
    if about.memory:
        memory = f"{about.memory.arena:,} bytes, and {about.memory.weights:,} of constants"
    rows += [
        ("working memory (RAM)", memory),
        ("the target's files (flash)", f"{about.model_bytes:,} bytes"),
        ("work for one image", f"{costs.macs:,} multiply-accumulates"),
        ("time for one image", "not measured by a build: tcc bench measures it on the target"),
        ("images that it gets wrong", "no bundle holds any: tcc eval counts them on yours"),
    ]
    return table(("", ""), rows, "")


def _classes(about: Manifest, training: TrainingRecord | None) -> str:
    """Return the confusion matrix of the training's test images, in float, where it is known."""
    sentences = list(model_card.list_classes(about, training))
    if training is None or not sentences:
        return "<p>Not known: no training of this very network says it.</p>\n"
    listed = "".join(f"<li>{plain(sentence)}</li>\n" for sentence in sentences)
    matrix = confusion(training.classes, training.confusion) if training.confusion else ""
    mistakes = sorted(
        (-count, of_it, taken)
        for of_it, row in zip(training.classes, training.confusion, strict=False)
        for taken, count in zip(training.classes, row, strict=True)
        if count and of_it != taken
    )
    rows = [(of_it, taken, f"{-count:,}") for count, of_it, taken in mistakes[:MOST_MISTAKES]]
    worst = table(("class", "taken for", "images"), rows, "most frequent mistakes", numbers=(2,))
    said = "<p>On the test images of the training, in float32.</p>\n"
    return f"{said}{matrix}<ul>\n{listed}</ul>\n{worst if rows else ''}"


def _training(training: TrainingRecord | None) -> str:
    if training is None:
        return "<p>Nothing is known of the training of these weights.</p>\n"
    sentences = (*training.images, *training.method, *training.limits)
    listed = "".join(f"<li>{plain(sentence)}</li>\n" for sentence in sentences)
    return f"<p>By {plain(training.source)}.</p>\n<ul>\n{listed}</ul>\n"


def _identity(about: Manifest) -> str:
    rows = [
        ("spec", about.model.spec),
        ("weights", f"{about.weights.digest} ({about.weights.origin})"),
        *((f"parameter {name}", value) for name, value in about.model.params.items()),
        ("input", f"{about.input.name}: {_shape(about.input.shape)} {about.input.dtype}"),
        *((f"output {o.name}", f"{_shape(o.shape)}, {o.kind}, {o.activation}"
           f"{': ' if o.labels else ''}{', '.join(o.labels)}") for o in about.outputs),
    ]  # fmt: skip
    return table(("", ""), rows, "")


def _agreement(about: Manifest, found: ComparedTarget) -> str:
    if found.unchecked:
        return f'<p class="warn">Not compared with the reference: {plain(found.unchecked)}.</p>\n'
    near = about.goldens.tolerance
    exact = [(one.values, one.differing) for one in found.outputs if not one.allowed]
    loose = sum(one.values for one in found.outputs if one.allowed)
    shown = [layer for layer in found.layers or () if layer.exact]
    rows = [("inputs: goldens and images", f"{found.inputs:,}")]
    if exact:
        values, differing = (sum(each) for each in zip(*exact, strict=True))
        rows.append(("outputs that differ by any bit", f"{differing:,} of {values:,}"))
    if loose:
        rows.append(
            (f"outputs within {near.relative:.0e} of the largest", f"{loose:,} of {loose:,}")
        )
    if found.layers is not None:
        off = sum(layer.differing for layer in shown)
        rows.append(("layers that were looked into", f"{len(shown):,}"))
        rows.append(
            ("levels of theirs that differ", f"{off:,} of {sum(x.values for x in shown):,}")
        )
    said = f"<p>{plain(found.floats)}</p>\n" if found.floats else ""
    file = found.device.simulated_file
    subject = f"{file} in ONNX Runtime, not the NPU," if file else "the artifact"
    return table(("", ""), rows, f"{subject} beside the reference executor") + said


def _sizes(about: Manifest) -> str:
    rows = [(file.path, f"{file.bytes:,}", file.sha256) for file in about.files]
    total = sum(file.bytes for file in about.files)
    own = sum(file.bytes for file in about.files if file.path.startswith("model/"))
    said = f"{own:,} bytes of the target's files, {total:,} with goldens and all but this page"
    return table(("file", "bytes", "SHA-256"), rows, said, numbers=(1,))


def _integers(contents: BundleContents) -> str:
    about = contents.manifest.calibration
    if about is None:
        return "<p>This bundle has no integers.</p>\n"
    said = f"<p>Scales by {plain(about.method)} from {about.images:,} images.</p>\n"
    parts = [said, _measured(contents), _expected(contents)]
    if about.in_float:
        parts.append(f"<p>In float: {plain(', '.join(about.in_float))}.</p>\n")
    return "".join(parts)


def _layer_section(contents: BundleContents) -> str:
    if int8_program.REPORT not in contents.files:
        return ""
    return section("Layers", _layers(json.loads(contents.files[int8_program.REPORT])["layers"]))


def _measured(contents: BundleContents) -> str:
    about = contents.manifest.calibration
    if about is None or about.measured is None:
        return '<p class="warn">How near they are to the floats was not measured.</p>\n'
    rows = [
        (
            name,
            *(
                _number(x, 6)
                for x in (q.cosine, q.least_cosine, q.correlation, q.error, q.agreement)
            ),
        )
        for name, q in about.measured.outputs.items()
    ]
    head = ("output", "mean cosine", "least", "correlation", "error", "same decision")
    images = max((q.images for q in about.measured.outputs.values()), default=0)
    said = f"over {images:,} images {about.measured.where}"
    return table(head, rows, said, numbers=range(1, 6))


def _expected(contents: BundleContents) -> str:
    """Return what the calibration expects to be lost on images that nobody has seen."""
    found = calibration_document.decode(
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
        for name, e in found.items()
    ]
    if not rows:
        return "<p>The calibration had too few images to say what others lose.</p>\n"
    head = ("output", "mean loss", "95 % interval", "1 in 100 at most loses more than", "images")
    return table(head, rows, "expected on images that nobody has seen", numbers=range(1, 5))


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            layer["name"],
            layer["op"],
            f"{layer['cosine']:.6f}",
            _number(layer["snr"], 1),
            f"{layer['error']:.2f}",
            f"{layer['saturated']:.3%}",
            _bar(layer["snr"]),
        )
        for layer in layers
    ]
    head = ("layer", "op", "cosine", "signal to noise, dB", "steps off", "saturated", "")
    return table(head, rows, "by layer, in order", numbers=range(2, 6), drawn=(6,))


def _bar(snr: float | None) -> str:
    width = 0.0 if snr is None else max(0.0, min(snr / LOUDEST, 1.0))
    return f'<span class="bar" aria-hidden="true" style="width:{width:.0%}"></span>'


def _cost(graph: Graph) -> str:
    found = cost(graph)
    rows = [
        ("layers", f"{len(found.rows):,}"),
        ("parameters", f"{found.params:,}"),
        ("multiply-accumulates for one image", f"{found.macs:,}"),
        ("bytes of weights in float32", f"{found.weight_bytes:,}"),
        ("most bytes of activations at once in float32", f"{found.peak_bytes:,}"),
    ]
    return table(("", ""), rows, "of the network as written", numbers=(1,))


def _goldens(about: Manifest) -> str:
    goldens = about.goldens
    rows = [(case.name, case.source, ", ".join(case.outputs)) for case in goldens.cases]
    near = goldens.tolerance
    allowed = f"within {near.relative:.0e} of the largest value" if near.relative else "to the bit"
    said = f"by {goldens.executor}; to be met {allowed}: {near.reason}"
    return table(("golden", "drawn from", "outputs"), rows, said)


def _drawing(graph: Graph) -> str:
    data = base64.b64encode(draw(graph, PictureOptions()).encode()).decode()
    said = f"layers of {graph.name} from input to output; graph/float.txt has them as text"
    return (
        '<div class="box drawn" tabindex="0" role="region" aria-label="drawing of the network">'
        f'<img alt="{plain(said)}" src="data:image/svg+xml;base64,{data}"></div>\n'
    )


def _number(value: float | None, places: int = 4) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
