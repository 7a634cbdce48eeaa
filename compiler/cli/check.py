"""`tcc check`: validate a spec and compute its costs."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.failures import Rejected
from tcc.compiler.cli.options import (
    ReportOptions,
    SpecOptions,
    TargetOptions,
)
from tcc.compiler.driver.chosen_spec import report_project
from tcc.compiler.ir.precision import FP32
from tcc.compiler.report import layer_table
from tcc.compiler.support.console import Report, format_bytes
from tcc.compiler.support.diagnostics import make_command_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcc.compiler.driver.support_check import Capability
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
        help="Show blocks down to this depth. Default: as deep as fits the screen.",
    ),
]
Layers = Annotated[bool, typer.Option("--layers", help="Show every layer of all blocks.")]


@dataclass(frozen=True, slots=True)
class ShownLayers:
    """How many layers of a network are shown."""

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
    """Validate a spec and print its layers and costs.

    The `tests:` of the spec are run too. With --target, it also reports which layers a target
    cannot run, or runs badly, before anything is trained.
    """
    choice = spec.choose()
    report_project(report, choice)
    loaded_spec = choice.spec

    from tcc.compiler.driver import spec_check

    checked = spec_check.check(loaded_spec, _find_plans(targets.targets or (), targets.precision))
    cost, expectations = checked.cost, checked.expectations
    document = _build_document(loaded_spec, cost, expectations) | _collect_support(
        checked.capabilities
    )
    if not report.quiet:
        _print(report, loaded_spec, cost, expectations, ShownLayers(depth, layers_))
    for support in checked.capabilities:
        _report_support(report, support)
    if not checked.holds:
        # Include the document: the caller may need the actual costs to correct the stated ones.
        raise Rejected(checked.errors, document)
    report.print_document(document)


def _find_plans(names: "Sequence[str]", precision: str | None) -> "tuple[Plan, ...]":
    """Return each target that is named.

    Raises:
        UserError: One is unknown (E0605), or does not offer the precision (E0606).
    """
    if not names:
        return ()
    from tcc.compiler.targets import devices

    named_targets = [(text, name.strip()) for text in names for name in text.split(",")]
    requested = [(name, make_command_span(f"--target {text}")) for text, name in named_targets]
    level = (precision or FP32.name, make_command_span(f"--precision {precision}"))
    return devices.find_all(requested, level, is_explicit=precision is not None)


def _report_support(report: Report, support: "Capability") -> None:
    for warning in support.warnings:
        report.warn(warning)
    name = f"{support.plan.device.name} at {support.plan.precision.name}"
    nodes = len({refusal.node.name for refusal in support.refusals})
    report.print_text(
        f"{name}: {f'cannot run {_format_layers(nodes)}' if nodes else 'can run every layer'}"
    )


def _format_layers(count: int) -> str:
    return f"{count} layers" if count > 1 else "1 layer"


def _collect_support(targets: "Sequence[Capability]") -> dict[str, Any]:
    """Return the results for the targets as plain data; empty if none is named."""
    return {"targets": [support.to_json() for support in targets]} if targets else {}


def _print(
    report: Report,
    spec: "Spec",
    costs: "Cost",
    expectations: "tuple[Expectation, ...]",
    layer_options: ShownLayers,
) -> None:
    report.print_lines(
        layer_table.render_layers(
            layer_table.build_tree(costs.rows), layer_options.depth, all_layers=layer_options.layers
        )
    )
    report.print_text(
        f"\n{spec.name}: {len(costs.rows)} layers, {costs.params:,} parameters"
        f" (and {costs.buffers:,} statistics), {costs.macs:,} MACs\n"
        f"weights {format_bytes(costs.weight_bytes)} in float32, "
        f"activations at most {format_bytes(costs.peak_bytes)} at once"
    )
    if expectations:
        report.print_text(
            f"tests: {sum(e.holds for e in expectations)} of {len(expectations)} passed"
        )


def _build_document(
    spec: "Spec", costs: "Cost", expectations: "tuple[Expectation, ...]"
) -> dict[str, Any]:
    return {
        "name": spec.name,
        "digest": spec.digest,
        "params": dict(spec.params),
        "layers": [asdict(row) for row in costs.rows],
        "blocks": [
            _describe_block(part)
            for part in layer_table.iterate_blocks(layer_table.build_tree(costs.rows))
        ],
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
                "what": f.subject,
                "case": f.case,
                "expected": f.expected,
                "found": f.actual,
                "holds": f.holds,
                "line": f.at.line,
            }
            for f in expectations
        ],
    }


def _describe_block(part: layer_table.BlockPart) -> dict[str, Any]:
    rows = tuple(part.iterate_rows())
    return {
        "path": "/".join(part.path),
        "layers": len(rows),
        "params": sum(row.params for row in rows),
        "macs": sum(row.macs for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
    }
