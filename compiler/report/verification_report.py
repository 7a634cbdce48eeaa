"""The report of `tcc verify`: goldens, pairs of bundles, layers, constants and libraries."""

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
    """Print the agreement of goldens, of pairs of bundles, and of layers."""
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
    columns = (
        "bundle", "golden", "output", "differ", "max. difference", "relative", "tolerance", "",
    )  # fmt: skip
    if rows:
        report.print_table(columns, rows)
    if pairs:
        report.print_text("")
        columns = (
            "bundle", "and", "output", "differ", "max. difference", "cosine", "same class", "",
        )  # fmt: skip
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
            report.print_text(f"{folder}: compiled by {by}, from the log {verified.tool.log}")
            tool_report.print_check(report, folder, verified.tool)
        if verified.missing:
            tool = verified.missing
            print_problem(
                f"error: {tool.name} is needed to {tool.needed_for}, but it is not installed\n"
                f"  --> {verified.bundle.folder}\n   = help: install it: {tool.install}"
            )


def _warn_of_equal_goldens(report: Report, verified: "VerifiedBundle") -> None:
    for output in verified.replayed.constant_outputs if verified.replayed else ():
        folder, message = verified.bundle.folder, f"all goldens have the same output `{output}`"
        report.warn_text(
            f"{folder}: {message}. They cannot show whether the output depends on the image"
        )


def _describe_subject(verified: "VerifiedBundle") -> str:
    """Return what was run: the bundle's artifact, or a file of a package."""
    folder = str(verified.bundle.folder)
    return f"{folder}: {verified.simulated_file}" if verified.simulated_file else folder


def _describe_unverified(verified: "VerifiedBundle") -> str:
    folder = verified.bundle.folder
    hint = (
        f"run `sh {verified.bundle.model}/build.sh` on a machine with docker, then give its log"
        " with --logs"
    )
    file = verified.simulated_file
    ran = f"{file} ran in ONNX Runtime" if file else "no runtime here can run it"
    return f"{folder}: {ran}. The NPU's outputs are not verified: {hint}"


def _build_row(pair: "OutputPair") -> tuple[str, ...]:
    differ, by = f"{pair.differing:,} of {pair.values:,}", f"{pair.largest:.1e}"
    same_class = "-" if pair.same is None else f"{pair.same} of {pair.inputs}"
    verdict = "" if pair.holds else "DISAGREES"
    if pair.inputs and not pair.differing:
        verdict = "bit-exact"
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
    return "agrees" if agreement.differing else "bit-exact"


def encode_verification(
    verified_bundles: "Sequence[VerifiedBundle]",
    pairs: "Sequence[OutputPair]",
    unlike: Sequence[tuple[str, str, str]],
    code: int,
) -> dict[str, Any]:
    """Return the results of all bundles as plain data."""
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
    """Print the agreement of a bundle's layers, and the reproducer that was written."""
    folder = str(verified.bundle.folder)
    if verified.program:
        _print_program(report, folder, verified.program)
    if verified.network:
        _print_floats(report, folder, verified.network)
    if verified.reproducer:
        _print_reproducer(report, verified.reproducer)


def _print_program(report: Report, folder: str, check: "ProgramCheck") -> None:
    """Print the agreement of a bundle's goldens and layers with its int8 program."""
    wrong = [compared for compared in check.goldens if not compared.holds]
    for compared in wrong:
        text = f"{compared.differing:,} of {compared.values:,} values of output `{compared.output}`"
        report.print_text(f"{folder}: golden {compared.golden}: {text} differ from the reference")
    if check.layers is None:
        report.print_text(f"{folder}: layers not compared: their values are not available here")
        return
    differing = [layer for layer in check.layers if layer.differing]
    value_count = sum(layer.values for layer in check.layers)
    summary = f"{len(check.layers)} layers, {value_count:,} values compared with the reference"
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
            else "after a float layer"
            if compared.differing
            else "bit-exact",
        )
        for compared in shown_layers
    ]
    if rows:
        report.print_table(("  layer", "differ", "max. steps", ""), rows)


def _print_floats(report: Report, folder: str, check: "FloatCheck") -> None:
    """Print the agreement of an fp32 bundle's layers with its network."""
    if check.layers is None:
        report.print_text(f"{folder}: layers not compared: their values are not available here")
        return
    wrong = [layer for layer in check.layers if not layer.holds]
    value_count = sum(layer.values for layer in check.layers)
    max_difference = max((layer.difference for layer in check.layers), default=0.0)
    summary = f"{len(check.layers)} layers, {value_count:,} values compared with the reference"
    off = (
        f"{len(wrong)} layers differ"
        if wrong
        else f"relative difference at most {max_difference:.1e}"
    )
    report.print_text(f"{folder}: {summary}: {off}")
    rows = [
        (f"  {float_layer.name}", f"{float_layer.largest:.1e}", f"{float_layer.difference:.1e}",
         "agrees" if float_layer.holds else "DIFFERS")
        for float_layer in (check.layers if report.verbose else wrong)
    ]  # fmt: skip
    if rows:
        report.print_table(("  layer", "max. difference", "relative", ""), rows)


def _encode_floats(check: "FloatCheck") -> dict[str, Any]:
    """Return the check as plain data; a difference that is not finite is null."""
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
    """Print the folder of a layer's reproducer, and how to run it."""
    report.print_text(f"reproducer of layer `{reproducer.layer}`: {reproducer.folder}")
    if reproducer.command:
        report.print_text(f"  run it on both runtimes with:\n  {reproducer.command}")
    else:
        report.print_text("  it has no spec: the spec language cannot express this layer")


def _encode_program(check: "ProgramCheck") -> dict[str, Any]:
    """Return the check as plain data."""
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
"""Maximum differences printed per file."""


def _print_constants(report: Report, verified: "VerifiedBundle") -> None:
    """Print the comparison of each file's constants with the network's."""
    folder = verified.bundle.folder
    if verified.constants is None:
        if verified.replayed:
            hint = "to compare them, give --spec SPEC (and --weights FILE)"
            report.print_text(f"{folder}: weights and scales not compared: {hint}")
        return
    for check in verified.constants:
        if check.uncompared:
            reason = check.uncompared
            report.warn_text(f"{folder}: {check.file} not compared with the network: {reason}")
            continue
        for difference in check.differences[:MAX_PRINTED]:
            report.print_text(f"{folder}: {check.file}: {difference}")
        if len(check.differences) > MAX_PRINTED:
            remaining = len(check.differences) - MAX_PRINTED
            report.print_text(f"{folder}: {check.file}: {remaining:,} more tensors differ")
        if check.holds:
            amounts = f"{check.tensors:,} constant tensors, {check.values:,} values"
            report.print_text(f"{folder}: {check.file}: {amounts}: all equal the network's")


def describe_constant_fault(checks: "Iterable[ConstantCheck]") -> str:
    """Return the first wrong file and its fault; an empty string if all files are correct."""
    for check in checks:
        if not check.holds:
            reason = str(check.differences[0]) if check.differences else check.problem
            return f"{check.file} differs from the network: {reason}"
    return ""


def _encode_constants(checks: "Iterable[ConstantCheck] | None") -> list[dict[str, Any]] | None:
    """Return the checks as plain data; null if nothing was compared."""
    if checks is None:
        return None
    return [
        {**asdict(check), "holds": None if check.uncompared else check.holds} for check in checks
    ]


def _print_libraries(report: Report, folder: str, libraries: "Iterable[LibraryCheck]") -> None:
    """Print a line for each library, and a warning for each that was not verified."""
    for library in libraries:
        if library.unverified:
            report.warn_text(f"{folder}: {library.file} not verified: {library.unverified}")
        else:
            report.print_text(f"{folder}: {library.file}: {_describe_library(library)}")


def describe_library_fault(libraries: "Iterable[LibraryCheck]") -> str:
    """Return the first wrong library and its fault; an empty string if all are correct."""
    for library in libraries:
        if not library.holds:
            return f"{library.file} does not match its goldens: {_describe_library(library)}"
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
            return f"a test program linked with it differs in {amounts} of {output}"
    goldens = len({agreement.golden for agreement in library.agreement})
    bits = "" if any(agreement.differing for agreement in library.agreement) else ", bit-exact"
    return f"a test program linked with it matches the {goldens} goldens{bits}"
