"""Cosines of integers and floats as bars against the threshold: as text, and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.tool_report import LEAST
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.figures.bar_chart import Bar

WIDTH = 40
"""Characters of a bar."""


def say(report: Report, bars: "Sequence[Bar]") -> None:
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


def picture(path: Path, heading: str, bars: "Sequence[Bar]") -> bytes:
    """Return the picture of bars for a file, whose suffix says which kind it is.

    Args:
        path: The file, `.svg` or any other for PNG.
        heading: The picture's title.
        bars: A cosine each, with its name.

    Returns:
        The file's bytes.
    """
    from tcc.compiler.figures import png, scene_svg
    from tcc.compiler.figures.bar_chart import bar_chart

    scene = bar_chart(heading, bars, LEAST)
    if path.suffix == ".svg":
        return scene_svg.render(scene, heading).encode()
    return png.render(scene, heading)
