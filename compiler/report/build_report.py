"""What `tcc build` prints of its bundles, and how several targets agree."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tcc.compiler.report import tool_report
from tcc.compiler.support.console import Report, Stages, size, table

if TYPE_CHECKING:
    from tcc.compiler.bundle.program_check import LayerAgreement
    from tcc.compiler.driver.build import WrittenBundle
    from tcc.compiler.driver.target_agreement import BuildAgreement, ComparedTarget, TargetPair


def print_bundles(report: Report, written: "Sequence[WrittenBundle]", stages: Stages) -> None:
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
    more = {"agreement": _document_agreement(found)} if found else {}
    return {"bundles": bundles, **more, "seconds": stages.seconds}


COLUMNS = ("target", "precision", "inputs", "layers", "values", "differ", "largest step", "")


def print_agreement(report: Report, found: "BuildAgreement") -> None:
    """Print how each target agrees with the reference, and each with each."""
    report.text("")
    report.text("agreement with the reference executor, over goldens and images")
    report.lines(table(COLUMNS, [_agreement_row(each) for each in found.targets]))
    for each in found.targets:
        if each.floats:
            report.text(f"  {each.device.name}: {each.floats}")
    if found.pairs:
        columns = ("target", "and", "output", "values", "differ", "by", "same class", "")
        report.text("")
        report.lines(table(columns, [_pair_row(pair) for pair in found.pairs]))


def _document_agreement(found: "BuildAgreement") -> dict[str, Any]:
    """Return it as plain data."""
    return {
        "targets": [_document_target(each) for each in found.targets],
        "pairs": [{**pair.found.as_json(), "why": pair.why or None} for pair in found.pairs],
        "holds": found.holds,
    }


def document_layers(found: "Sequence[LayerAgreement]") -> list[dict[str, Any]]:
    """Return layers as plain data."""
    from dataclasses import asdict

    return [{**asdict(layer), "holds": layer.holds} for layer in found]


def _agreement_row(each: "ComparedTarget") -> tuple[str, ...]:
    name, precision = each.device.name, each.bundle.manifest.precision
    if each.unchecked:
        return (name, precision, *("-" for _ in range(5)), f"not compared: {each.unchecked}")
    shown = each.layers or ()
    counted = [(one.values, one.differing) for one in each.outputs]
    counted += [(one.values, one.differing) for one in shown]
    values, differing = (sum(column) for column in zip(*counted, strict=True))
    return (
        name,
        precision,
        str(each.inputs),
        str(len(shown)) if each.layers is not None else "-",
        f"{values:,}",
        f"{differing:,}",
        _largest(each),
        # What disagrees was not written (`BundleWriter`).
        ("to the bit" if not differing else "agrees") + _describe_simulation(each),
    )


def _describe_simulation(compared: "ComparedTarget") -> str:
    """Return what ran in place of a package's own network on its board."""
    file = compared.device.simulated_file
    return f": {file} in ONNX Runtime, not the NPU" if file else ""


def _largest(each: "ComparedTarget") -> str:
    """Return the largest step: of levels in levels, of real numbers relative to the largest."""
    worst = max((one.difference for one in each.outputs), default=0.0)
    step = max((layer.largest for layer in each.layers or ()), default=0)
    said = [f"{step} of 255"] if step else []
    said += [f"{worst:.1e} of the largest output"] if worst else []
    return ", ".join(said) or "0"


def _pair_row(pair: "TargetPair") -> tuple[str, ...]:
    found = pair.found
    same = "-" if found.same is None else f"{found.same} of {found.inputs}"
    return (
        _target_of(found.first),
        _target_of(found.second),
        found.output,
        f"{found.values:,}",
        f"{found.differing:,}",
        f"{found.largest:.1e}",
        same,
        pair.why if found.differing else "to the bit",
    )


def _target_of(folder: str) -> str:
    return folder.rpartition("/")[2]


def _document_target(each: "ComparedTarget") -> dict[str, Any]:
    shown = each.layers
    return {
        "target": each.device.name,
        "precision": each.bundle.manifest.precision,
        "path": str(each.bundle.folder),
        "unchecked": each.unchecked or None,
        "simulated": each.device.simulated_file or None,
        "inputs": each.inputs,
        "outputs": {
            "values": sum(one.values for one in each.outputs),
            "differing": sum(one.differing for one in each.outputs),
            "difference": max((one.difference for one in each.outputs), default=None),
        },
        "layers": None if shown is None else document_layers(shown),
        "float": each.floats or None,
        "holds": each.holds,
    }
