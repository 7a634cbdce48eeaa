"""`tcc calibrate`: from images to the scales of an integer program."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import (
    CalibrationOptions,
    ReportOptions,
    SpecOptions,
    WeightOptions,
)
from tcc.compiler.driver import quality_table, run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.weights_and_images import choose_folder, take_images
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.report import cosine_bars
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import typed

if TYPE_CHECKING:
    from tcc.compiler.ir.device import Device
    from tcc.compiler.quant.calibration_document import CalibrationDocument
    from tcc.compiler.quant.methods.found_ranges import ScaleTrace

NAMES = [method.name for method in METHODS]
WIDTH = max(map(len, NAMES)) + 3
EPILOG = "\n".join(["\b", "Methods:", *(f"  {one.name:<{WIDTH}}{one.summary}" for one in METHODS)])
"""The methods, a line each, at the end of the command's help; \\b keeps the lines as they are."""
WORST = 10
"""Values that the table lists."""


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
    _print(report, path, made)
    if package and not report.quiet:
        cosine_bars.report_package(report, package)
    more = {"package": package.as_json()} if package else {}
    report.document(_document(path, made, stages) | {"refused": broken} | more)


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


def _print(report: Report, path: Path, made: "CalibrationDocument") -> None:
    report.text(str(path))
    if report.quiet:
        return
    data = made.data
    held = f", {data.held_out} of them held out" if 0 < data.held_out < data.images else ""
    images = "one image" if data.images == 1 else f"{data.images} images"
    report.text(f"  {made.method}, {images}{held}, {len(made.values)} values")
    if made.judged:
        report.text("")
        rows = [
            (f"{name} *" if name == made.used else name, output, *quality_table.cells(one))
            for name, found in made.judged.items()
            for output, one in found.items()
        ]
        report.table(("candidate", "output", *quality_table.COLUMNS), rows)
    for line in quality_table.expected(made.expected):
        report.text(f"\n{line}")
    report.text("\nthe ranges that depend the most on single images")
    columns = ("value", "from", "to", "ends at", "shown", "scale", "levels", "uncertain by")
    report.table(columns, _worst(made))


def _worst(made: "CalibrationDocument") -> list[tuple[str, ...]]:
    """Return the values of the largest spread, one of each group, the largest first."""
    groups: dict[tuple[object, ...], str] = {}
    for name, value in made.values.items():
        # What shares a scale is one finding: a concat of ten would fill the table.
        groups.setdefault((value.scale, value.signed, value.trace), name)
    listed = [(made.values[name], name) for name in groups.values()]
    listed.sort(key=lambda pair: -((pair[0].trace.spread or 0.0) if pair[0].trace else 0.0))
    return [
        (
            name,
            f"{value.trace.low:.4g}",
            f"{value.trace.high:.4g}",
            f"{value.trace.threshold:.4g}",
            f"{_shown(value.trace):.0%}",
            f"{value.scale:.4g}",
            "-128..127" if value.signed else "0..255",
            "-" if value.trace.spread is None else f"{value.trace.spread:.1%}",
        )
        for value, name in listed[:WORST]
        if value.trace
    ]


def _shown(trace: "ScaleTrace") -> float:
    """Return how much of a range any image reached."""
    top = max(abs(trace.low), abs(trace.high))
    return top / trace.threshold if trace.threshold else 1.0


def _document(path: Path, made: "CalibrationDocument", stages: Stages) -> dict[str, Any]:
    from tcc.compiler.quant.calibration_document import digest
    from tcc.compiler.support import json_records

    plain = json_records.encode(made)
    left_out = ("tcc_calibration", "rounded", "factors", "seal", "input", "passes")
    shown = {name: value for name, value in plain.items() if name not in left_out}
    return {"path": str(path), "sha256": digest(made), **shown, "seconds": stages.seconds}
