"""`tcc eval`: how well networks, or bundles' artifacts, tell labelled images apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli import evaluation_images, run_splits, trusted_bundle
from tcc.compiler.cli.common_options import (
    Json,
    Quiet,
    Settings,
    Strict,
    Verbose,
    choose,
    spec_names,
    typed,
)
from tcc.compiler.cli.evaluation_comparison import print_all
from tcc.compiler.cli.evaluation_images import ImageWish
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
from tcc.compiler.cli.evaluation_report import EvaluationReport, Resampling
from tcc.compiler.cli.evaluation_tables import print_one
from tcc.compiler.cli.report import Report, Stages
from tcc.compiler.cli.run_splits import SideOption, SplitOption
from tcc.compiler.cli.saturation import check_options, of_spec
from tcc.compiler.cli.show_bundle import bundle_folder
from tcc.compiler.cli.trusted_bundle import Trust
from tcc.compiler.cli.weights_and_images import SeedOption, WeightsOption, take, weights_file
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import Manifest
    from tcc.compiler.driver.fitting import Criterion
    from tcc.compiler.driver.labelled_images import LabelledImages
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.operating_point import OperatingPoint

UNSIGNED = (
    "the program's signature was of what it read before, and is removed: it does not start until "
    "`tcc sign BUNDLE --runner-key PRIVATE.pem`"
)
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


@dataclass(frozen=True)
class Wanted:
    """What a bundle or spec is evaluated with."""

    data: Path | None
    weights: Path | None
    seed: int | None
    settings: Sequence[str] | None
    strict: bool
    fit: "Criterion | None"
    carry: Path | None
    split: str | None
    side: str | None
    saturation: bool
    calibration: Path | None
    trust: bool


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
    wanted = Wanted(
        data, weights, seed, settings, strict, criterion, carry, split, judged, saturation,
        calibration, trust,
    )  # fmt: skip
    names: Sequence[str | None] = networks or (None,)
    check_options(len(names), saturation, calibration)
    if len(names) > 1 and (weights or carry):
        option = "--weights" if weights else "--carry"
        raise fail("E0601", f"{option} is for one network, and these are several", typed(option))
    found = []
    with report.stages() as stages:
        for name in names:
            stages("spec", 0, 1)
            folder = bundle_folder(name)
            found.append(_of(report, stages, folder, wanted) if folder
                         else _of_spec(report, stages, name, wanted))  # fmt: skip
        stages.end()
    drawn = Resampling(bootstrap, bootstrap_seed)
    if len(found) == 1:
        report.document(print_one(report, found[0], drawn) | {"seconds": stages.seconds})
    else:
        report.document(print_all(report, found, drawn) | {"seconds": stages.seconds})


def _criterion(fit: bool, positive: str | None, sensitivity: float | None) -> "Criterion | None":
    from tcc.compiler.driver.fitting import Criterion

    if fit:
        return Criterion(positive, sensitivity)
    for option, value in (("--positive", positive), ("--sensitivity", sensitivity)):
        if value is not None:
            raise fail("E0601", f"{option} goes with --fit", typed(option))
    return None


def _of(report: Report, stages: Stages, folder: Path, wanted: Wanted) -> EvaluationReport:
    """Evaluate a bundle, after fitting how its outputs are read, where that is wanted."""
    from tcc.compiler.cli import devices
    from tcc.compiler.driver import evaluation, fitting, saturation

    _only_specs(wanted)
    found, device = trusted_bundle.load(folder, trust=wanted.trust)
    about = found.manifest
    if about.weights.notice:
        report.notice(about.weights.notice)
    points = about.operating_points
    if wanted.carry:
        if wanted.fit:
            raise fail("E0601", "--fit and --carry exclude each other", typed("--carry"))
        policy = devices.signature_policy(any_key=wanted.trust)
        points = fitting.carried(found, devices.load(wanted.carry, policy)[0])
    wish = _wish(wanted, about)
    given, learn = evaluation_images.labelled(report, stages, wish, about.outputs)
    learned = None
    if wanted.fit and learn:
        learned = evaluation.by_artifact(found, device, learn, stages)
        program = f"{about.target} {about.precision}"
        points = (fitting.fit(learned, program, wanted.fit),)
    point = next((each for each in points if each.output == given.output.name), None)
    made = evaluation.by_artifact(found, device, given, stages, point)
    if learned:
        # Before anything is stored: an operating point that was judged by its own images is worse
        # than none.
        fitting.check_apart(learned, made)
    # Before its program has to be signed again.
    ends = saturation.of_artifact(found, device, given.data, stages) if wanted.saturation else None
    if points != about.operating_points:
        fitting.store(found, device, points)
        tell_programs(report, device)
        if device.runner_signature(found.model):
            report.notice(UNSIGNED)
    _warn_seen(report, given, point)
    said = {"bundle": str(folder), "target": about.target, "precision": about.precision}
    stored = str(folder) if wanted.fit or wanted.carry else None
    return EvaluationReport(said, made, point, stored, ends)


def _wish(wanted: Wanted, about: "Manifest") -> ImageWish:
    """Return what is said of the images that judge a bundle."""
    from tcc.compiler.support import project_file

    project = project_file.find(Path())
    return ImageWish(
        evaluation_images.place(wanted.data, project.data),
        run_splits.of_bundle(wanted.split, about.weights.digest, project.weights),
        wanted.side,
        fits=wanted.fit is not None,
        learned=run_splits.is_unknown(wanted.split, about.weights.origin),
    )


def tell_programs(report: Report, device: "Device") -> None:
    """Say which of a bundle's programs do not know of what was fitted."""
    from tcc.compiler.ir.backend import OperatingPointReader

    if device.packager:
        report.notice(
            "the package's programs for the board know nothing of what was fitted: apply the "
            "temperature and the thresholds of manifest.json to their raw outputs"
        )
    if isinstance(device.backend, OperatingPointReader):
        report.notice(
            "the program follows what was fitted where the file beside it goes with it; the C "
            "library's model_classify does not: src/decision.h applies it to raw outputs"
        )


def _warn_seen(report: Report, given: "LabelledImages", point: "OperatingPoint | None") -> None:
    """Say loudly that values were fitted to the very images that judge them."""
    if point and point.fitted.digest == given.data.digest:
        report.notice(
            f"the images in {given.path} are those that temperature and thresholds were fitted "
            "to: what follows is too good. Judge by others"
        )


def _only_specs(wanted: Wanted) -> None:
    """Refuse options that a bundle has settled (E0601)."""
    given = {
        "--weights": wanted.weights,
        "--seed": wanted.seed,
        "--set": wanted.settings or None,
        "--calibration": wanted.calibration,
    }
    for name, value in given.items():
        if value is not None:
            raise fail("E0601", f"{name} is for specs, and this is a bundle", typed(name))


def _of_spec(report: Report, stages: Stages, name: str | None, wanted: Wanted) -> EvaluationReport:
    from tcc.compiler.bundle import manifest
    from tcc.compiler.driver import evaluation
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.reference import float_program

    for option, value in (("--fit", wanted.fit), ("--carry", wanted.carry)):
        if value is not None:
            message = f"{option} stores what it finds in a bundle, and this is a spec"
            raise fail("E0601", message, typed(option), help="build it first")
    chosen = choose(name, wanted.settings, wanted.strict)
    weights = take(report, chosen, wanted.weights, wanted.seed)
    spec = chosen.spec
    file = weights_file(chosen, wanted.weights, wanted.seed)
    wish = ImageWish(
        evaluation_images.place(wanted.data, chosen.project.data),
        run_splits.of_weights(wanted.split, file),
        wanted.side,
        fits=False,
        learned=run_splits.is_unknown(wanted.split, weights.origin.origin),
    )
    outputs = manifest.results(spec.graph)
    given, _ = evaluation_images.labelled(report, stages, wish, outputs)
    found = evaluation.by_reference(Model(spec.graph, weights.tensors), given, stages)
    reference = f"reference ({float_program.NAME})"
    said = {"spec": spec.name, "target": reference, "precision": FP32.name}
    ends = None
    if wanted.saturation:
        ends = of_spec(stages, chosen, weights, wanted.calibration, given.data)
    return EvaluationReport(said, found, saturation=ends)
