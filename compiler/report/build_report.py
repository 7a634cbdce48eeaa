"""The report of `tcc build`: bundles, their sizes, and agreement between targets."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tcc.compiler.report import tool_report
from tcc.compiler.support.console import Report, Stages, format_bytes, format_table

if TYPE_CHECKING:
    from tcc.compiler.bundle.program_check import LayerAgreement
    from tcc.compiler.driver.build import WrittenBundle
    from tcc.compiler.driver.target_agreement import BuildAgreement, ComparedTarget, TargetPair


def print_bundles(report: Report, bundles: "Sequence[WrittenBundle]", stages: Stages) -> None:
    """Print the folder, size and agreement of each bundle."""
    for bundle in bundles:
        report.print_text(str(bundle.folder))
        if report.quiet:
            continue
        report.print_text(f"  {_describe_sizes(bundle)}")
        report.print_text(f"  {bundle}")
        for line in _iterate_notes(bundle):
            report.print_text(f"  {line}")
        if bundle.archive:
            is_inside = bundle.folder in bundle.archive.parents
            text = "is distributed with the package" if is_inside else "is not part of the package"
            report.print_text(f"  {bundle.archive} contains calibration images; it {text}")
            tool_report.print_tool(report, bundle.folder, bundle.tool, bundle.uncompiled)
        if report.verbose:
            rows = [(f"  {file.path}", format_bytes(file.bytes)) for file in bundle.manifest.files]
            report.print_table(("  file", "size"), rows)
            if bundle.layers:
                report.print_table(
                    ("  layer", "kernel"),
                    [(f"  {name}", kernel) for name, kernel in bundle.layers.items()],
                )
    if report.verbose:
        report.print_text("")
        rows = [(name, f"{seconds:.2f}") for name, seconds in stages.seconds.items()]
        report.print_table(("stage", "seconds"), rows)


def _iterate_notes(bundle: "WrittenBundle") -> Iterator[str]:
    if bundle.advice:
        yield bundle.advice
    if bundle.cached:
        yield f"from the cache: {', '.join(bundle.cached)}; `--no-cache` rebuilds them"


def _describe_sizes(bundle: "WrittenBundle") -> str:
    """Return the size of the target's files, of the same at fp32, and of the bundle."""
    artifact, bundle_files = bundle.artifact, bundle.manifest.files
    total = sum(file.bytes for file in artifact)
    artifact_text = (
        PurePosixPath(artifact[0].path).name if len(artifact) == 1 else f"{len(artifact)} files"
    )
    ratio_text = (
        f", {total / bundle.fp32_bytes:.1%} of {format_bytes(bundle.fp32_bytes)} at fp32"
        if bundle.fp32_bytes
        else ""
    )
    if bundle.compares_size and not bundle.fp32_bytes:
        ratio_text = ", fp32 size unknown: the target cannot build this network at fp32"
    bundle_bytes = sum(file.bytes for file in bundle_files)
    return (
        f"{artifact_text}: {format_bytes(total)}{ratio_text}; "
        f"bundle with goldens: {format_bytes(bundle_bytes)}"
    )


def encode_bundles(
    written_bundles: "Sequence[WrittenBundle]", stages: Stages, agreement: "BuildAgreement | None"
) -> dict[str, Any]:
    """Return all bundles, and the agreement between several targets, as plain data."""
    from tcc.compiler.support import json_records

    bundles = []
    for bundle in written_bundles:
        manifest = bundle.manifest
        bundles.append(
            {
                "path": str(bundle.folder),
                "model": manifest.model.name,
                "target": manifest.target,
                "precision": manifest.precision,
                "weights": json_records.encode(manifest.weights),
                "calibration": manifest.calibration and json_records.encode(manifest.calibration),
                "bytes": sum(file.bytes for file in manifest.files),
                "artifact_bytes": sum(file.bytes for file in bundle.artifact),
                "artifact_bytes_fp32": bundle.fp32_bytes,
                "files": [json_records.encode(file) for file in manifest.files],
                "agreement": [agreement.to_json() for agreement in bundle.agreement],
                "unchecked": bundle.unchecked or None,
                "simulated": bundle.simulated_file or None,
                "cached": list(bundle.cached),
                "compiled": manifest.compiled and json_records.encode(manifest.compiled),
                "uncompiled": bundle.uncompiled or None,
                "advice": bundle.advice or None,
                "tool": bundle.tool and json_records.encode(bundle.tool),
                "warnings": [json_records.encode(warning) for warning in manifest.warnings],
            }
        )
    agreement_fields = {"agreement": _encode_agreement(agreement)} if agreement else {}
    return {"bundles": bundles, **agreement_fields, "seconds": stages.seconds}


COLUMNS = ("target", "precision", "inputs", "layers", "values", "differ", "max. difference", "")


def print_agreement(report: Report, agreement: "BuildAgreement") -> None:
    """Print the agreement of each target with the reference, and of each pair of targets."""
    report.print_text("")
    report.print_text("agreement with the reference executor, on goldens and images")
    report.print_lines(
        format_table(COLUMNS, [_build_agreement_row(compared) for compared in agreement.targets])
    )
    for compared in agreement.targets:
        if compared.float_notice:
            report.print_text(f"  {compared.device.name}: {compared.float_notice}")
    if agreement.pairs:
        columns = (
            "target", "and", "output", "values", "differ", "max. difference", "same class", "",
        )  # fmt: skip
        report.print_text("")
        report.print_lines(
            format_table(columns, [_build_pair_row(pair) for pair in agreement.pairs])
        )


def _encode_agreement(agreement: "BuildAgreement") -> dict[str, Any]:
    """Return the agreement as plain data."""
    return {
        "targets": [_encode_target(compared) for compared in agreement.targets],
        "pairs": [
            {**pair.comparison.to_json(), "why": pair.reason or None} for pair in agreement.pairs
        ],
        "holds": agreement.holds,
    }


def encode_layers(layers: "Sequence[LayerAgreement]") -> list[dict[str, Any]]:
    """Return layers as plain data."""
    from dataclasses import asdict

    return [{**asdict(layer), "holds": layer.holds} for layer in layers]


def _build_agreement_row(compared: "ComparedTarget") -> tuple[str, ...]:
    name, precision = compared.device.name, compared.bundle.manifest.precision
    if compared.unchecked:
        return (name, precision, *("-" for _ in range(5)), f"not compared: {compared.unchecked}")
    layers = compared.layers or ()
    counted = [(tensor.values, tensor.differing) for tensor in compared.outputs]
    counted += [(tensor.values, tensor.differing) for tensor in layers]
    value_count, differing = (sum(column) for column in zip(*counted, strict=True))
    return (
        name,
        precision,
        str(compared.inputs),
        str(len(layers)) if compared.layers is not None else "-",
        f"{value_count:,}",
        f"{differing:,}",
        _describe_largest(compared),
        # A bundle that disagrees was not written (`BundleWriter`).
        ("bit-exact" if not differing else "agrees") + _describe_simulation(compared),
    )


def _describe_simulation(compared: "ComparedTarget") -> str:
    """Return which file ran in place of the compiled network of a package."""
    file = compared.device.simulated_file
    return f": {file} in ONNX Runtime, not the NPU" if file else ""


def _describe_largest(compared: "ComparedTarget") -> str:
    """Return the largest difference: in quantization steps, and relative to the largest output."""
    worst = max((output.difference for output in compared.outputs), default=0.0)
    step = max((layer.largest for layer in compared.layers or ()), default=0)
    parts = [f"{step} of 255"] if step else []
    parts += [f"{worst:.1e} of the largest output"] if worst else []
    return ", ".join(parts) or "0"


def _build_pair_row(pair: "TargetPair") -> tuple[str, ...]:
    comparison = pair.comparison
    same_class = "-" if comparison.same is None else f"{comparison.same} of {comparison.inputs}"
    return (
        _get_target_name(comparison.first),
        _get_target_name(comparison.second),
        comparison.output,
        f"{comparison.values:,}",
        f"{comparison.differing:,}",
        f"{comparison.largest:.1e}",
        same_class,
        pair.reason if comparison.differing else "bit-exact",
    )


def _get_target_name(folder: str) -> str:
    return folder.rpartition("/")[2]


def _encode_target(compared: "ComparedTarget") -> dict[str, Any]:
    layers = compared.layers
    return {
        "target": compared.device.name,
        "precision": compared.bundle.manifest.precision,
        "path": str(compared.bundle.folder),
        "unchecked": compared.unchecked or None,
        "simulated": compared.device.simulated_file or None,
        "inputs": compared.inputs,
        "outputs": {
            "values": sum(output.values for output in compared.outputs),
            "differing": sum(output.differing for output in compared.outputs),
            "difference": max((output.difference for output in compared.outputs), default=None),
        },
        "layers": None if layers is None else encode_layers(layers),
        "float": compared.float_notice or None,
        "holds": compared.holds,
    }
