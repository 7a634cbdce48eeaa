"""What `tcc verify` found of each bundle, and how it says so."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.report import (
    tool_report,
    verified_constants,
    verified_layers,
    verified_libraries,
)
from tcc.compiler.support.console import Report, complain

if TYPE_CHECKING:
    from tcc.compiler.bundle.agreement import Agreement
    from tcc.compiler.bundle.bundle_comparison import OutputPair
    from tcc.compiler.driver.verification import VerifiedBundle


def say(report: Report, found: "Sequence[VerifiedBundle]", pairs: "Sequence[OutputPair]") -> None:
    """Print how each golden agrees, each pair of bundles, and each layer that is known."""
    rows = [
        (
            _subject(each),
            one.golden,
            one.output,
            f"{one.differing:,} of {one.values:,}",
            f"{one.largest:.1e}",
            f"{one.difference:.1e}",
            f"{one.allowed:.0e}" if one.allowed else "0",
            _verdict(one),
        )
        for each in found
        for one in each.agreement
    ]
    columns = ("bundle", "golden", "output", "differ", "by", "relative", "allowed", "")
    if rows:
        report.table(columns, rows)
    if pairs:
        report.text("")
        columns = ("bundle", "and", "output", "differ", "by", "cosine", "same class", "")
        report.table(columns, [_row(pair) for pair in pairs])
    for each in found:
        _warn_of_equal_goldens(report, each)
        verified_constants.report_constants(report, each)
        verified_libraries.report_libraries(report, str(each.bundle.folder), each.libraries)
        verified_layers.say_known(report, each)
        if not (each.tool or each.missing) and (each.simulated_file or not each.replayed):
            report.notice(_unrun(each))
        if each.tool:
            folder, by = each.bundle.folder, tool_report.named(each.tool.report)
            report.text(f"{folder}: {by}, by {each.tool.log}")
            tool_report.checked(report, folder, each.tool)
        if each.missing:
            tool = each.missing
            complain(
                f"error: {tool.name} is needed to {tool.needed_for}, and is not here\n"
                f"  --> {each.bundle.folder}\n   = help: install it: {tool.install}"
            )


def _warn_of_equal_goldens(report: Report, verified: "VerifiedBundle") -> None:
    for output in verified.replayed.flat if verified.replayed else ():
        folder, same = verified.bundle.folder, f"all goldens have the same `{output}`"
        report.notice(f"{folder}: {same}: they do not show whether it depends on the image")


def _subject(verified: "VerifiedBundle") -> str:
    """Return what ran: the bundle's artifact, or a file of a package."""
    folder = str(verified.bundle.folder)
    return f"{folder}: {verified.simulated_file}" if verified.simulated_file else folder


def _unrun(verified: "VerifiedBundle") -> str:
    folder = verified.bundle.folder
    hint = (
        f"run `sh {verified.bundle.model}/build.sh` where docker is, and give its log with --logs"
    )
    file = verified.simulated_file
    ran = f"{file} ran in ONNX Runtime" if file else "nothing here runs it"
    return f"{folder}: {ran}; what the NPU gives is not verified: {hint}"


def _row(pair: "OutputPair") -> tuple[str, ...]:
    differ, by = f"{pair.differing:,} of {pair.values:,}", f"{pair.largest:.1e}"
    same = "-" if pair.same is None else f"{pair.same} of {pair.inputs}"
    verdict = "" if pair.holds else "DISAGREES"
    if pair.inputs and not pair.differing:
        verdict = "to the bit"
    return (pair.first, pair.second, pair.output, differ, by, f"{pair.cosine:.6f}", same, verdict)


def _verdict(found: "Agreement") -> str:
    if not found.holds:
        return "DISAGREES"
    return "agrees" if found.differing else "to the bit"


def document(
    found: "Sequence[VerifiedBundle]",
    pairs: "Sequence[OutputPair]",
    unlike: Sequence[tuple[str, str, str]],
    code: int,
) -> dict[str, Any]:
    """Return all of it as plain data."""
    from tcc.compiler.support import json_records

    listed = []
    for each in found:
        about = each.bundle.manifest
        listed.append(
            {
                "path": str(each.bundle.folder),
                "model": about.model.name,
                "target": about.target,
                "precision": about.precision,
                "executor": about.goldens.executor,
                "tolerance": json_records.encode(about.goldens.tolerance),
                "agreement": [one.as_json() for one in each.agreement],
                "simulated": each.simulated_file or None,
                "tool": each.tool and json_records.encode(each.tool),
                "program": each.program and verified_layers.document(each.program),
                "network": each.network and verified_layers.floats(each.network),
                "constants": verified_constants.document(each.constants),
                "libraries": [verified_libraries.document(library) for library in each.libraries],
                "reproducer": verified_layers.document_of(each.reproducer),
                "holds": each.holds if each.replayed or each.tool or each.constants else None,
                "missing": asdict(each.missing) if each.missing else None,
            }
        )
    apart = [{"first": a, "second": b, "why": why} for a, b, why in unlike]
    compared = [pair.as_json() for pair in pairs]
    return {"bundles": listed, "pairs": compared, "not_compared": apart, "exit": code}
