"""`tcc eval`: how well networks, or bundles' artifacts, tell labelled images apart."""

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
        help="Spec files, names of known specs or trained networks, or bundles; without one, the "
        "project file's spec.",
    ),
]
Side = Annotated[
    str | None,
    typer.Option(
        "--side",
        metavar="SIDE",
        show_default=False,
        help="Judge by the images of train, val or test; without it, test.",
    ),
]
LabelledOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Labelled images: a folder of class folders, or of `test` and other splits, or an "
        ".npz file with `labels`; without it, the project file's.",
    ),
]
FitOption = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="Fit the temperature, and thresholds, to the images of DIR/val, or of the run's "
        "`val`, store them in the bundle, and judge by those of `test`.",
    ),
]
CarryOption = Annotated[
    Path | None,
    typer.Option(
        "--carry",
        metavar="BUNDLE",
        show_default=False,
        help="Store in the bundle what was fitted of another of the same network.",
    ),
]
PositiveOption = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS",
        show_default=False,
        help="With --fit, also fit a threshold from which an image is taken for this class.",
    ),
]
SensitivityOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        show_default=False,
        help="With --fit, the least sensitivity of thresholds on the images fitted to, which is "
        "checked on those that judge; without it, Youden's J decides.",
    ),
]
Bootstrap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=10_000_000,
        show_default=False,
        help="Draw N resamples for the intervals of averages, 1000 without it, and give the one "
        "that holds the accuracy of 95 % of them as well.",
    ),
]
BootstrapSeed = Annotated[
    int, typer.Option("--bootstrap-seed", metavar="N", min=0, help="Seed of the resamples.")
]
SaturationOption = Annotated[
    bool,
    typer.Option(
        "--saturation",
        help="Count each layer's saturated integers, and compare them with the calibration's "
        "images; images need no labels.",
    ),
]
IntegersOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        show_default=False,
        help="With --saturation of a spec: the integers, as `tcc calibrate` wrote them.",
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
    saturation: SaturationOption = False,
    calibration: IntegersOption = None,
    bootstrap: Bootstrap = None,
    bootstrap_seed: BootstrapSeed = 0,
    trust: Trust = False,
    *,
    weights: WeightOptions,
    report: ReportOptions,
) -> None:
    """Measure accuracy, sensitivity, specificity, F1 and ROC-AUC on labelled images.

    A bundle's own artifact runs, a program that was not built here only with --trust; a spec runs
    in floats, by the reference executor. An image is taken for the class of largest output, of
    equal ones for the first. Several are compared with each other by McNemar's test.
    """
    criterion = _create_criterion(fit, positive, sensitivity)
    side_name = run_splits.parse_side(side)
    request = EvaluationRequest(
        data, weights.weights, weights.seed, settings, strict, criterion, carry, split, side_name,
        saturation,        calibration, trust, bootstrap,
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
    ):  # of one network, as `option_facts` has it
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
    """Refuse typed options that these specs and bundles have no use for (E0601)."""
    bundles = [folder is not None for folder in folders]
    fits = not all(bundles) or request.fit is not None or request.carry is not None
    if request.strict and not fits:
        from tcc.compiler.bundle import bundle_folder as bundles_on_disk

        fits = any(
            bundles_on_disk.read_manifest(folder).operating_points for folder in folders if folder
        )
    option_requirements.set_facts(
        {
            SPECS: not any(bundles),
            BUNDLES: all(bundles),
            SPEC_OR_FITTED: fits,
            SOME_BUNDLE: any(bundles),
            ONE_NETWORK: len(bundles) == 1,
        }
    )


def _create_criterion(
    fit: bool, positive: str | None, sensitivity: float | None
) -> "Criterion | None":
    from tcc.compiler.driver.fitting import Criterion

    return Criterion(positive, sensitivity) if fit else None
