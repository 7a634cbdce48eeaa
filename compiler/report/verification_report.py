"""What `tcc verify` reports of each bundle: goldens, pairs, layers, constants and libraries."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from tcc.compiler.report import build_report, tool_report
from tcc.compiler.support.console import Report, complain

if TYPE_CHECKING:
    from tcc.compiler.bundle.agreement import Agreement
    from tcc.compiler.bundle.bundle_comparison import OutputPair
    from tcc.compiler.bundle.float_check import FloatCheck
    from tcc.compiler.bundle.library_check import LibraryCheck
    from tcc.compiler.bundle.program_check import ProgramCheck
    from tcc.compiler.driver.reproducer import Reproducer
    from tcc.compiler.driver.verification import VerifiedBundle
    from tcc.compiler.ir.constant_checker import ConstantCheck


def print_bundles(
    report: Report, found: "Sequence[VerifiedBundle]", pairs: "Sequence[OutputPair]"
) -> None:
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
        _print_constants(report, each)
        _print_libraries(report, str(each.bundle.folder), each.libraries)
        _print_known(report, each)
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
                "program": each.program and _document_program(each.program),
                "network": each.network and _document_floats(each.network),
                "constants": _document_constants(each.constants),
                "libraries": [_document_library(library) for library in each.libraries],
                "reproducer": _document_reproducer(each.reproducer),
                "holds": each.holds if each.replayed or each.tool or each.constants else None,
                "missing": asdict(each.missing) if each.missing else None,
            }
        )
    apart = [{"first": a, "second": b, "why": why} for a, b, why in unlike]
    compared = [pair.as_json() for pair in pairs]
    return {"bundles": listed, "pairs": compared, "not_compared": apart, "exit": code}


def _print_known(report: Report, each: "VerifiedBundle") -> None:
    """Print how a bundle's layers agree with what is known of them, and which was written."""
    folder = str(each.bundle.folder)
    if each.program:
        _print_program(report, folder, each.program)
    if each.network:
        _print_floats(report, folder, each.network)
    if each.reproducer:
        _print_reproducer(report, each.reproducer)


def _print_program(report: Report, folder: str, found: "ProgramCheck") -> None:
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


def _print_floats(report: Report, folder: str, found: "FloatCheck") -> None:
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


def _document_floats(found: "FloatCheck") -> dict[str, Any]:
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


def _print_reproducer(report: Report, made: "Reproducer") -> None:
    """Print where the layer was written to, and how to run it."""
    report.text(f"layer `{made.layer}` by itself: {made.folder}")
    if made.command:
        report.text(f"  to run it on both runtimes:\n  {made.command}")
    else:
        report.text("  it has no form in the spec language: its bytes are there, and no spec")


def _document_program(found: "ProgramCheck") -> dict[str, Any]:
    """Return it as plain data."""
    wrong = found.wrong_layer
    return {
        "goldens": [one.as_json() for one in found.goldens],
        "layers": None if found.layers is None else build_report.document_layers(found.layers),
        "first_wrong": wrong and wrong.name,
        "holds": found.holds,
    }


def _document_reproducer(made: "Reproducer | None") -> dict[str, Any] | None:
    """Return a reproducer as plain data, if there is one."""
    if made is None:
        return None
    return {"path": str(made.folder), "layer": made.layer, "command": made.command or None}


MAX_PRINTED = 10
"""Differences of one file that are printed."""


def _print_constants(report: Report, verified: "VerifiedBundle") -> None:
    """Print how the constants of each file compare, or that nothing was compared."""
    folder = verified.bundle.folder
    if verified.constants is None:
        if verified.replayed:
            hint = "--spec SPEC (and --weights FILE) compares them"
            report.text(f"{folder}: its weights and scales were not compared: {hint}")
        return
    for check in verified.constants:
        if check.uncompared:
            reason = check.uncompared
            report.notice(f"{folder}: {check.file} was not compared with the network: {reason}")
            continue
        for difference in check.differences[:MAX_PRINTED]:
            report.text(f"{folder}: {check.file}: {difference}")
        if len(check.differences) > MAX_PRINTED:
            remaining = len(check.differences) - MAX_PRINTED
            report.text(f"{folder}: {check.file}: {remaining:,} more tensors differ")
        if check.holds:
            amounts = f"{check.tensors:,} constant tensors, {check.values:,} values"
            report.text(f"{folder}: {check.file}: {amounts}: all are the network's")


def describe_constant_fault(checks: "Iterable[ConstantCheck]") -> str:
    """Return what is wrong with the first file that is; nothing where none is."""
    for check in checks:
        if not check.holds:
            reason = str(check.differences[0]) if check.differences else check.problem
            return f"{check.file} is not what the network gives: {reason}"
    return ""


def _document_constants(checks: "Iterable[ConstantCheck] | None") -> list[dict[str, Any]] | None:
    """Return it as plain data; null where nothing was compared."""
    if checks is None:
        return None
    return [
        {**asdict(check), "holds": None if check.uncompared else check.holds} for check in checks
    ]


def _print_libraries(report: Report, folder: str, libraries: "Iterable[LibraryCheck]") -> None:
    """Print a line for each library; a library that was not verified is a warning."""
    for library in libraries:
        if library.unverified:
            report.notice(f"{folder}: {library.file} was not verified: {library.unverified}")
        else:
            report.text(f"{folder}: {library.file}: {_describe_library(library)}")


def describe_library_fault(libraries: "Iterable[LibraryCheck]") -> str:
    """Return what is wrong with the first library that is; nothing where none is."""
    for library in libraries:
        if not library.holds:
            return f"{library.file} is not what its goldens are of: {_describe_library(library)}"
    return ""


def _document_library(library: "LibraryCheck") -> dict[str, Any]:
    """Return a library as plain data."""
    return {
        **{key: text or None for key, text in asdict(library).items() if key != "agreement"},
        "file": library.file,
        "agreement": [agreement.as_json() for agreement in library.agreement],
        "holds": None if library.unverified else library.holds,
    }


def _describe_library(library: "LibraryCheck") -> str:
    if library.problem:
        return library.problem
    if library.same_bytes:
        return f"{library.same_bytes}, byte for byte"
    for agreement in library.agreement:
        if not agreement.holds:
            amounts = f"{agreement.differing:,} of {agreement.values:,} values"
            output = f"output `{agreement.output}` of golden {agreement.golden}"
            return f"a program that uses it differs in {amounts} of {output}"
    goldens = len({agreement.golden for agreement in library.agreement})
    bits = "" if any(agreement.differing for agreement in library.agreement) else ", to the bit"
    return f"a program that uses it gives the {goldens} goldens{bits}"
