"""What `tcc verify` says of layers: how many agree with the integer program, and which does not."""

from math import isfinite
from typing import TYPE_CHECKING, Any

from tcc.compiler.report import agreement_table
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.float_check import FloatCheck
    from tcc.compiler.bundle.program_check import ProgramCheck
    from tcc.compiler.driver.reproducer import Reproducer
    from tcc.compiler.driver.verification import VerifiedBundle


def say_known(report: Report, each: "VerifiedBundle") -> None:
    """Print how a bundle's layers agree with what is known of them, and which was written."""
    folder = str(each.bundle.folder)
    if each.program:
        say(report, folder, each.program)
    if each.network:
        say_floats(report, folder, each.network)
    if each.reproducer:
        say_reproducer(report, each.reproducer)


def say(report: Report, folder: str, found: "ProgramCheck") -> None:
    """Print how the goldens and the layers of a bundle agree with its integer program."""
    wrong = [one for one in found.goldens if not one.holds]
    for one in wrong:
        text = f"{one.differing:,} of {one.values:,} of output `{one.output}`"
        report.text(f"{folder}: golden {one.golden}: {text} are not the reference's")
    if found.layers is None:
        report.text(f"{folder}: nothing here looks into its layers")
        return
    differing = [layer for layer in found.layers if layer.differing]
    values = sum(layer.values for layer in found.layers)
    beside = f"{len(found.layers)} layers, {values:,} levels beside the reference"
    off = f"{sum(layer.differing for layer in differing):,} differ in {len(differing)} layers"
    report.text(f"{folder}: {beside}: {off if differing else '0 differ'}")
    shown = found.layers if report.verbose else differing
    rows = [
        (
            f"  {one.name}",
            f"{one.differing:,} of {one.values:,}",
            one.largest,
            "DIFFERS" if not one.holds else "after floats" if one.differing else "to the bit",
        )
        for one in shown
    ]
    if rows:
        report.table(("  layer", "differ", "steps", ""), rows)


def say_floats(report: Report, folder: str, found: "FloatCheck") -> None:
    """Print how the layers of a bundle of float32 agree with its network."""
    if found.layers is None:
        report.text(f"{folder}: nothing here looks into its layers")
        return
    wrong = [layer for layer in found.layers if not layer.holds]
    values = sum(layer.values for layer in found.layers)
    most = max((layer.difference for layer in found.layers), default=0.0)
    beside = f"{len(found.layers)} layers, {values:,} floats beside the reference"
    off = f"{len(wrong)} layers are off" if wrong else f"within {most:.1e} of a layer's largest"
    report.text(f"{folder}: {beside}: {off}")
    rows = [
        (f"  {one.name}", f"{one.largest:.1e}", f"{one.difference:.1e}",
         "agrees" if one.holds else "DIFFERS")
        for one in (found.layers if report.verbose else wrong)
    ]  # fmt: skip
    if rows:
        report.table(("  layer", "by", "relative", ""), rows)


def floats(found: "FloatCheck") -> dict[str, Any]:
    """Return it as plain data; a difference that is no number is null."""
    layers = None if found.layers is None else [
        {
            "name": one.name,
            "values": one.values,
            "largest": one.largest if isfinite(one.largest) else None,
            "difference": one.difference if isfinite(one.difference) else None,
            "holds": one.holds,
        }
        for one in found.layers
    ]  # fmt: skip
    wrong = found.wrong_layer
    return {"layers": layers, "first_wrong": wrong and wrong.name, "holds": found.holds}


def say_reproducer(report: Report, made: "Reproducer") -> None:
    """Print where the layer was written to, and how to run it."""
    report.text(f"layer `{made.layer}` by itself: {made.folder}")
    if made.command:
        report.text(f"  to run it on both runtimes:\n  {made.command}")
    else:
        report.text("  it has no form in the spec language: its bytes are there, and no spec")


def document(found: "ProgramCheck") -> dict[str, Any]:
    """Return it as plain data."""
    wrong = found.wrong_layer
    return {
        "goldens": [one.as_json() for one in found.goldens],
        "layers": None if found.layers is None else agreement_table.layers(found.layers),
        "first_wrong": wrong and wrong.name,
        "holds": found.holds,
    }


def document_of(made: "Reproducer | None") -> dict[str, Any] | None:
    """Return a reproducer as plain data, if there is one."""
    if made is None:
        return None
    return {"path": str(made.folder), "layer": made.layer, "command": made.command or None}
