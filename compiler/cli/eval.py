"""`tcc eval`: how well networks, or bundles' artifacts, tell labelled images apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.common_options import (
    Json,
    Quiet,
    SeedOption,
    Settings,
    SideOption,
    SplitOption,
    Strict,
    Trust,
    Verbose,
    WeightsOption,
    spec_names,
)
from tcc.compiler.cli.evaluation_options import (
    Bootstrap,
    BootstrapSeed,
    CarryOption,
    FitOption,
    IntegersOption,
    LabelledOption,
    PositiveOption,
    SaturationOption,
    SensitivityOption,
)
from tcc.compiler.driver import run_splits
from tcc.compiler.driver.bundle_evaluation import evaluate_bundle
from tcc.compiler.driver.chosen_spec import bundle_folder
from tcc.compiler.driver.evaluation_images import EvaluationRequest
from tcc.compiler.driver.evaluation_report import EvaluationReport, Resampling, SaturationReport
from tcc.compiler.driver.spec_evaluation import evaluate_spec
from tcc.compiler.report.evaluation_tables import print_all, print_one
from tcc.compiler.report.saturation import print_counted
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Report
from tcc.compiler.support.option_needs import (
    BUNDLES,
    ONE_NETWORK,
    SOME_BUNDLE,
    SPEC_OR_FITTED,
    SPECS,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tcc.compiler.driver.fitting import Criterion

Networks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SPEC",
        show_default=False,
        autocompletion=spec_names,
        help="Spec files, names of known specs or trained networks, or bundles; without one, the "
        "project file's spec.",
    ),
]


def evaluate(
    networks: Networks = None,
    data: LabelledOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: Settings = None,
    strict: Strict = False,
    split: SplitOption = None,
    side: SideOption = None,
    fit: FitOption = False,
    carry: CarryOption = None,
    positive: PositiveOption = None,
    sensitivity: SensitivityOption = None,
    saturation: SaturationOption = False,
    calibration: IntegersOption = None,
    bootstrap: Bootstrap = None,
    bootstrap_seed: BootstrapSeed = 0,
    trust: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure accuracy, sensitivity, specificity, F1 and ROC-AUC on labelled images.

    A bundle's own artifact runs, a program that was not built here only with --trust; a spec runs
    in floats, by the reference executor. An image is taken for the class of largest output, of
    equal ones for the first. Several are compared with each other by McNemar's test.
    """
    report = Report(json, quiet, verbose)
    criterion = _criterion(fit, positive, sensitivity)
    judged = run_splits.side(side)
    request = EvaluationRequest(
        data, weights, seed, settings, strict, criterion, carry, split, judged, saturation,
        calibration, trust, bootstrap,
    )  # fmt: skip
    names: Sequence[str | None] = networks or (None,)
    folders = [bundle_folder(name) for name in names]
    _require_networks(folders, request)
    found: list[EvaluationReport | SaturationReport] = []
    with report.stages() as stages:
        for name, folder in zip(names, folders, strict=True):
            stages("spec", 0, 1)
            found.append(evaluate_bundle(report, stages, folder, request) if folder
                         else evaluate_spec(report, stages, name, request))  # fmt: skip
        stages.end()
    drawn = Resampling(bootstrap, bootstrap_seed)
    seconds = {"seconds": stages.seconds}
    if isinstance(first := found[0], SaturationReport):  # of one network, as `option_facts` has it
        report.document(print_counted(report, first) | seconds)
        return
    measured = [each for each in found if isinstance(each, EvaluationReport)]
    if len(measured) == 1:
        report.document(print_one(report, measured[0], drawn) | seconds)
    else:
        report.document(print_all(report, measured, drawn) | seconds)


def _require_networks(folders: "Sequence[Path | None]", request: EvaluationRequest) -> None:
    """Refuse typed options that these specs and bundles have no use for (E0601)."""
    bundles = [folder is not None for folder in folders]
    fits = not all(bundles) or request.fit is not None or request.carry is not None
    if request.strict and not fits:
        from tcc.compiler.bundle import bundle_folder as bundles_on_disk

        fits = any(bundles_on_disk.stated(folder).operating_points for folder in folders if folder)
    option_needs.require(
        {
            SPECS: not any(bundles),
            BUNDLES: all(bundles),
            SPEC_OR_FITTED: fits,
            SOME_BUNDLE: any(bundles),
            ONE_NETWORK: len(bundles) == 1,
        }
    )


def _criterion(fit: bool, positive: str | None, sensitivity: float | None) -> "Criterion | None":
    from tcc.compiler.driver.fitting import Criterion

    return Criterion(positive, sensitivity) if fit else None
