"""`tcc calibrate`: from images to the scales of an integer program."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import (
    CalibrationOptions,
    ReportOptions,
    SpecOptions,
    WeightOptions,
)
from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.weights_and_images import choose_folder, take_images
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.report import calibration_report
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import typed

if TYPE_CHECKING:
    from tcc.compiler.ir.device import Device

NAMES = [method.name for method in METHODS]
WIDTH = max(map(len, NAMES)) + 3
EPILOG = "\n".join(["\b", "Methods:", *(f"  {one.name:<{WIDTH}}{one.summary}" for one in METHODS)])
"""The methods, a line each, at the end of the command's help; \\b keeps the lines as they are."""


def _targets(incomplete: str) -> list[str]:
    from tcc.compiler.targets import devices

    found = [device.name for device in devices.every() if device.target.calibrates]
    return [name for name in found if name.startswith(incomplete)]


TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="T",
        show_default=False,
        autocompletion=_targets,
        help="What to calibrate for; without it, the project file's, or onnxruntime.",
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        "--images",
        metavar="N",
        min=1,
        show_default=False,
        help="Take N of the images; all of them.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=256, show_default=False, help="Threads; one a processor."),
]
Batch = Annotated[
    int, typer.Option(metavar="N", min=1, help="Images that a thread takes at a time.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="The file to write; build/SPEC-TARGET.calibration.json by default.",
    ),
]


def calibrate(
    target: TargetOption = None,
    most: Images = None,
    output: Output = None,
    threads: Threads = None,
    batch: Batch = 1,
    *,
    spec: SpecOptions,
    weights: WeightOptions,
    images: CalibrationOptions,
    report: ReportOptions,
) -> None:
    """Find the scales of an integer program by running images.

    The file that it writes depends on the spec, the weights and what the images show: not on
    their names or order, nor on --threads or --batch. For a target whose own tool calibrates as
    well, the images that its package holds and a picture of what integers lose are written too.
    """
    from tcc.compiler.driver import calibration

    with report.stages() as stages:
        stages("spec", 0, 1)
        chosen = spec.choose()
        report.detail(f"project file: {chosen.project.path or 'none'}")
        report.detail(f"spec: {chosen.spec.path}")
        device, way = _device(chosen, target), images.find_method()
        path = output or _default(report, chosen, device)
        stages("weights", 0, 1)
        from tcc.compiler.driver import pipeline
        from tcc.compiler.quant import calibration_document
        from tcc.compiler.quant.run_options import RunOptions
        from tcc.compiler.support import atomic_files

        # Before the images are run: where it cannot be written, the work would be lost.
        atomic_files.check_target(path, atomic_files.anything)
        given = weights.take(report, chosen)
        stages("images", 0, 1)
        run = run_splits.of_weights(images.split, weights.find_file(chosen))
        found = take_images(report, chosen, images.data, run).first(most)
        options = RunOptions(threads, batch, stages, images.min_images)
        wanted = pipeline.CalibrationRequest(device.name, way, options)
        made = pipeline.calibrate(chosen.spec, given, found, wanted)
        broken = calibration.refused(chosen.spec, given, made, found)
        stages("write", 0, 1)
        atomic_files.write_file(path, calibration_document.encode(made))
        package = None
        if backend := device.packager:
            ready = calibration.CalibratedPackage(
                backend, device.target, chosen.spec, given, found, made
            )
            package = ready.write(path, stages)
        stages.end()
    for notice in made.notices:
        report.notice(notice)
    if broken:
        report.notice(f"`build` refuses these integers: {'; '.join(broken)}")
    calibration_report.print_calibration(report, path, made)
    if package and not report.quiet:
        calibration_report.print_package(report, package)
    more = {"package": package.as_json()} if package else {}
    report.document(calibration_report.document(path, made, stages) | {"refused": broken} | more)


def _default(report: Report, chosen: ChosenSpec, device: "Device") -> Path:
    folder = choose_folder(report, chosen, None)
    return folder / f"{chosen.spec.name}-{device.name}.calibration.json"


def _device(chosen: ChosenSpec, name: str | None) -> "Device":
    """Return the target that the command line names, or else the project file, or onnxruntime.

    Raises:
        UserError: It is not known (E0605), or has no integers (E0606).
    """
    from tcc.compiler.targets import devices

    places = chosen.project.places
    theirs = [(each, places["targets"]) for each in chosen.project.targets]
    at = typed(f"--target {name}")
    wanted = [(name, at)] if name else [*theirs, ("onnxruntime", at)]
    return devices.calibrated_for(wanted)
