"""The table that a build for several targets ends with: how they agree, and what is in float."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report, table

if TYPE_CHECKING:
    from tcc.compiler.bundle.program_check import LayerAgreement
    from tcc.compiler.driver.target_agreement import BuildAgreement, ComparedTarget, TargetPair

COLUMNS = ("target", "precision", "inputs", "layers", "values", "differ", "largest step", "")


def say(report: Report, found: "BuildAgreement") -> None:
    """Print how each target agrees with the reference, and each with each."""
    report.text("")
    report.text("agreement with the reference executor, over goldens and images")
    report.lines(table(COLUMNS, [_row(each) for each in found.targets]))
    for each in found.targets:
        if each.floats:
            report.text(f"  {each.device.name}: {each.floats}")
    if found.pairs:
        columns = ("target", "and", "output", "values", "differ", "by", "same class", "")
        report.text("")
        report.lines(table(columns, [_pair(pair) for pair in found.pairs]))


def document(found: "BuildAgreement") -> dict[str, Any]:
    """Return it as plain data."""
    return {
        "targets": [_target(each) for each in found.targets],
        "pairs": [{**pair.found.as_json(), "why": pair.why or None} for pair in found.pairs],
        "holds": found.holds,
    }


def layers(found: "Sequence[LayerAgreement]") -> list[dict[str, Any]]:
    """Return layers as plain data."""
    from dataclasses import asdict

    return [{**asdict(layer), "holds": layer.holds} for layer in found]


def _row(each: "ComparedTarget") -> tuple[str, ...]:
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
        # What disagrees was not written (`write_bundle`).
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


def _pair(pair: "TargetPair") -> tuple[str, ...]:
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


def _target(each: "ComparedTarget") -> dict[str, Any]:
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
        "layers": None if shown is None else layers(shown),
        "float": each.floats or None,
        "holds": each.holds,
    }
