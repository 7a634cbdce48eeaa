"""`tcc verify`: goldens replayed on the artifacts, and bundles compared with each other."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli import failures, tool_report
from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.cli.report import Report, Stages, complain
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.support.external_tools import MissingTool, Tool

if TYPE_CHECKING:
    from tcc.compiler.bundle.agreement import Agreement
    from tcc.compiler.bundle.bundle_comparison import OutputPair
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.replay import Replayed
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.ir.device import Device

Bundles = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE", help="Folders that `tcc build` wrote.", show_default=False),
]
Logs = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="FILE",
        show_default=False,
        help="The log of the tool that compiled a package elsewhere, where `build.sh` wrote it.",
    ),
]


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle, and what its artifact gave or the tool that running it here lacks."""

    bundle: "Bundle"
    replayed: "Replayed | None" = None
    missing: Tool | None = None
    tool: "ToolCheck | None" = None
    """What a maker's tool said of a package, which does not run here."""

    @property
    def agreement(self) -> "tuple[Agreement, ...]":
        """How it agrees with its goldens; nothing where it did not run."""
        return self.replayed.agreement if self.replayed else ()

    @property
    def holds(self) -> bool:
        """Whether no golden disagrees."""
        return all(each.holds for each in self.agreement) and (not self.tool or self.tool.holds)


def verify(
    bundles: Bundles,
    logs: Logs = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Replay the goldens of bundles on their artifacts, and compare the bundles.

    Artifacts of one spec with the same weights are compared with each other too. It runs the
    programs in the bundles: take only those that you trust. Exit code 4: a golden disagrees.
    """
    report = Report(json, quiet, verbose)
    with report.stages() as stages:
        stages("bundles", 0, 1)
        found = [_replayed(*each, logs, stages) for each in _read(bundles)]
        stages.end()
    pairs, unlike = _pairs(found)
    _print(report, found, pairs)
    for each in found:
        for output in each.replayed.flat if each.replayed else ():
            folder, same = each.bundle.folder, f"all goldens have the same `{output}`"
            report.notice(f"{folder}: {same}: they do not show whether it depends on the image")
    for first, second, why in unlike:
        report.detail(f"{first} and {second} are not compared: {why}")
    code = _code(found, pairs)
    report.document(_document(found, pairs, unlike, code))
    if code:
        raise typer.Exit(code)


def _read(folders: Sequence[Path]) -> "list[tuple[Bundle, Device]]":
    """Return bundles with their targets, or raise what is wrong with all of them."""
    from tcc.compiler.cli import devices

    read = []
    problems: list[Diagnostic] = []
    for folder in folders:
        try:
            read.append(devices.load(folder))
        except UserError as error:
            problems += error.diagnostics
    if problems:
        raise UserError(tuple(problems))
    return read


def _replayed(
    bundle: "Bundle", device: "Device", log: Path | None, stages: Stages
) -> VerifiedBundle:
    from tcc.compiler.bundle import tool_check
    from tcc.compiler.bundle.replay import replay

    stages(f"{bundle.folder}", 0, 1)
    if log or device.packager:
        return VerifiedBundle(bundle, tool=tool_check.check(bundle, device, log))
    try:
        return VerifiedBundle(bundle, replay(bundle, device))
    except MissingTool as error:
        return VerifiedBundle(bundle, missing=error.tool)


def _pairs(
    found: Sequence[VerifiedBundle],
) -> "tuple[list[OutputPair], list[tuple[str, str, str]]]":
    """Return how bundles compare, and which do not and why."""
    from tcc.compiler.bundle import bundle_comparison

    made: list[OutputPair] = []
    unlike = []
    ran = [each.replayed for each in found if each.replayed]
    # Each with each: equality within a tolerance is not handed on from one pair to the next.
    for a, b in combinations(ran, 2):
        if why := bundle_comparison.unlike(a.bundle, b.bundle):
            unlike.append((str(a.bundle.folder), str(b.bundle.folder), why))
        else:
            made += bundle_comparison.compared(a, b)
    return made, unlike


def _print(report: Report, found: Sequence[VerifiedBundle], pairs: "Sequence[OutputPair]") -> None:
    rows = [
        (
            str(each.bundle.folder),
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


def _code(found: Sequence[VerifiedBundle], pairs: "Sequence[OutputPair]") -> int:
    """Return the exit code, once it is said what does not agree."""
    wrong = any(not each.holds for each in found)
    for each in found:
        if not each.holds:
            folder = each.bundle.folder
            complain(
                tool_report.failed(folder, each.tool)
                if each.tool
                else f"error: {folder}: the artifact does not give its goldens"
            )
    apart = [pair for pair in pairs if not pair.holds]
    for pair in apart:
        complain(f"error: {pair.first} and {pair.second} promise the same bits, and differ")
    if wrong or apart:
        return failures.BELOW
    # What is wrong goes before what could not be looked at.
    return failures.TOOL if any(each.missing for each in found) else 0


def _document(
    found: Sequence[VerifiedBundle],
    pairs: "Sequence[OutputPair]",
    unlike: Sequence[tuple[str, str, str]],
    code: int,
) -> dict[str, Any]:
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
                "tool": each.tool and json_records.encode(each.tool),
                "holds": each.holds if each.replayed or each.tool else None,
                "missing": asdict(each.missing) if each.missing else None,
            }
        )
    apart = [{"first": a, "second": b, "why": why} for a, b, why in unlike]
    compared = [pair.as_json() for pair in pairs]
    return {"bundles": listed, "pairs": compared, "not_compared": apart, "exit": code}
