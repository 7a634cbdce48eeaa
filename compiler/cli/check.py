"""`tcc check`: is a spec right, and what does it cost."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli import layer_table
from tcc.compiler.cli.common_options import (
    Json,
    Quiet,
    Settings,
    SpecArgument,
    Strict,
    Verbose,
    choose,
)
from tcc.compiler.cli.failures import Rejected
from tcc.compiler.cli.report import Report, size

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.frontend.spec_tests import Expectation
    from tcc.compiler.ir.cost import Cost


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
    spec: SpecArgument = None,
    settings: Settings = None,
    depth: Depth = None,
    layers_: Layers = False,
    strict: Strict = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Validate a spec; print its layers and costs.

    The `tests:` that the spec states of itself are run too.
    """
    report = Report(json, quiet, verbose)
    chosen = choose(spec, settings, strict).spec

    from tcc.compiler.frontend.spec_tests import check_expectations
    from tcc.compiler.ir.cost import cost

    costs = cost(chosen.graph)
    facts = check_expectations(chosen)
    document = _document(chosen, costs, facts)
    if not quiet:
        _print(report, chosen, costs, facts, ShownLayers(depth, layers_))
    wrong = tuple(fact.diagnostic() for fact in facts if not fact.holds)
    if wrong:
        raise Rejected(wrong, document)
    report.document(document)


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
