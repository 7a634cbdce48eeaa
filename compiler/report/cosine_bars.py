"""Cosines of integers and floats as bars against the threshold: as text, and as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tcc.compiler.ir.tool_report import LEAST
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.driver.calibration import PackageData
    from tcc.compiler.figures.scene import Bar

WORST = 10
"""Layers that are listed."""
WIDTH = 40
"""Characters of a bar."""


def report_bars(report: Report, bars: "Sequence[Bar]") -> None:
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


def report_package(report: Report, found: "PackageData") -> None:
    """Print the bars and the layers that lose the most."""
    report.text(str(found.archive))
    report.text(f"  {found.inputs} of the images, as the network sees them, for the package")
    if found.picture:
        report.text(str(found.picture))
    report_bars(report, found.bars)
    layers = sorted(found.comparison.layers, key=lambda layer: layer.cosine)
    shown = layers if report.verbose else layers[:WORST]
    report.text("\nthe layers' cosines, the least first")
    report.table(
        ("layer", "op", "cosine", "steps off"),
        [(each.name, each.op, f"{each.cosine:.6f}", f"{each.error:.1f}") for each in shown],
    )
