"""What `tcc calibrate` prints: candidates, ranges, and the cosines of integers and floats."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver import quality_table
from tcc.compiler.ir.target import LEAST
from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.driver.calibration import PackageData
    from tcc.compiler.figures.scene import Bar
    from tcc.compiler.quant.calibration_document import CalibrationDocument
    from tcc.compiler.quant.methods.found_ranges import ScaleTrace

WORST = 10
"""Layers, or values, that are listed."""
WIDTH = 40
"""Characters of a bar."""


def print_bars(report: Report, bars: "Sequence[Bar]") -> None:
    """Print bars below each other, and warn of those below the threshold."""
    report.text(f"\ncosine of integers of our own and floats; {LEAST} is the least that is good")
    # Bars begin at 0.9, or lower where one needs it: between 0.98 and 1 all would look alike from
    # 0.
    low = min([0.9, *(each.value - 0.05 for each in bars)])
    longest = max((len(each.name) for each in bars), default=0)
    for each in bars:
        count = round(WIDTH * (each.value - low) / (1 - low))
        verdict = "" if each.value >= LEAST else f"  BELOW {LEAST}"
        shown = f"  {each.name:<{longest}}  {'#' * count:<{WIDTH}} {each.value:.6f}{verdict}"
        report.text(shown)
    for each in bars:
        if not each.value >= LEAST:
            report.notice(f"the cosine of {each.name} is {each.value:.4f}, below {LEAST}")


def print_package(report: Report, found: "PackageData") -> None:
    """Print the bars and the layers that lose the most."""
    report.text(str(found.archive))
    report.text(f"  {found.inputs} of the images, as the network sees them, for the package")
    if found.picture:
        report.text(str(found.picture))
    print_bars(report, found.bars)
    layers = sorted(found.comparison.layers, key=lambda layer: layer.cosine)
    shown = layers if report.verbose else layers[:WORST]
    report.text("\nthe layers' cosines, the least first")
    report.table(
        ("layer", "op", "cosine", "steps off"),
        [(each.name, each.op, f"{each.cosine:.6f}", f"{each.error:.1f}") for each in shown],
    )


def print_calibration(report: Report, path: Path, made: "CalibrationDocument") -> None:
    """Print the file, the candidates and the ranges that depend on single images."""
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


def document(path: Path, made: "CalibrationDocument", stages: Stages) -> dict[str, Any]:
    """Return what `--json` prints of a calibration."""
    from tcc.compiler.quant.calibration_document import digest
    from tcc.compiler.support import json_records

    plain = json_records.encode(made)
    left_out = ("tcc_calibration", "rounded", "factors", "seal", "input", "passes")
    shown = {name: value for name, value in plain.items() if name not in left_out}
    return {"path": str(path), "sha256": digest(made), **shown, "seconds": stages.seconds}
