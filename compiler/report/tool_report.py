"""What a maker's tool said of a package, and the command that asks it, as a person reads them."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.target import LEAST
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.ir.target import ToolReport

WORST = 10
"""Layers that are listed."""


def say(report: Report, folder: Path, found: "ToolCheck | None", uncompiled: str) -> None:
    """Say what was found when a package was compiled, or how to have it compiled elsewhere.

    Args:
        report: Where results and warnings are told.
        folder: The bundle.
        found: What the tool gave; None where none compiled the package.
        uncompiled: Why not.
    """
    if found is None:
        report.text(f"  not compiled: {uncompiled}. Where docker has the tool's image:")
        # A line to be copied: paths may have blanks.
        report.text(f"    sh {shlex.quote(f'{folder}/model/build.sh')}")
        return
    report.text(f"  compiled by {named(found.report)}")
    checked(report, folder, found)


def named(found: "ToolReport") -> str:
    """Return the tool and its version."""
    return f"{found.tool} {found.version}".rstrip()


def doubts(report: Report, folder: Path, checked: "ToolCheck") -> None:
    """Warn of what does not run on the NPU, what was not done, and outputs below the threshold.

    Args:
        report: Where results and warnings are told.
        folder: The bundle.
        checked: What the tool gave.
    """
    found = checked.report
    if found.stopped:
        report.notice(f"{folder}: the log ends at `{found.stopped}`: not all was done")
    if checked.lacking:
        goldens = ", ".join(checked.lacking)
        report.notice(f"{folder}: no outputs for golden {goldens} lie beside the log")
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
    """Say what a log and the outputs beside it tell of a package.

    Args:
        report: Where results and warnings are told.
        folder: The bundle.
        found: What the tool gave.
    """
    doubts(report, folder, found)
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
    elif not found.lacking:
        report.text("no outputs for the goldens lie beside the log: only its own words are known")
    layers(report, found.report)


def failed(folder: Path, found: "ToolCheck") -> str:
    """Return the error of what does not hold."""
    if found.report.stopped:
        return f"error: {folder}: the tool did not end well: see the end of {found.log}"
    if found.lacking:
        return f"error: {folder}: the tool gave no outputs for goldens: see {found.log}"
    return f"error: {folder}: the NPU does not give its goldens"
