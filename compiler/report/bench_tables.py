"""Tables of benchmark results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report, TableCell, format_bytes, print_problem

if TYPE_CHECKING:
    from tcc.compiler.bundle.agreement import Agreement
    from tcc.compiler.bundle.benchmark import CostComparison
    from tcc.compiler.ir.measurement import Measurement, MemoryUse, RunCost

COUNTED_COLUMNS = ("instructions", "cycles")
TIMED_COLUMNS = ("median ms", "quartiles", "first ms")


def show(report: Report, name: str, measurement: "Measurement") -> None:
    """Print the cost of a bundle: each layer (unless quiet), the totals, and memory.

    Args:
        report: Receives results and warnings.
        name: The bundle's name.
        measurement: The bundle's cost.
    """
    report.print_text(f"{name}: {measurement.how}")
    parts = [
        ("load", measurement.load),
        ("preprocess", measurement.preprocess),
        ("network", measurement.network),
    ]
    timed = measurement.network.times is not None
    columns = TIMED_COLUMNS if timed else COUNTED_COLUMNS
    if measurement.layers and not report.quiet:
        network_cost = _get_main_cost(measurement.network)
        # In execution order, not by cost: the reader follows the network.
        rows: list[tuple[TableCell, ...]] = [
            (
                layer.name,
                layer.kernel,
                *_build_cells(layer.cost, timed),
                f"{_get_main_cost(layer.cost) / network_cost:.1%}" if network_cost else "",
            )
            for layer in measurement.layers
        ]
        report.print_table(("layer", "kernel", *columns, "share"), rows)
        report.print_text("")
    report.print_table(
        ("", *columns),
        [
            (phase, *_build_cells(cost, timed))
            for phase, cost in parts
            if cost and _get_main_cost(cost)
        ],
    )
    report.print_text(f"memory: {_describe_memory(measurement.memory)}")
    if measurement.caution:
        report.print_text(measurement.caution)
    report.print_text("")


def show_goldens(report: Report, agreements: "Sequence[Agreement]") -> None:
    """Print whether the board's outputs match the golden outputs."""
    wrong = [agreement for agreement in agreements if not agreement.holds]
    max_difference = max(agreement.difference for agreement in agreements)
    agreement_text = (
        "bit-exact"
        if not any(agreement.differing for agreement in agreements)
        else f"relative difference at most {max_difference:.1e}"
    )
    if not wrong:
        report.print_text(
            f"goldens: {len(agreements)} of {len(agreements)} outputs match, {agreement_text}\n"
        )
    for agreement in wrong:
        print_problem(
            f"error: on the board, output `{agreement.output}` of golden {agreement.golden} is"
            f" wrong: the relative difference is {agreement.difference:.1e}, the tolerance is"
            f" {agreement.allowed:.0e}"
        )


def show_comparison(
    report: Report, names: Sequence[str], comparison: "CostComparison | None"
) -> None:
    """Print how the second bundle's cost compares with the first's.

    Args:
        report: Receives results and warnings.
        names: The names of the two bundles.
        comparison: The comparison; None if one bundle was timed and the other one counted.
    """
    if not comparison:
        report.print_text(
            "not compared: one bundle was measured in time, the other one in instructions or cycles"
        )
        return
    text = f"{names[1]} takes {comparison.ratio:.2f} times the {comparison.by} of {names[0]}"
    if comparison.verdict == "undecided":
        text += ": undecided, the difference is within the measurement error"
    report.print_text(text)


def _build_cells(cost: "RunCost", timed: bool) -> tuple[TableCell, ...]:
    """Return the cells of a cost: `TIMED_COLUMNS` if `timed`, else `COUNTED_COLUMNS`."""
    if not timed:
        return tuple("-" if n is None else n for n in (cost.instructions, cost.cycles))
    if not cost.times:
        return ("-",) * len(TIMED_COLUMNS)
    times = cost.times
    spread = f"{times.low:.3f} to {times.high:.3f}" if times.runs > 1 else "1 run"
    return (f"{times.median:.3f}", spread, f"{times.first:.3f}")


def _get_main_cost(cost: "RunCost") -> float:
    if cost.times:
        return cost.times.median
    return float(cost.cycles or cost.instructions or 0)


def _describe_memory(memory: "MemoryUse") -> str:
    parts = [f"files {format_bytes(memory.files)}"]
    if memory.program is not None:
        parts.append(f"loaded {format_bytes(memory.program)}")
    if memory.arena is not None:
        bound = f" (lower bound {format_bytes(memory.arena_bound)})" if memory.arena_bound else ""
        parts.append(f"arena {format_bytes(memory.arena)}{bound}")
    if memory.peak is not None:
        parts.append(f"peak {format_bytes(memory.peak)}")
    return ", ".join(parts)
