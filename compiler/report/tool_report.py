"""What a maker's tool said of a package, and the command that asks it, as a person reads them."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.target import MIN_COSINE
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.ir.target import ToolReport

MAX_LISTED = 10
"""Layers that are listed."""


def print_tool(
    report: Report, folder: Path, tool_check: "ToolCheck | None", uncompiled: str
) -> None:
    """Say what was found when a package was compiled, or how to have it compiled elsewhere.

    Args:
        report: Where results and warnings are told.
        folder: The bundle.
        tool_check: What the tool gave; None where none compiled the package.
        uncompiled: Why not.
    """
    if tool_check is None:
        report.print_text(f"  not compiled: {uncompiled}. Where docker has the tool's image:")
        # A line to be copied: paths may have blanks.
        report.print_text(f"    sh {shlex.quote(f'{folder}/model/build.sh')}")
        return
    report.print_text(f"  compiled by {describe_tool(tool_check.report)}")
    print_check(report, folder, tool_check)


def describe_tool(tool_report: "ToolReport") -> str:
    """Return the tool and its version."""
    return f"{tool_report.tool} {tool_report.version}".rstrip()


def warn_about_tool(report: Report, folder: Path, tool_check: "ToolCheck") -> None:
    """Warn of what does not run on the NPU, what was not done, and outputs below the threshold.

    Args:
        report: Where results and warnings are told.
        folder: The bundle.
        tool_check: What the tool gave.
    """
    tool_report = tool_check.report
    if tool_report.stopped:
        report.warn_text(f"{folder}: the log ends at `{tool_report.stopped}`: not all was done")
    if tool_check.missing_goldens:
        goldens = ", ".join(tool_check.missing_goldens)
        report.warn_text(f"{folder}: no outputs for golden {goldens} lie beside the log")
    if tool_report.on_cpu:
        parts_text = ", ".join(tool_report.on_cpu[:MAX_LISTED])
        report.warn_text(
            f"{folder}: the NPU did not take {parts_text}: this runs on the processor, slowly"
        )
    if not tool_report.parts:
        report.print_detail("the log does not say what runs on the NPU and what on the processor")
    for output in tool_report.low_outputs:
        text = f"the cosine of `{output.name}` is {output.cosine:.4f}, below {MIN_COSINE}"
        report.warn_text(f"{folder}: {text}")


def print_layers(report: Report, tool_report: "ToolReport") -> None:
    """List the layers of the least cosine, or all of them to those who want more."""
    sorted_layers = sorted(tool_report.layers, key=lambda cosine_row: cosine_row.cosine)
    shown_layers = sorted_layers if report.verbose else sorted_layers[:MAX_LISTED]
    report.print_text("")
    report.print_table(
        ("layer", "cosine"),
        [(cosine_row.name, f"{cosine_row.cosine:.6f}") for cosine_row in shown_layers],
    )
    parts = [(cosine_row.name, cosine_row.processor) for cosine_row in tool_report.parts]
    if parts:
        report.print_table(("part", "runs on"), parts)


def print_check(report: Report, folder: Path, tool_check: "ToolCheck") -> None:
    """Say what a log and the outputs beside it tell of a package.

    Args:
        report: Where results and warnings are told.
        folder: The bundle.
        tool_check: What the tool gave.
    """
    warn_about_tool(report, folder, tool_check)
    rows = [
        (
            golden_check.golden,
            golden_check.output,
            f"{golden_check.cosine:.6f}",
            "-"
            if golden_check.has_same_class is None
            else "yes"
            if golden_check.has_same_class
            else "NO",
            "" if golden_check.holds else "STUCK" if golden_check.stuck else "DISAGREES",
        )
        for golden_check in tool_check.goldens
    ]
    if rows:
        report.print_table(("golden", "output", "cosine", "same class", ""), rows)
    elif not tool_check.missing_goldens:
        report.print_text(
            "no outputs for the goldens lie beside the log: only its own words are known"
        )
    print_layers(report, tool_check.report)


def describe_failure(folder: Path, tool_check: "ToolCheck") -> str:
    """Return the error of what does not hold."""
    if tool_check.report.stopped:
        return f"error: {folder}: the tool did not end well: see the end of {tool_check.log}"
    if tool_check.missing_goldens:
        return f"error: {folder}: the tool gave no outputs for goldens: see {tool_check.log}"
    return f"error: {folder}: the NPU does not give its goldens"
