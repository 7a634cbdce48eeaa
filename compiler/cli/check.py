"""`tcc check`: is a spec right, and what does it cost."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.failures import Rejected
from tcc.compiler.cli.options import (
    ReportOptions,
    SpecOptions,
    TargetOptions,
)
from tcc.compiler.driver.chosen_spec import tell_project
from tcc.compiler.ir.precision import FP32
from tcc.compiler.report import layer_table
from tcc.compiler.support.console import Report, size
from tcc.compiler.support.diagnostics import typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcc.compiler.driver.capability import Capability
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.frontend.spec_tests import Expectation
    from tcc.compiler.ir.cost import Cost
    from tcc.compiler.ir.device import Plan


Depth = Annotated[
    int | None,
    typer.Option(
        "--depth",
        metavar="N",
        min=1,
        show_default=False,
        help="Open blocks down to this depth; as deep as fits the screen by default.",
    ),
]
Layers = Annotated[bool, typer.Option("--layers", help="Open all blocks: show every layer.")]


@dataclass(frozen=True, slots=True)
class ShownLayers:
    """How much of a network is shown."""

    depth: int | None
    layers: bool


def check(
    depth: Depth = None,
    layers_: Layers = False,
    *,
    spec: SpecOptions,
    targets: TargetOptions,
    report: ReportOptions,
) -> None:
    """Validate a spec; print its layers and costs.

    The `tests:` that the spec states of itself are run too. With --target it says what a target
    cannot run of it, or runs badly, before anything is trained.
    """
    choice = spec.choose()
    tell_project(report, choice)
    chosen = choice.spec

    from tcc.compiler.driver import spec_check

    found = spec_check.check(chosen, _plans(targets.targets or (), targets.precision))
    costs, facts = found.cost, found.expectations
    document = _document(chosen, costs, facts) | _answers(found.capabilities)
    if not report.quiet:
        _print(report, chosen, costs, facts, ShownLayers(depth, layers_))
    for each in found.capabilities:
        _tell(report, each)
    if not found.holds:
        # With the document: a program wants the costs of a network whose stated ones do not hold,
        # to correct them.
        raise Rejected(found.errors, document)
    report.document(document)


def _plans(names: "Sequence[str]", precision: str | None) -> "tuple[Plan, ...]":
    """Return each target that is named.

    Raises:
        UserError: One is not known (E0605), or not built at the precision (E0606).
    """
    if not names:
        return ()
    from tcc.compiler.targets import devices

    words = [(text, name.strip()) for text in names for name in text.split(",")]
    asked = [(name, typed(f"--target {text}")) for text, name in words]
    level = (precision or FP32.name, typed(f"--precision {precision}"))
    return devices.find_all(asked, level, asked=precision is not None)


def _tell(report: Report, found: "Capability") -> None:
    for warning in found.warnings:
        report.warn(warning)
    name = f"{found.plan.device.name} at {found.plan.precision.name}"
    nodes = len({each.node.name for each in found.refusals})
    report.text(f"{name}: {f'cannot run {_layers(nodes)}' if nodes else 'can run every layer'}")


def _layers(count: int) -> str:
    return f"{count} layers" if count > 1 else "1 layer"


def _answers(targets: "Sequence[Capability]") -> dict[str, Any]:
    """Return what the targets say as plain data; nothing if none was asked."""
    return {"targets": [each.as_json() for each in targets]} if targets else {}


def _print(
    report: Report,
    spec: "Spec",
    costs: "Cost",
    facts: "tuple[Expectation, ...]",
    shown: ShownLayers,
) -> None:
    report.lines(layer_table.shown(layer_table.tree(costs.rows), shown.depth, every=shown.layers))
    report.text(
        f"\n{spec.name}: {len(costs.rows)} layers, {costs.params:,} parameters"
        f" (and {costs.buffers:,} statistics), {costs.macs:,} MACs\n"
        f"weights {size(costs.weight_bytes)} in float32, "
        f"activations at most {size(costs.peak_bytes)} at once"
    )
    if facts:
        report.text(f"tests: {sum(fact.holds for fact in facts)} of {len(facts)} hold")


def _document(spec: "Spec", costs: "Cost", facts: "tuple[Expectation, ...]") -> dict[str, Any]:
    return {
        "name": spec.name,
        "digest": spec.digest,
        "params": dict(spec.params),
        "layers": [asdict(row) for row in costs.rows],
        "blocks": [_block(part) for part in layer_table.blocks(layer_table.tree(costs.rows))],
        "totals": {
            "layers": len(costs.rows),
            "params": costs.params,
            "buffers": costs.buffers,
            "macs": costs.macs,
            "weight_bytes": costs.weight_bytes,
            "peak_activation_bytes": costs.peak_bytes,
        },
        "tests": [
            {
                "what": f.what,
                "case": f.case,
                "expected": f.expected,
                "found": f.found,
                "holds": f.holds,
                "line": f.at.line,
            }
            for f in facts
        ],
    }


def _block(part: layer_table.BlockPart) -> dict[str, Any]:
    rows = tuple(part.rows())
    return {
        "path": "/".join(part.path),
        "layers": len(rows),
        "params": sum(row.params for row in rows),
        "macs": sum(row.macs for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
    }
