"""What `tcc build` says of the bundles that it wrote."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tcc.compiler.driver.write_bundle import WrittenBundle
from tcc.compiler.report import agreement_table, tool_report
from tcc.compiler.support.console import Report, Stages, size

if TYPE_CHECKING:
    from tcc.compiler.driver.target_agreement import BuildAgreement


def say(report: Report, written: "Sequence[WrittenBundle]", stages: Stages) -> None:
    """Print where the bundles are, what they take, and how each agrees."""
    for each in written:
        report.text(str(each.folder))
        if report.quiet:
            continue
        report.text(f"  {_sizes(each)}")
        report.text(f"  {each}")
        for line in _notes(each):
            report.text(f"  {line}")
        if each.archive:
            inside = each.folder in each.archive.parents
            text = "they leave with the package" if inside else "no part of the package"
            report.text(f"  {each.archive} holds images of the calibration: {text}")
            tool_report.say(report, each.folder, each.tool, each.uncompiled)
        if report.verbose:
            rows = [(f"  {file.path}", size(file.bytes)) for file in each.manifest.files]
            report.table(("  file", "size"), rows)
            if each.layers:
                report.table(("  layer", "kernel"), [(f"  {n}", k) for n, k in each.layers.items()])
    if report.verbose:
        report.text("")
        rows = [(name, f"{seconds:.2f}") for name, seconds in stages.seconds.items()]
        report.table(("stage", "seconds"), rows)


def _notes(each: "WrittenBundle") -> Iterator[str]:
    if each.advice:
        yield each.advice
    if each.cached:
        yield f"cached: {', '.join(each.cached)}; `--no-cache` builds anew"


def _sizes(each: "WrittenBundle") -> str:
    """Return what the target's files take, what they take at fp32, and what the bundle takes."""
    artifact, listed = each.artifact, each.manifest.files
    total = sum(file.bytes for file in artifact)
    what = PurePosixPath(artifact[0].path).name if len(artifact) == 1 else f"{len(artifact)} files"
    beside = f", {total / each.full:.1%} of {size(each.full)} at fp32" if each.full else ""
    if each.compares_size and not each.full:
        beside = ", its size at fp32 is unknown: the target cannot build it so"
    whole = sum(file.bytes for file in listed)
    return f"{what}: {size(total)}{beside}; with goldens and all, {size(whole)}"


def document(
    written: "Sequence[WrittenBundle]", stages: Stages, found: "BuildAgreement | None"
) -> dict[str, Any]:
    """Return all bundles as plain data, and how they agree with each other, if they are several."""
    from tcc.compiler.support import json_records

    bundles = []
    for each in written:
        about = each.manifest
        bundles.append(
            {
                "path": str(each.folder),
                "model": about.model.name,
                "target": about.target,
                "precision": about.precision,
                "weights": json_records.encode(about.weights),
                "calibration": about.calibration and json_records.encode(about.calibration),
                "bytes": sum(file.bytes for file in about.files),
                "artifact_bytes": sum(file.bytes for file in each.artifact),
                "artifact_bytes_fp32": each.full,
                "files": [json_records.encode(file) for file in about.files],
                "agreement": [found.as_json() for found in each.agreement],
                "unchecked": each.unchecked or None,
                "simulated": each.simulated_file or None,
                "cached": list(each.cached),
                "compiled": about.compiled and json_records.encode(about.compiled),
                "uncompiled": each.uncompiled or None,
                "advice": each.advice or None,
                "tool": each.tool and json_records.encode(each.tool),
                "warnings": [json_records.encode(one) for one in about.warnings],
            }
        )
    more = {"agreement": agreement_table.document(found)} if found else {}
    return {"bundles": bundles, **more, "seconds": stages.seconds}
