"""`tcc targets`: list the targets, and what this machine can build and run."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcc.compiler.ir.device import Device


def list_targets(*, report: ReportOptions) -> None:
    """List the targets, and what this machine can build and run."""
    from tcc.compiler.targets import devices

    documents = [_describe_target(device) for device in devices.list_devices()]
    for backend in devices.list_unusable_backends():
        report.warn_text(
            f"target `{backend.name}` of {backend.distribution} cannot be used: {backend.reason}"
        )
    if report.quiet:
        report.print_text("\n".join(document["name"] for document in documents))
    else:
        _print(report, documents)
    if report.verbose:
        _explain(report, devices.list_devices())
    report.print_document({"targets": documents})


def _describe_target(device: "Device") -> dict[str, Any]:
    target = device.target
    missing = [tool for tool in device.tools if tool.version is None]
    builds = bool(target.precisions)
    return {
        "name": device.name,
        "aliases": list(target.aliases),
        "title": target.title,
        "precisions": [precision.name for precision in target.precisions],
        "calibrates": target.calibrates,
        "builds": builds and not any(tool.builds for tool in missing),
        # A target with a missing tool cannot run here, even if it can be built.
        "runs": target.runs and not missing,
        "missing": [asdict(tool) for tool in missing],
        "distribution": " ".join(device.distribution) if device.distribution else None,
    }


def _print(report: Report, documents: list[dict[str, Any]]) -> None:
    rows = [
        (
            ", ".join([document["name"], *document["aliases"]]),
            document["title"],
            " ".join(document["precisions"]) or "-",
            *("yes" if document[can] else "no" for can in ("calibrates", "builds", "runs")),
        )
        for document in documents
    ]
    report.print_table(("target", "what", "precisions", "calibrates", "builds", "runs here"), rows)
    for document in documents:
        if document["distribution"]:
            report.print_text(f"\n{document['name']} comes from {document['distribution']}.")
        if document["precisions"] and not document["runs"] and not document["missing"]:
            report.print_text(f"\nThis machine cannot run what is built for {document['name']}.")
    tools = {tool["name"]: tool for document in documents for tool in document["missing"]}
    for tool in tools.values():
        report.print_text(f"\n{tool['name']} is missing. It is needed to {tool['needed_for']}.")
        report.print_text(f"  install it: {tool['install']}")


def _explain(report: Report, devices: "Sequence[Device]") -> None:
    """Print each precision with the targets that offer it."""
    targets_by_precision: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        for precision in device.target.precisions:
            targets_by_precision.setdefault((precision.name, precision.summary), []).append(
                device.name
            )
    report.print_text("")
    rows = [
        (name, summary, " ".join(names)) for (name, summary), names in targets_by_precision.items()
    ]
    report.print_table(("precision", "what", "targets"), rows)
