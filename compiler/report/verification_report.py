"""What `tcc verify` reports of each bundle: goldens, pairs, layers, constants and libraries."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from tcc.compiler.report import build_report, tool_report
from tcc.compiler.support.console import Report, print_problem

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
    report: Report, verified_bundles: "Sequence[VerifiedBundle]", pairs: "Sequence[OutputPair]"
) -> None:
    """Print how each golden agrees, each pair of bundles, and each layer that is known."""
    rows = [
        (
            _describe_subject(verified),
            agreement.golden,
            agreement.output,
            f"{agreement.differing:,} of {agreement.values:,}",
            f"{agreement.largest:.1e}",
            f"{agreement.difference:.1e}",
            f"{agreement.allowed:.0e}" if agreement.allowed else "0",
            _describe_verdict(agreement),
        )
        for verified in verified_bundles
        for agreement in verified.agreement
    ]
    columns = ("bundle", "golden", "output", "differ", "by", "relative", "allowed", "")
    if rows:
        report.print_table(columns, rows)
    if pairs:
        report.print_text("")
        columns = ("bundle", "and", "output", "differ", "by", "cosine", "same class", "")
        report.print_table(columns, [_build_row(pair) for pair in pairs])
    for verified in verified_bundles:
        _warn_of_equal_goldens(report, verified)
        _print_constants(report, verified)
        _print_libraries(report, str(verified.bundle.folder), verified.libraries)
        _print_checks(report, verified)
        if not (verified.tool or verified.missing) and (
            verified.simulated_file or not verified.replayed
        ):
            report.warn_text(_describe_unverified(verified))
        if verified.tool:
            folder, by = verified.bundle.folder, tool_report.describe_tool(verified.tool.report)
            report.print_text(f"{folder}: {by}, by {verified.tool.log}")
            tool_report.print_check(report, folder, verified.tool)
        if verified.missing:
            tool = verified.missing
            print_problem(
                f"error: {tool.name} is needed to {tool.needed_for}, and is not here\n"
                f"  --> {verified.bundle.folder}\n   = help: install it: {tool.install}"
            )


def _warn_of_equal_goldens(report: Report, verified: "VerifiedBundle") -> None:
    for output in verified.replayed.constant_outputs if verified.replayed else ():
        folder, message = verified.bundle.folder, f"all goldens have the same `{output}`"
        report.warn_text(f"{folder}: {message}: they do not show whether it depends on the image")


def _describe_subject(verified: "VerifiedBundle") -> str:
    """Return what ran: the bundle's artifact, or a file of a package."""
    folder = str(verified.bundle.folder)
    return f"{folder}: {verified.simulated_file}" if verified.simulated_file else folder


def _describe_unverified(verified: "VerifiedBundle") -> str:
    folder = verified.bundle.folder
    hint = (
        f"run `sh {verified.bundle.model}/build.sh` where docker is, and give its log with --logs"
    )
    file = verified.simulated_file
    ran = f"{file} ran in ONNX Runtime" if file else "nothing here runs it"
    return f"{folder}: {ran}; what the NPU gives is not verified: {hint}"


def _build_row(pair: "OutputPair") -> tuple[str, ...]:
    differ, by = f"{pair.differing:,} of {pair.values:,}", f"{pair.largest:.1e}"
    same_class = "-" if pair.same is None else f"{pair.same} of {pair.inputs}"
    verdict = "" if pair.holds else "DISAGREES"
    if pair.inputs and not pair.differing:
        verdict = "to the bit"
    return (
        pair.first,
        pair.second,
        pair.output,
        differ,
        by,
        f"{pair.cosine:.6f}",
        same_class,
        verdict,
    )


def _describe_verdict(agreement: "Agreement") -> str:
    if not agreement.holds:
        return "DISAGREES"
    return "agrees" if agreement.differing else "to the bit"


def encode_verification(
    verified_bundles: "Sequence[VerifiedBundle]",
    pairs: "Sequence[OutputPair]",
    unlike: Sequence[tuple[str, str, str]],
    code: int,
) -> dict[str, Any]:
    """Return all of it as plain data."""
    from tcc.compiler.support import json_records

    documents = []
    for verified in verified_bundles:
        manifest = verified.bundle.manifest
        documents.append(
            {
                "path": str(verified.bundle.folder),
                "model": manifest.model.name,
                "target": manifest.target,
                "precision": manifest.precision,
                "executor": manifest.goldens.executor,
                "tolerance": json_records.encode(manifest.goldens.tolerance),
                "agreement": [agreement.to_json() for agreement in verified.agreement],
                "simulated": verified.simulated_file or None,
                "tool": verified.tool and json_records.encode(verified.tool),
                "program": verified.program and _encode_program(verified.program),
                "network": verified.network and _encode_floats(verified.network),
                "constants": _encode_constants(verified.constants),
                "libraries": [_encode_library(library) for library in verified.libraries],
                "reproducer": _encode_reproducer(verified.reproducer),
                "holds": verified.holds
                if verified.replayed or verified.tool or verified.constants
                else None,
                "missing": asdict(verified.missing) if verified.missing else None,
            }
        )
    not_compared = [{"first": a, "second": b, "why": reason} for a, b, reason in unlike]
    compared = [pair.to_json() for pair in pairs]
    return {"bundles": documents, "pairs": compared, "not_compared": not_compared, "exit": code}


def _print_checks(report: Report, verified: "VerifiedBundle") -> None:
    """Print how a bundle's layers agree with what is known of them, and which was written."""
    folder = str(verified.bundle.folder)
    if verified.program:
        _print_program(report, folder, verified.program)
    if verified.network:
        _print_floats(report, folder, verified.network)
    if verified.reproducer:
        _print_reproducer(report, verified.reproducer)


def _print_program(report: Report, folder: str, check: "ProgramCheck") -> None:
    """Print how the goldens and the layers of a bundle agree with its integer program."""
    wrong = [compared for compared in check.goldens if not compared.holds]
    for compared in wrong:
        text = f"{compared.differing:,} of {compared.values:,} of output `{compared.output}`"
        report.print_text(f"{folder}: golden {compared.golden}: {text} are not the reference's")
    if check.layers is None:
        report.print_text(f"{folder}: nothing here looks into its layers")
        return
    differing = [layer for layer in check.layers if layer.differing]
    value_count = sum(layer.values for layer in check.layers)
    summary = f"{len(check.layers)} layers, {value_count:,} levels beside the reference"
    off = f"{sum(layer.differing for layer in differing):,} differ in {len(differing)} layers"
    report.print_text(f"{folder}: {summary}: {off if differing else '0 differ'}")
    shown_layers = check.layers if report.verbose else differing
    rows = [
        (
            f"  {compared.name}",
            f"{compared.differing:,} of {compared.values:,}",
            compared.largest,
            "DIFFERS"
            if not compared.holds
            else "after floats"
            if compared.differing
            else "to the bit",
        )
        for compared in shown_layers
    ]
    if rows:
        report.print_table(("  layer", "differ", "steps", ""), rows)


def _print_floats(report: Report, folder: str, check: "FloatCheck") -> None:
    """Print how the layers of a bundle of float32 agree with its network."""
    if check.layers is None:
        report.print_text(f"{folder}: nothing here looks into its layers")
        return
    wrong = [layer for layer in check.layers if not layer.holds]
    value_count = sum(layer.values for layer in check.layers)
    max_difference = max((layer.difference for layer in check.layers), default=0.0)
    summary = f"{len(check.layers)} layers, {value_count:,} floats beside the reference"
    off = (
        f"{len(wrong)} layers are off"
        if wrong
        else f"within {max_difference:.1e} of a layer's largest"
    )
    report.print_text(f"{folder}: {summary}: {off}")
    rows = [
        (f"  {float_layer.name}", f"{float_layer.largest:.1e}", f"{float_layer.difference:.1e}",
         "agrees" if float_layer.holds else "DIFFERS")
        for float_layer in (check.layers if report.verbose else wrong)
    ]  # fmt: skip
    if rows:
        report.print_table(("  layer", "by", "relative", ""), rows)


def _encode_floats(check: "FloatCheck") -> dict[str, Any]:
    """Return it as plain data; a difference that is no number is null."""
    layers = None if check.layers is None else [
        {
            "name": float_layer.name,
            "values": float_layer.values,
            "largest": float_layer.largest if isfinite(float_layer.largest) else None,
            "difference": float_layer.difference if isfinite(float_layer.difference) else None,
            "holds": float_layer.holds,
        }
        for float_layer in check.layers
    ]  # fmt: skip
    wrong = check.wrong_layer
    return {"layers": layers, "first_wrong": wrong and wrong.name, "holds": check.holds}


def _print_reproducer(report: Report, reproducer: "Reproducer") -> None:
    """Print where the layer was written to, and how to run it."""
    report.print_text(f"layer `{reproducer.layer}` by itself: {reproducer.folder}")
    if reproducer.command:
        report.print_text(f"  to run it on both runtimes:\n  {reproducer.command}")
    else:
        report.print_text("  it has no form in the spec language: its bytes are there, and no spec")


def _encode_program(check: "ProgramCheck") -> dict[str, Any]:
    """Return it as plain data."""
    wrong = check.wrong_layer
    return {
        "goldens": [agreement.to_json() for agreement in check.goldens],
        "layers": None if check.layers is None else build_report.encode_layers(check.layers),
        "first_wrong": wrong and wrong.name,
        "holds": check.holds,
    }


def _encode_reproducer(reproducer: "Reproducer | None") -> dict[str, Any] | None:
    """Return a reproducer as plain data, if there is one."""
    if reproducer is None:
        return None
    return {
        "path": str(reproducer.folder),
        "layer": reproducer.layer,
        "command": reproducer.command or None,
    }


MAX_PRINTED = 10
"""Differences of one file that are printed."""


def _print_constants(report: Report, verified: "VerifiedBundle") -> None:
    """Print how the constants of each file compare, or that nothing was compared."""
    folder = verified.bundle.folder
    if verified.constants is None:
        if verified.replayed:
            hint = "--spec SPEC (and --weights FILE) compares them"
            report.print_text(f"{folder}: its weights and scales were not compared: {hint}")
        return
    for check in verified.constants:
        if check.uncompared:
            reason = check.uncompared
            report.warn_text(f"{folder}: {check.file} was not compared with the network: {reason}")
            continue
        for difference in check.differences[:MAX_PRINTED]:
            report.print_text(f"{folder}: {check.file}: {difference}")
        if len(check.differences) > MAX_PRINTED:
            remaining = len(check.differences) - MAX_PRINTED
            report.print_text(f"{folder}: {check.file}: {remaining:,} more tensors differ")
        if check.holds:
            amounts = f"{check.tensors:,} constant tensors, {check.values:,} values"
            report.print_text(f"{folder}: {check.file}: {amounts}: all are the network's")


def describe_constant_fault(checks: "Iterable[ConstantCheck]") -> str:
    """Return what is wrong with the first file that is; nothing where none is."""
    for check in checks:
        if not check.holds:
            reason = str(check.differences[0]) if check.differences else check.problem
            return f"{check.file} is not what the network gives: {reason}"
    return ""


def _encode_constants(checks: "Iterable[ConstantCheck] | None") -> list[dict[str, Any]] | None:
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
            report.warn_text(f"{folder}: {library.file} was not verified: {library.unverified}")
        else:
            report.print_text(f"{folder}: {library.file}: {_describe_library(library)}")


def describe_library_fault(libraries: "Iterable[LibraryCheck]") -> str:
    """Return what is wrong with the first library that is; nothing where none is."""
    for library in libraries:
        if not library.holds:
            return f"{library.file} is not what its goldens are of: {_describe_library(library)}"
    return ""


def _encode_library(library: "LibraryCheck") -> dict[str, Any]:
    """Return a library as plain data."""
    return {
        **{key: text or None for key, text in asdict(library).items() if key != "agreement"},
        "file": library.file,
        "agreement": [agreement.to_json() for agreement in library.agreement],
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
