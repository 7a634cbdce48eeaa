"""`tcc check`: is a spec right, and what does it cost."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.cli.failures import Rejected
from tcc.compiler.cli.options import Json, Quiet, Settings, SpecArgument, Strict, Verbose, choose
from tcc.compiler.cli.report import Report, fits, size, table

if TYPE_CHECKING:
    from tcc.compiler.cost import Cost
    from tcc.compiler.frontend.build import Spec
    from tcc.compiler.frontend.facts import Fact


def check(
    spec: SpecArgument = None,
    settings: Settings = None,
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

    from tcc.compiler.cost import cost
    from tcc.compiler.frontend.facts import check_facts

    costs = cost(chosen.graph)
    facts = check_facts(chosen)
    document = _document(chosen, costs, facts)
    if not quiet:
        _print(report, chosen, costs, facts)
    wrong = tuple(fact.diagnostic() for fact in facts if not fact.holds)
    if wrong:
        raise Rejected(wrong, document)
    report.document(document)


def _print(report: Report, spec: "Spec", costs: "Cost", facts: "tuple[Fact, ...]") -> None:
    report.lines(_layers(costs))
    report.text(
        f"\n{spec.name}: {len(costs.rows)} layers, {costs.params:,} parameters"
        f" (and {costs.buffers:,} statistics), {costs.macs:,} MACs\n"
        f"weights {size(costs.weight_bytes)} at fp32, "
        f"activations at most {size(costs.peak_bytes)} at once"
    )
    if facts:
        report.text(f"tests: {sum(fact.holds for fact in facts)} of {len(facts)} hold")


def _layers(costs: "Cost") -> list[str]:
    """Return the layer table; where the terminal is too narrow, with paths as headings."""
    columns = ("layer", "op", "output", "params", "MACs", "bytes")
    rows = [
        (r.path, r.op, "x".join(map(str, r.shape)), r.params, r.macs, r.activation_bytes)
        for r in costs.rows
    ]
    lines = table(columns, rows)
    if fits(lines):
        return lines
    paths = [row[0].rpartition("/") for row in rows]
    leaves = [f"  {leaf}" if above else leaf for above, _, leaf in paths]
    short = [(leaf, *row[1:]) for leaf, row in zip(leaves, rows, strict=True)]
    head, *body = table(columns, short, gap=1)
    grouped, last = [head], ""
    for (above, _, _), line in zip(paths, body, strict=True):
        grouped += [above, line] if above and above != last else [line]
        last = above
    return grouped


def _document(spec: "Spec", costs: "Cost", facts: "tuple[Fact, ...]") -> dict[str, Any]:
    return {
        "name": spec.name,
        "digest": spec.digest,
        "params": dict(spec.params),
        "layers": [asdict(row) for row in costs.rows],
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
