"""What a maker's tool said of a package, and the command that asks it, as a person reads them."""

from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.cli.report import Report
from tcc.compiler.ir.tool_report import LEAST

if TYPE_CHECKING:
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.ir.tool_report import ToolReport

WORST = 10
"""Layers that are listed."""


def say(report: Report, folder: Path, compiled: "ToolReport | None") -> None:
    """Say what was found when a package was compiled, or how to have it compiled elsewhere."""
    if compiled is None:
        report.text("  not compiled: the tool is not here. Where docker has its image:")
        report.text(f"    sh {folder}/model/build.sh")
        return
    report.text(f"  compiled by {named(compiled)}")
    doubts(report, folder, compiled)
    layers(report, compiled)


def named(found: "ToolReport") -> str:
    """Return the tool and its version."""
    return f"{found.tool} {found.version}".rstrip()


def doubts(report: Report, folder: Path, found: "ToolReport") -> None:
    """Warn of what does not run on the NPU, and of outputs below the threshold."""
    if found.on_cpu:
        where = ", ".join(found.on_cpu[:WORST])
        report.notice(f"{folder}: the NPU did not take {where}: this runs on the processor, slowly")
    if not found.parts:
        report.detail("the log does not say what runs on the NPU and what on the processor")
    for each in found.low:
        text = f"the cosine of `{each.name}` is {each.cosine:.4f}, below {LEAST}"
        report.notice(f"{folder}: {text}")


def layers(report: Report, found: "ToolReport") -> None:
    """List the layers of the least cosine, or all of them to those who want more."""
    listed = sorted(found.layers, key=lambda each: each.cosine)
    shown = listed if report.verbose else listed[:WORST]
    report.text("")
    report.table(("layer", "cosine"), [(each.name, f"{each.cosine:.6f}") for each in shown])
    parts = [(each.name, each.where) for each in found.parts]
    if parts:
        report.table(("part", "runs on"), parts)


def checked(report: Report, folder: Path, found: "ToolCheck") -> None:
    """Say what a log and the outputs beside it tell of a package."""
    report.text(f"{folder}: {named(found.report)}, by {found.log}")
    doubts(report, folder, found.report)
    rows = [
        (
            each.golden,
            each.output,
            f"{each.cosine:.6f}",
            "-" if each.same is None else "yes" if each.same else "NO",
            "" if each.holds else "STUCK" if each.stuck else "DISAGREES",
        )
        for each in found.goldens
    ]
    if rows:
        report.table(("golden", "output", "cosine", "same class", ""), rows)
    else:
        report.text("no outputs for the goldens lie beside the log: only its own words are known")
    layers(report, found.report)
