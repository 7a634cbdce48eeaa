"""The report of `tcc calibrate`: candidates, ranges, and cosines of int8 against fp32."""

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
"""Maximum layers or values listed."""
BAR_WIDTH = 40
"""Width of a bar in characters."""


def print_bars(report: Report, bars: "Sequence[Bar]") -> None:
    """Print a bar for each cosine, and warn of those below the threshold."""
    report.print_text(f"\ncosine of tcc's int8 model and fp32 outputs; minimum {MIN_COSINE}")
    # Bars begin at 0.9, or lower if a value needs it: from 0, all values from 0.98 to 1 look alike.
    low = min([0.9, *(bar.value - 0.05 for bar in bars)])
    longest = max((len(bar.name) for bar in bars), default=0)
    for bar in bars:
        count = round(BAR_WIDTH * (bar.value - low) / (1 - low))
        verdict = "" if bar.value >= MIN_COSINE else f"  BELOW {MIN_COSINE}"
        bar_line = f"  {bar.name:<{longest}}  {'#' * count:<{BAR_WIDTH}} {bar.value:.6f}{verdict}"
        report.print_text(bar_line)
    for bar in bars:
        if not bar.value >= MIN_COSINE:
            report.warn_text(
                f"the cosine of {bar.name} is {bar.value:.4f}, below the minimum {MIN_COSINE}"
            )


def print_package(report: Report, package: "PackageData") -> None:
    """Print the cosines of the outputs and of the layers with the largest quantization error."""
    report.print_text(str(package.archive))
    report.print_text(
        f"  contains {package.inputs} images in the network's input format, for the package"
    )
    if package.figure_path:
        report.print_text(str(package.figure_path))
    print_bars(report, package.bars)
    layers = sorted(package.comparison.layers, key=lambda layer: layer.cosine)
    shown_layers = layers if report.verbose else layers[:MAX_LISTED]
    report.print_text("\ncosine of each layer, lowest first")
    report.print_table(
        ("layer", "op", "cosine", "error, steps"),
        [
            (layer_loss.name, layer_loss.op, f"{layer_loss.cosine:.6f}", f"{layer_loss.error:.1f}")
            for layer_loss in shown_layers
        ],
    )


def print_calibration(report: Report, path: Path, calibration: "CalibrationDocument") -> None:
    """Print the file, the candidates, and the ranges that depend most on single images."""
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
    report.print_text("\nranges that depend most on single images")
    columns = (
        "value", "min.", "max.", "limit", "observed/limit", "scale", "quantized", "uncertainty",
    )  # fmt: skip
    report.print_table(columns, _build_range_rows(calibration))


def _build_range_rows(calibration: "CalibrationDocument") -> list[tuple[str, ...]]:
    """Return a row for each scale with the largest uncertainty, largest first."""
    groups: dict[tuple[object, ...], str] = {}
    for name, tensor_scale in calibration.values.items():
        # One row per shared scale: a concat of ten inputs would fill the table.
        groups.setdefault((tensor_scale.range, tensor_scale.trace), name)
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
            "{}..{}".format(*tensor_scale.range.limits),
            "-" if tensor_scale.trace.spread is None else f"{tensor_scale.trace.spread:.1%}",
        )
        for tensor_scale, name in named_scales[:MAX_LISTED]
        if tensor_scale.trace
    ]


def _compute_reached_share(trace: "ScaleTrace") -> float:
    """Return the share of a range that the images reached."""
    top = max(abs(trace.low), abs(trace.high))
    return top / trace.threshold if trace.threshold else 1.0


def encode_calibration(
    path: Path, calibration: "CalibrationDocument", stages: Stages
) -> dict[str, Any]:
    """Return the JSON document of a calibration."""
    from tcc.compiler.quant.calibration_document import digest
    from tcc.compiler.support import json_records

    content = json_records.encode(calibration)
    omitted = ("tcc_calibration", "rounded", "factors", "seal", "input", "passes")
    fields = {name: field for name, field in content.items() if name not in omitted}
    return {"path": str(path), "sha256": digest(calibration), **fields, "seconds": stages.seconds}
