"""`tcc targets`: what can be built, and what can run here."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcc.compiler.ir.device import Device


def targets(*, report: ReportOptions) -> None:
    """List what can be built, and what can run here."""
    from tcc.compiler.targets import devices

    listed = [_document(device) for device in devices.every()]
    for backend in devices.unusable():
        report.notice(
            f"target `{backend.name}` of {backend.distribution} cannot be used: {backend.reason}"
        )
    if report.quiet:
        report.text("\n".join(each["name"] for each in listed))
    else:
        _print(report, listed)
    if report.verbose:
        _explain(report, devices.every())
    report.document({"targets": listed})


def _document(device: "Device") -> dict[str, Any]:
    target = device.target
    missing = [tool for tool in device.tools if tool.version is None]
    builds = bool(target.precisions)
    return {
        "name": device.name,
        "aliases": list(target.aliases),
        "title": target.title,
        "precisions": [each.name for each in target.precisions],
        "calibrates": target.calibrates,
        "builds": builds and not any(tool.builds for tool in missing),
        # What needs a tool that is not here runs nowhere here, whatever could be built.
        "runs": target.runs and not missing,
        "missing": [asdict(tool) for tool in missing],
        "distribution": " ".join(device.distribution) if device.distribution else None,
    }


def _print(report: Report, listed: list[dict[str, Any]]) -> None:
    rows = [
        (
            ", ".join([each["name"], *each["aliases"]]),
            each["title"],
            " ".join(each["precisions"]) or "-",
            *("yes" if each[can] else "no" for can in ("calibrates", "builds", "runs")),
        )
        for each in listed
    ]
    report.table(("target", "what", "precisions", "calibrates", "builds", "runs here"), rows)
    for each in listed:
        if each["distribution"]:
            report.text(f"\n{each['name']} comes from {each['distribution']}.")
        if each["precisions"] and not each["runs"] and not each["missing"]:
            report.text(f"\nNothing here runs what is built for {each['name']}.")
    tools = {tool["name"]: tool for each in listed for tool in each["missing"]}
    for tool in tools.values():
        report.text(f"\n{tool['name']} is missing; it is needed to {tool['needed_for']}.")
        report.text(f"  install it: {tool['install']}")


def _explain(report: Report, devices: "Sequence[Device]") -> None:
    """Say what each precision is, with the targets that are built at it."""
    found: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        for precision in device.target.precisions:
            found.setdefault((precision.name, precision.summary), []).append(device.name)
    report.text("")
    rows = [(name, summary, " ".join(names)) for (name, summary), names in found.items()]
    report.table(("precision", "what", "targets"), rows)
