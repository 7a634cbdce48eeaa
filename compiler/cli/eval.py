"""`tcc eval`: how well a network, or a bundle's artifact, tells labelled images apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.common_options import (
    ChosenSpec,
    Json,
    Quiet,
    Settings,
    SpecArgument,
    Strict,
    Verbose,
    choose,
    typed,
)
from tcc.compiler.cli.report import Report, Stages, TableCell
from tcc.compiler.cli.show_bundle import bundle_folder
from tcc.compiler.cli.weights_and_images import SeedOption, WeightsOption, synthetic, take
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.driver.evaluation import LabelledImages
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.reference.classification_metrics import Interval, Scores
    from tcc.compiler.support.project_file import Project

MATRIX = 12
"""Most classes whose confusion matrix is printed whole."""
CONFUSED = 10
"""Pairs of classes that are listed where it is not."""

LabelledOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Labelled images: a folder of class folders, or an .npz file with `labels`; without "
        "it, the project file's.",
    ),
]
Bootstrap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=10_000_000,
        show_default=False,
        help="Give an interval that holds the accuracy of 95 % of N resamples.",
    ),
]
BootstrapSeed = Annotated[
    int, typer.Option("--bootstrap-seed", metavar="N", min=0, help="Seed of the resamples.")
]


@dataclass(frozen=True)
class EvaluationReport:
    """How a network did on labelled images; `about` says what ran, for the document."""

    about: dict[str, Any]
    given: "LabelledImages"
    scores: "Scores"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, or their indices."""
        return self.given.output.labels or tuple(map(str, range(len(self.scores.classes))))


def evaluate(
    spec: SpecArgument = None,
    data: LabelledOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: Settings = None,
    strict: Strict = False,
    bootstrap: Bootstrap = None,
    bootstrap_seed: BootstrapSeed = 0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure accuracy, precision, recall and F1 on labelled images.

    SPEC may also be a bundle's folder: then its own artifact runs, so take only those that you
    trust. A spec runs in floats, by the reference executor.
    """
    report = Report(json, quiet, verbose)
    folder = bundle_folder(spec)
    with report.stages() as stages:
        stages("spec", 0, 1)
        if folder:
            _only_specs(weights, seed, settings)
            found = _of_bundle(report, stages, folder, data)
        else:
            chosen = choose(spec, settings, strict)
            found = _of_spec(report, stages, chosen, take(report, chosen, weights, seed), data)
        stages.end()
    within = None
    if bootstrap:
        from tcc.compiler.reference.classification_metrics import interval

        within = interval(found.scores.correct, found.scores.images, bootstrap, bootstrap_seed)
    _print(report, found, within)
    report.document(_document(found, within, stages))


def _only_specs(weights: Path | None, seed: int | None, settings: Sequence[str] | None) -> None:
    """Refuse options that a bundle has settled (E0601)."""
    given = {"--weights": weights, "--seed": seed, "--set": settings or None}
    for name, value in given.items():
        if value is not None:
            raise fail("E0601", f"{name} is for specs, and this is a bundle", typed(name))


def _of_bundle(report: Report, stages: Stages, folder: Path, data: Path | None) -> EvaluationReport:
    from tcc.compiler.cli import devices
    from tcc.compiler.driver import evaluation
    from tcc.compiler.support import project_file

    found, device = devices.load(folder)
    about = found.manifest
    if about.weights.notice:
        report.notice(about.weights.notice)
    given = _labelled(report, stages, project_file.find(Path()), data, about.outputs)
    scores = evaluation.by_artifact(found, device, given, stages)
    said = {"bundle": str(folder), "target": about.target, "precision": about.precision}
    return EvaluationReport(said, given, scores)


def _of_spec(
    report: Report, stages: Stages, chosen: ChosenSpec, weights: "WeightSource", data: Path | None
) -> EvaluationReport:
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.driver import evaluation
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.reference import float_program

    spec = chosen.spec
    given = _labelled(report, stages, chosen.project, data, bundle_folder.results(spec.graph))
    scores = evaluation.by_reference(Model(spec.graph, weights.tensors), given, stages)
    reference = f"reference ({float_program.NAME})"
    said = {"spec": spec.name, "target": reference, "precision": FP32.name}
    return EvaluationReport(said, given, scores)


def _labelled(
    report: Report, stages: Stages, project: "Project", path: Path | None, outputs: Any
) -> "LabelledImages":
    """Return the images that the command line names, or else the project file, with classes.

    Raises:
        UserError: There are none (E0616), or they are no labelled data set for the network.
    """
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import evaluation

    where = path or project.data
    if where is None:
        help = "give labelled images with --data: a folder of class folders"
        raise fail("E0616", "evaluate on which images?", typed("--data"), help=help)
    report.detail(f"images: {where}")
    stages("data", 0, 1)
    found = read(where)
    report.warnings(found.warnings)
    if synthetic(found):
        report.notice(f"the images in {where} are synthetic: a program drew them")
    return evaluation.labelled(found, outputs, where)


def _print(report: Report, found: EvaluationReport, within: "Interval | None") -> None:
    scores, labels = found.scores, found.labels
    text = f"accuracy {scores.accuracy:.2%}, {scores.correct:,} of {scores.images:,} images"
    if within:
        text += f" ({within.level:.0%} of resamples within {within.low:.2%} and {within.high:.2%})"
    report.text(text)
    if report.quiet:
        return
    rows = [
        (label, f"{c.rates.precision:.4f}", f"{c.rates.recall:.4f}", f"{c.rates.f1:.4f}", c.support)
        for label, c in zip(labels, scores.classes, strict=True)
        if c.occurs
    ]
    macro = scores.macro
    mean = (f"{macro.precision:.4f}", f"{macro.recall:.4f}", f"{macro.f1:.4f}")
    rows.append(("macro average", *mean, scores.images))
    report.text("")
    report.table(("class", "precision", "recall", "F1", "support"), rows)
    report.text("")
    if len(labels) > MATRIX:
        _print_confused(report, found)
        return
    report.text("rows: the class; columns: what it was taken for")
    lines: list[tuple[TableCell, ...]] = [
        (label, *row) for label, row in zip(labels, scores.confusion, strict=True)
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


def _document(found: EvaluationReport, within: "Interval | None", stages: Stages) -> dict[str, Any]:
    scores, given = found.scores, found.given
    return {
        **found.about,
        "data": {"path": str(given.path), "digest": given.data.digest, "images": scores.images},
        "output": given.output.name,
        "accuracy": scores.accuracy,
        "correct": scores.correct,
        "interval": asdict(within) if within else None,
        "macro": asdict(scores.macro),
        "classes": [
            {"index": i, "label": label, **asdict(c.rates), "support": c.support,
             "predicted": c.predicted}
            for i, (label, c) in enumerate(zip(found.labels, scores.classes, strict=True))
        ],
        "confusion": [list(row) for row in scores.confusion],
        "seconds": stages.seconds,
    }  # fmt: skip
