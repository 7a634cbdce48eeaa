"""`tcc build`: compile a spec into the bundles of its targets."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli import failures
from tcc.compiler.cli.options import (
    CalibrationFile,
    CalibrationOptions,
    PassChoice,
    ReportOptions,
    SpecOptions,
    TargetOptions,
    WeightOptions,
)
from tcc.compiler.driver.chosen_spec import ChosenSpec, rename_network
from tcc.compiler.driver.weights_and_images import choose_folder, report_digest
from tcc.compiler.ir.precision import FP32
from tcc.compiler.report import build_report, tool_report
from tcc.compiler.support.console import print_problem
from tcc.compiler.support.diagnostics import fail, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.ir.device import Plan

FloorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--floor",
        metavar="FILE|NAME=VALUE",
        show_default=False,
        help="Accuracy bound of the int8 model, instead of the spec's `accuracy:`: "
        "min_cosine, max_drop, min_correlation or max_error. Can be repeated.",
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Keep layers in float if the accuracy bounds need it.")
]
AllowFew = Annotated[
    bool,
    typer.Option(
        "--allow-few",
        help="Check the accuracy bounds with fewer than 16 different images; the manifest "
        "has a warning.",
    ),
]
NetworkName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        show_default=False,
        help="Name of the network in the bundle: of its folder, and the prefix of a "
        "library's C names. Default: the spec's name.",
    ),
]
GuardData = Annotated[
    Path | None,
    typer.Option(
        "--guard-data",
        metavar="DIR",
        show_default=False,
        help="Add a guard, which reports images unlike those of the calibration. Its tables come "
        "from these images, of at least 50 cases that were neither trained nor calibrated on.",
    ),
]
Replay = Annotated[
    bool,
    typer.Option(help="Run each artifact on a golden image first, if it can run on this machine."),
]
Agree = Annotated[
    int,
    typer.Option(
        "--agree",
        metavar="N",
        min=0,
        help="Also compare the targets on N images of --data, including their preprocessing.",
    ),
]
Probes = Annotated[
    bool,
    typer.Option(
        "--probes",
        help="Add the int8 program to each bundle, so that `tcc verify` can compare each layer.",
    ),
]
ReportPage = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Add report.html to each bundle: agreement, sizes, error of each layer, costs.",
    ),
]
IncludeImages = Annotated[
    bool,
    typer.Option(
        "--include-images",
        help="Put the calibration images of a vendor toolchain into its package, not next to it.",
    ),
]
UseTool = Annotated[
    bool,
    typer.Option(
        "--tool/--no-tool", help="Compile packages with their vendor toolchain, if it is installed."
    ),
]
RequireSignature = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="FILE",
        show_default=False,
        help="Compile this public Ed25519 key, in PEM, into the program for a device. It "
        "then starts only with a valid signature next to it (see `tcc sign`).",
    ),
]
Cached = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Reuse cached results of the same inputs (see `tcc dev cache`).",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Folder for the bundles. Default: build.",
    ),
]


def build(
    calibration: CalibrationFile = None,
    floor: FloorOption = None,
    mixed: Mixed = False,
    allow_few: AllowFew = False,
    output: Out = None,
    name: NetworkName = None,
    replay: Replay = True,
    agree: Agree = 0,
    probes: Probes = False,
    report_page: ReportPage = False,
    tool: UseTool = True,
    include_images: IncludeImages = False,
    require_signature: RequireSignature = None,
    guard_data: GuardData = None,
    cached: Cached = True,
    *,
    spec: SpecOptions,
    targets: TargetOptions,
    weights: WeightOptions,
    images: CalibrationOptions,
    passes: PassChoice,
    report: ReportOptions,
) -> None:
    """Compile a spec into a bundle for each target.

    A bundle is a folder with the artifact, its input contract, goldens and hashes. An artifact that
    does not agree with the reference, or an int8 model below its accuracy floor, is not written;
    the exit code is 4. If a vendor toolchain compiled a package that does not agree, the exit code
    is 4 too, but the package and its log are kept. Several targets share one calibration. At the
    end, the build reports how they agree, layer by layer.
    """
    from tcc.compiler.driver import build as builder
    from tcc.compiler.driver.int8_builds import Int8Build, Int8Options
    from tcc.compiler.frontend.accuracy_bounds import read_floors
    from tcc.compiler.support import atomic_files

    int8_options = Int8Options(
        read_floors(floor or ()), calibration, images.data, images.method, images.guard,
        mixed, images.split, images.min_images,
        agree, probes, include_images, allow_few, guard_data,
    )  # fmt: skip
    with report.track_stages() as stages:
        stages("spec", 0, 1)
        chosen_spec = spec.choose()
        chosen_spec = dataclasses.replace(chosen_spec, spec=rename_network(chosen_spec.spec, name))
        folder = choose_folder(report, chosen_spec, output)
        report.print_detail(f"project file: {chosen_spec.project.path or 'none'}")
        report.print_detail(f"spec: {chosen_spec.spec.path}")
        stages("weights", 0, 1)
        plans = _require_signatures(_find_plans(chosen_spec, targets, tool=tool), require_signature)
        pass_options = passes.create_options(report)
        pass_options.choose_passes()  # warn before any work is done
        # Check everything before the calibration, which can take minutes.
        warned = builder.check_plans(chosen_spec, plans, pass_options, folder)
        atomic_files.remove_stale_scratch()
        weight_source = weights.load(report, chosen_spec)
        stage_store = builder.open_stages(chosen_spec, weight_source, pass_options, usable=cached)
        file = weights.find_file(chosen_spec)
        report_digest(report, file)
        work = Int8Build(
            report,
            stages,
            chosen_spec,
            weight_source,
            int8_options,
            pass_options,
            file,
            stage_store,
        )
        written_bundles, agreement = builder.build(
            work, plans, folder, warned, replaying=replay, page=report_page
        )
        stages.finish_stage()
    build_report.print_bundles(report, written_bundles, stages)
    if agreement and not report.quiet:
        build_report.print_agreement(report, agreement)
    report.print_document(build_report.encode_bundles(written_bundles, stages, agreement))
    wrong = [
        tool_report.describe_failure(written_bundle.folder, written_bundle.tool)
        for written_bundle in written_bundles
        if written_bundle.tool and not written_bundle.tool.holds
    ]
    for text in wrong:
        print_problem(text)
    if wrong:
        raise typer.Exit(failures.BELOW_FLOOR)


def _find_plans(
    chosen_spec: ChosenSpec, targets: TargetOptions, *, tool: bool
) -> "tuple[Plan, ...]":
    """Return the targets of the command line, or else of the project file, with a precision.

    A precision of the project file, or no precision, applies only to the targets that offer it.

    Raises:
        UserError: No target is named, or one is unknown.
    """
    from tcc.compiler.targets import devices

    project = chosen_spec.project
    named_targets = [
        (text, name.strip()) for text in targets.targets or () for name in text.split(",")
    ]
    requested = [(name, make_command_span(f"--target {text}")) for text, name in named_targets]
    project_targets = [(name, project.spans["targets"]) for name in project.targets]
    if not (requested or project_targets):
        known_names = ", ".join(device.name for device in devices.list_devices())
        raise fail(
            "E0605",
            "no target is given",
            make_command_span("--target"),
            help="name one with `--target`, or as `targets` in tcc.toml; known targets: "
            f"{known_names}",
        )
    precision = targets.precision
    level = (precision or FP32.name, make_command_span(f"--precision {precision}"))
    if precision is None and project.precision:
        level = (project.precision, project.spans["precision"])
    plans = devices.find_all(requested or project_targets, level, is_explicit=precision is not None)
    return tuple(dataclasses.replace(plan, compiles=tool) for plan in plans)


def _require_signatures(plans: "tuple[Plan, ...]", key: Path | None) -> "tuple[Plan, ...]":
    """Return the targets, whose programs require a signature by the key of a file, if one is given.

    Raises:
        UserError: The file is not such a key (E1366), or a target has no such program (E0601).
    """
    if key is None:
        return plans
    from tcc.compiler.bundle import runner_key

    public_key = runner_key.read_public(key)
    return tuple(
        dataclasses.replace(plan, device=plan.device.with_signer(public_key)) for plan in plans
    )
