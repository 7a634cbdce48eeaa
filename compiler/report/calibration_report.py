"""What `tcc calibrate` prints: candidates, ranges, and the cosines of integers and floats."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver import quality_table
from tcc.compiler.ir.target import MIN_COSINE
from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.driver.calibration import PackageData
    from tcc.compiler.figures.scene import Bar
    from tcc.compiler.quant.calibration_document import CalibrationDocument
    from tcc.compiler.quant.methods.searched_ranges import ScaleTrace

MAX_LISTED = 10
"""Layers, or values, that are listed."""
BAR_WIDTH = 40
"""Characters of a bar."""


def print_bars(report: Report, bars: "Sequence[Bar]") -> None:
    """Print bars below each other, and warn of those below the threshold."""
    report.print_text(
        f"\ncosine of integers of our own and floats; {MIN_COSINE} is the least that is good"
    )
    # Bars begin at 0.9, or lower where one needs it: between 0.98 and 1 all would look alike from
    # 0.
    low = min([0.9, *(bar.value - 0.05 for bar in bars)])
    longest = max((len(bar.name) for bar in bars), default=0)
    for bar in bars:
        count = round(BAR_WIDTH * (bar.value - low) / (1 - low))
        verdict = "" if bar.value >= MIN_COSINE else f"  BELOW {MIN_COSINE}"
        bar_line = f"  {bar.name:<{longest}}  {'#' * count:<{BAR_WIDTH}} {bar.value:.6f}{verdict}"
        report.print_text(bar_line)
    for bar in bars:
        if not bar.value >= MIN_COSINE:
            report.warn_text(f"the cosine of {bar.name} is {bar.value:.4f}, below {MIN_COSINE}")


def print_package(report: Report, package: "PackageData") -> None:
    """Print the bars and the layers that lose the most."""
    report.print_text(str(package.archive))
    report.print_text(
        f"  {package.inputs} of the images, as the network sees them, for the package"
    )
    if package.figure_path:
        report.print_text(str(package.figure_path))
    print_bars(report, package.bars)
    layers = sorted(package.comparison.layers, key=lambda layer: layer.cosine)
    shown_layers = layers if report.verbose else layers[:MAX_LISTED]
    report.print_text("\nthe layers' cosines, the least first")
    report.print_table(
        ("layer", "op", "cosine", "steps off"),
        [
            (layer_loss.name, layer_loss.op, f"{layer_loss.cosine:.6f}", f"{layer_loss.error:.1f}")
            for layer_loss in shown_layers
        ],
    )


def print_calibration(report: Report, path: Path, calibration: "CalibrationDocument") -> None:
    """Print the file, the candidates and the ranges that depend on single images."""
    report.print_text(str(path))
    if report.quiet:
        return
    image_set = calibration.data
    held_out_text = (
        f", {image_set.held_out} of them held out"
        if 0 < image_set.held_out < image_set.images
        else ""
    )
    images = "one image" if image_set.images == 1 else f"{image_set.images} images"
    report.print_text(
        f"  {calibration.method}, {images}{held_out_text}, {len(calibration.values)} values"
    )
    if calibration.judged:
        report.print_text("")
        rows = [
            (
                f"{name} *" if name == calibration.used else name,
                output,
                *quality_table.format_cells(quality),
            )
            for name, qualities in calibration.judged.items()
            for output, quality in qualities.items()
        ]
        report.print_table(("candidate", "output", *quality_table.COLUMNS), rows)
    for line in quality_table.format_expected_losses(calibration.expected):
        report.print_text(f"\n{line}")
    report.print_text("\nthe ranges that depend the most on single images")
    columns = ("value", "from", "to", "ends at", "shown", "scale", "levels", "uncertain by")
    report.print_table(columns, _build_range_rows(calibration))


def _build_range_rows(calibration: "CalibrationDocument") -> list[tuple[str, ...]]:
    """Return the values of the largest spread, one of each group, the largest first."""
    groups: dict[tuple[object, ...], str] = {}
    for name, tensor_scale in calibration.values.items():
        # What shares a scale is one finding: a concat of ten would fill the table.
        groups.setdefault((tensor_scale.scale, tensor_scale.signed, tensor_scale.trace), name)
    named_scales = [(calibration.values[name], name) for name in groups.values()]
    named_scales.sort(key=lambda pair: -((pair[0].trace.spread or 0.0) if pair[0].trace else 0.0))
    return [
        (
            name,
            f"{tensor_scale.trace.low:.4g}",
            f"{tensor_scale.trace.high:.4g}",
            f"{tensor_scale.trace.threshold:.4g}",
            f"{_compute_reached_share(tensor_scale.trace):.0%}",
            f"{tensor_scale.scale:.4g}",
            "-128..127" if tensor_scale.signed else "0..255",
            "-" if tensor_scale.trace.spread is None else f"{tensor_scale.trace.spread:.1%}",
        )
        for tensor_scale, name in named_scales[:MAX_LISTED]
        if tensor_scale.trace
    ]


def _compute_reached_share(trace: "ScaleTrace") -> float:
    """Return how much of a range any image reached."""
    top = max(abs(trace.low), abs(trace.high))
    return top / trace.threshold if trace.threshold else 1.0


def encode_calibration(
    path: Path, calibration: "CalibrationDocument", stages: Stages
) -> dict[str, Any]:
    """Return what `--json` prints of a calibration."""
    from tcc.compiler.quant.calibration_document import digest
    from tcc.compiler.support import json_records

    content = json_records.encode(calibration)
    omitted = ("tcc_calibration", "rounded", "factors", "seal", "input", "passes")
    fields = {name: field for name, field in content.items() if name not in omitted}
    return {"path": str(path), "sha256": digest(calibration), **fields, "seconds": stages.seconds}
