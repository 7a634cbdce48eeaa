"""`tcc calibrate`: compute the scales of an int8 program from images."""

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
from tcc.compiler.driver.weights_and_images import choose_folder, load_images
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.report import calibration_report
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import make_command_span

if TYPE_CHECKING:
    from tcc.compiler.ir.device import Device

NAMES = [method.name for method in METHODS]
WIDTH = max(map(len, NAMES)) + 3
EPILOG = "\n".join(
    ["\b", "Methods:", *(f"  {method.name:<{WIDTH}}{method.summary}" for method in METHODS)]
)
"""The methods, one per line, at the end of the help; \\b keeps the line breaks."""


def _complete_target(incomplete: str) -> list[str]:
    from tcc.compiler.targets import devices

    names = [device.name for device in devices.list_devices() if device.target.calibrates]
    return [name for name in names if name.startswith(incomplete)]


TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="T",
        show_default=False,
        autocompletion=_complete_target,
        help="Target to calibrate for. Default: the project file's, or onnxruntime.",
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        "--images",
        metavar="N",
        min=1,
        show_default=False,
        help="Use only N of the images. Default: all.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=256,
        show_default=False,
        help="Number of threads. Default: one per processor.",
    ),
]
Batch = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="Number of images that a thread processes at a time."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="File to write. Default: build/SPEC-TARGET.calibration.json.",
    ),
]


def calibrate(
    target: TargetOption = None,
    max_images: Images = None,
    output: Output = None,
    threads: Threads = None,
    batch: Batch = 1,
    *,
    spec: SpecOptions,
    weights: WeightOptions,
    images: CalibrationOptions,
    report: ReportOptions,
) -> None:
    """Compute the scales of an int8 program by running images.

    The file depends on the spec, the weights and the pixels of the images, not on their names or
    order, --threads or --batch. For a target with its own calibration tool, the images of its
    package and a figure of the quantization error are written too.
    """
    from tcc.compiler.driver import calibration

    with report.track_stages() as stages:
        stages("spec", 0, 1)
        chosen_spec = spec.choose()
        report.print_detail(f"project file: {chosen_spec.project.path or 'none'}")
        report.print_detail(f"spec: {chosen_spec.spec.path}")
        device, method = _choose_device(chosen_spec, target), images.find_method()
        path = output or _choose_path(report, chosen_spec, device)
        stages("weights", 0, 1)
        from tcc.compiler.driver import pipeline
        from tcc.compiler.quant import calibration_document
        from tcc.compiler.quant.run_options import RunOptions
        from tcc.compiler.support import atomic_files

        # Check this before the images are run, so that no work is lost.
        atomic_files.check_target(path, atomic_files.allow_replacing)
        weight_source = weights.load(report, chosen_spec)
        stages("images", 0, 1)
        run = run_splits.find_weights_split(images.split, weights.find_file(chosen_spec))
        dataset = load_images(report, chosen_spec, images.data, run).select_first(max_images)
        options = RunOptions(threads, batch, stages, images.min_images)
        request = pipeline.CalibrationRequest(device.name, method, options)
        document = pipeline.calibrate(chosen_spec.spec, weight_source, dataset, request)
        broken = calibration.find_refusals(chosen_spec.spec, weight_source, document, dataset)
        stages("write", 0, 1)
        atomic_files.write_file(path, calibration_document.encode(document))
        package = None
        if backend := device.packager:
            calibrated_package = calibration.CalibratedPackage(
                backend, device.target, chosen_spec.spec, weight_source, dataset, document
            )
            package = calibrated_package.write(path, stages)
        stages.finish_stage()
    for notice in document.notices:
        report.warn_text(notice)
    if broken:
        report.warn_text(f"`build` will refuse this int8 model: {'; '.join(broken)}")
    calibration_report.print_calibration(report, path, document)
    if package and not report.quiet:
        calibration_report.print_package(report, package)
    extra = {"package": package.to_json()} if package else {}
    report.print_document(
        calibration_report.encode_calibration(path, document, stages) | {"refused": broken} | extra
    )


def _choose_path(report: Report, chosen_spec: ChosenSpec, device: "Device") -> Path:
    folder = choose_folder(report, chosen_spec, None)
    return folder / f"{chosen_spec.spec.name}-{device.name}.calibration.json"


def _choose_device(chosen_spec: ChosenSpec, name: str | None) -> "Device":
    """Return the target of the command line, or else of the project file, or onnxruntime.

    Raises:
        UserError: It is unknown (E0605), or has no int8 precision (E0606).
    """
    from tcc.compiler.targets import devices

    locations = chosen_spec.project.spans
    project_targets = [
        (target_name, locations["targets"]) for target_name in chosen_spec.project.targets
    ]
    at = make_command_span(f"--target {name}")
    candidates = [(name, at)] if name else [*project_targets, ("onnxruntime", at)]
    return devices.find_calibrated_device(candidates)
