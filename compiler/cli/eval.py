"""`tcc eval`: measure the accuracy of networks, or of bundles' artifacts, on labelled images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import (
    ReportOptions,
    Settings,
    Split,
    Strict,
    Trust,
    WeightOptions,
    complete_spec,
)
from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import find_bundle_folder
from tcc.compiler.driver.evaluation_run import (
    EvaluationReport,
    EvaluationRequest,
    Resampling,
    SaturationReport,
    evaluate_bundle,
    evaluate_spec,
)
from tcc.compiler.report.evaluation_tables import print_comparison, print_counted, print_evaluation
from tcc.compiler.support import option_requirements
from tcc.compiler.support.option_requirements import (
    BUNDLES,
    ONE_NETWORK,
    SOME_BUNDLE,
    SPEC_OR_FITTED,
    SPECS,
)

if TYPE_CHECKING:
    from tcc.compiler.driver.fitting import Criterion

Networks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        autocompletion=complete_spec,
        help="Spec files, names of known specs or trained networks, or bundles. Default: the "
        "spec of the project file.",
    ),
]
Side = Annotated[
    str | None,
    typer.Option(
        "--side",
        metavar="SIDE",
        show_default=False,
        help="Split to evaluate: train, val or test. Default: test.",
    ),
]
LabelledOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Labelled images: a folder of class folders, a folder with `test` and other "
        "splits, or an .npz file with `labels`. Default: the project file's.",
    ),
]
FitOption = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="Fit the temperature and thresholds to the images of DIR/val, or to the run's "
        "`val` split, and store them in the bundle. Then evaluate the `test` split.",
    ),
]
CarryOption = Annotated[
    Path | None,
    typer.Option(
        "--carry",
        metavar="BUNDLE",
        show_default=False,
        help="Copy the fitted temperature and thresholds of another bundle of the same network.",
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        show_default=False,
        help="With --fit, also fit a threshold for this class: images at or above it are "
        "predicted as CLASS.",
    ),
]
SensitivityOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        show_default=False,
        help="With --fit, the sensitivity that the thresholds must have on new images like those "
        "that they are fitted to. The test images check it. Default: maximize Youden's J.",
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=0.999999,
        show_default=False,
        help="With --sensitivity, the confidence of the certificate; 0 for a threshold that only "
        "has the sensitivity on the images of the fit. Default: 0.95.",
    ),
]
Bootstrap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=10_000_000,
        show_default=False,
        help="Number of bootstrap resamples for the intervals of averages (default: 1000). "
        "Also adds a bootstrap interval of the accuracy.",
    ),
]
BootstrapSeed = Annotated[
    int,
    typer.Option("--bootstrap-seed", metavar="N", min=0, help="Seed of the bootstrap resamples."),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        show_default=False,
        help="Target class of the decision curve, or several joined by `+`. Default: the positive "
        "class, or else each class.",
    ),
]
SaturationOption = Annotated[
    bool,
    typer.Option(
        "--saturation",
        help="Count the clipped values of each int8 layer, and compare them with those of "
        "the calibration images. The images need no labels.",
    ),
]
IntegersOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="With --saturation and a spec: the calibration file that `tcc calibrate` wrote.",
    ),
]


def evaluate(
    networks: Networks = None,
    data: LabelledOption = None,
    settings: Settings = None,
    strict: Strict = False,
    split: Split = None,
    side: Side = None,
    fit: FitOption = False,
    carry: CarryOption = None,
    positive: PositiveOption = None,
    sensitivity: SensitivityOption = None,
    confidence: ConfidenceOption = None,
    class_name: ClassOption = None,
    saturation: SaturationOption = False,
    calibration: IntegersOption = None,
    bootstrap: Bootstrap = None,
    bootstrap_seed: BootstrapSeed = 0,
    trust: Trust = False,
    *,
    weights: WeightOptions,
    report: ReportOptions,
) -> None:
    """Measure accuracy, sensitivity, specificity, F1, ROC-AUC and calibration error.

    A bundle runs its artifact; a program that was not built on this machine runs only with --trust.
    A spec runs at fp32 in the reference executor. The predicted class has the largest output, and
    the smallest index among equal ones. Several networks are compared with McNemar's test.
    """
    criterion = _create_criterion(fit, positive, sensitivity, confidence)
    side_name = run_splits.parse_side(side)
    request = EvaluationRequest(
        data, weights.weights, weights.seed, settings, strict, criterion, carry, split, side_name,
        saturation, calibration, trust, bootstrap, class_name,
    )  # fmt: skip
    names: Sequence[str | None] = networks or (None,)
    folders = [find_bundle_folder(name) for name in names]
    _require_networks(folders, request)
    evaluations: list[EvaluationReport | SaturationReport] = []
    with report.track_stages() as stages:
        for name, folder in zip(names, folders, strict=True):
            stages("spec", 0, 1)
            evaluations.append(evaluate_bundle(report, stages, folder, request) if folder
                         else evaluate_spec(report, stages, name, request))  # fmt: skip
        stages.finish_stage()
    resampling = Resampling(bootstrap, bootstrap_seed)
    seconds = {"seconds": stages.seconds}
    if isinstance(
        saturation_report := evaluations[0], SaturationReport
    ):  # the facts below allow only one network
        report.print_document(print_counted(report, saturation_report) | seconds)
        return
    measured = [
        evaluation for evaluation in evaluations if isinstance(evaluation, EvaluationReport)
    ]
    if len(measured) == 1:
        report.print_document(print_evaluation(report, measured[0], resampling) | seconds)
    else:
        report.print_document(print_comparison(report, measured, resampling) | seconds)


def _require_networks(folders: Sequence[Path | None], request: EvaluationRequest) -> None:
    """Refuse typed options that have no effect for these specs and bundles (E0601)."""
    bundles = [folder is not None for folder in folders]
    fits = not all(bundles) or request.fit is not None or request.carry is not None
    if request.strict and not fits:
        from tcc.compiler.bundle import bundle_folder as bundles_on_disk

        fits = any(
            bundles_on_disk.read_manifest(folder).operating_points for folder in folders if folder
        )
    option_requirements.report_facts(
        {
            SPECS: not any(bundles),
            BUNDLES: all(bundles),
            SPEC_OR_FITTED: fits,
            SOME_BUNDLE: any(bundles),
            ONE_NETWORK: len(bundles) == 1,
        }
    )


def _create_criterion(
    fit: bool, positive: str | None, sensitivity: float | None, confidence: float | None
) -> "Criterion | None":
    from tcc.compiler.driver.fitting import DEFAULT_CONFIDENCE, Criterion

    used_confidence = DEFAULT_CONFIDENCE if confidence is None else confidence
    return Criterion(positive, sensitivity, used_confidence) if fit else None
