"""What a maker's tool said of a package, and the command that asks it, as a person reads them."""

from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.cli.report import Report

if TYPE_CHECKING:
    from tcc.compiler.ir.tool_report import LayerCosine, ToolReport

LEAST = 0.98
"""The cosine below which AXERA's manuals say to look for the reason; the papers' networks are
above it."""
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
    for each in low(found):
        text = f"the cosine of `{each.name}` is {each.cosine:.4f}, below {LEAST}"
        report.notice(f"{folder}: {text}")


def low(found: "ToolReport") -> "list[LayerCosine]":
    """Return the outputs below the threshold; of a log that names none of them, the last layer."""
    outputs = found.outputs or found.layers[-1:]
    return [each for each in outputs if each.cosine < LEAST]


def layers(report: Report, found: "ToolReport") -> None:
    """List the layers of the least cosine, or all of them to those who want more."""
    listed = sorted(found.layers, key=lambda each: each.cosine)
    shown = listed if report.verbose else listed[:WORST]
    report.text("")
    report.table(("layer", "cosine"), [(each.name, f"{each.cosine:.6f}") for each in shown])
    parts = [(each.name, each.where) for each in found.parts]
    if parts:
        report.table(("part", "runs on"), parts)
