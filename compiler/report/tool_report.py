"""Report of a vendor toolchain's log, and the command that compiles a package."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.target import MIN_COSINE
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.ir.target import ToolReport

MAX_LISTED = 10
"""Maximum layers listed."""


def print_tool(
    report: Report, folder: Path, tool_check: "ToolCheck | None", uncompiled: str
) -> None:
    """Print the results of compiling a package, or how to compile it elsewhere.

    Args:
        report: Receives results and warnings.
        folder: The bundle.
        tool_check: The toolchain's results; None if the package was not compiled.
        uncompiled: Why it was not compiled.
    """
    if tool_check is None:
        report.print_text(
            f"  not compiled: {uncompiled}. To compile it, run this where docker has the"
            " toolchain's image:"
        )
        # The user copies this line; paths may contain spaces.
        report.print_text(f"    sh {shlex.quote(f'{folder}/model/build.sh')}")
        return
    report.print_text(f"  compiled by {describe_tool(tool_check.report)}")
    print_check(report, folder, tool_check)


def describe_tool(tool_report: "ToolReport") -> str:
    """Return the toolchain's name and version."""
    return f"{tool_report.tool} {tool_report.version}".rstrip()


def warn_about_tool(report: Report, folder: Path, tool_check: "ToolCheck") -> None:
    """Warn of an incomplete log, parts that run on the CPU, and outputs below the threshold.

    Args:
        report: Receives results and warnings.
        folder: The bundle.
        tool_check: The toolchain's results.
    """
    tool_report = tool_check.report
    if tool_report.stopped:
        report.warn_text(
            f"{folder}: the log ends at command `{tool_report.stopped}`: compilation is incomplete"
        )
    if tool_check.missing_goldens:
        goldens = ", ".join(tool_check.missing_goldens)
        report.warn_text(f"{folder}: the log's folder has no outputs for golden {goldens}")
    if tool_report.on_cpu:
        parts_text = ", ".join(tool_report.on_cpu[:MAX_LISTED])
        report.warn_text(
            f"{folder}: runs on the CPU instead of the NPU, which is slow: {parts_text}"
        )
    if not tool_report.parts:
        report.print_detail("the log does not list which parts run on the NPU and on the CPU")
    for output in tool_report.inaccurate_outputs:
        text = (
            f"the cosine of output `{output.name}` is {output.cosine:.4f}, below the minimum"
            f" {MIN_COSINE}"
        )
        report.warn_text(f"{folder}: {text}")


def print_layers(report: Report, tool_report: "ToolReport") -> None:
    """Print the layers with the lowest cosine; all layers if verbose."""
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
    """Print the results in a toolchain's log and in the outputs in its folder.

    Args:
        report: Receives results and warnings.
        folder: The bundle.
        tool_check: The toolchain's results.
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
            "the log's folder has no outputs for the goldens: only the log itself was checked"
        )
    print_layers(report, tool_check.report)


def describe_failure(folder: Path, tool_check: "ToolCheck") -> str:
    """Return the error message of a failed check."""
    if tool_check.report.stopped:
        return f"error: {folder}: the toolchain failed: see the end of {tool_check.log}"
    if tool_check.missing_goldens:
        return (
            f"error: {folder}: the toolchain gave no outputs for some goldens: see {tool_check.log}"
        )
    return f"error: {folder}: the NPU's outputs do not match the golden outputs"
