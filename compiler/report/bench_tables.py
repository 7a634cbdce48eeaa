"""What was measured, as tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report, TableCell, complain, size

if TYPE_CHECKING:
    from tcc.compiler.bundle.agreement import Agreement
    from tcc.compiler.bundle.benchmark import CostComparison
    from tcc.compiler.ir.measurement import Measurement, MemoryUse, RunCost

COUNTED = ("instructions", "cycles")
TIMED = ("median ms", "quartiles", "first ms")


def show(report: Report, name: str, found: "Measurement") -> None:
    """Print what a bundle costs: its layers unless quiet, the whole, its memory.

    Args:
        report: Where results and warnings are told.
        name: What the bundle is called.
        found: What it costs.
    """
    report.text(f"{name}: {found.how}")
    parts = [("load", found.load), ("preprocess", found.preprocess), ("network", found.network)]
    timed = found.network.times is not None
    columns = TIMED if timed else COUNTED
    if found.layers and not report.quiet:
        whole = _weight(found.network)
        # In the order in which they run, not of their cost: a reader follows the network.
        rows: list[tuple[TableCell, ...]] = [
            (
                each.name,
                each.kernel,
                *_cells(each.cost, timed),
                f"{_weight(each.cost) / whole:.1%}" if whole else "",
            )
            for each in found.layers
        ]
        report.table(("layer", "kernel", *columns, "share"), rows)
        report.text("")
    report.table(
        ("", *columns),
        [(word, *_cells(cost, timed)) for word, cost in parts if cost and _weight(cost)],
    )
    report.text(f"memory: {_memory(found.memory)}")
    if found.caution:
        report.text(found.caution)
    report.text("")


def show_goldens(report: Report, found: "Sequence[Agreement]") -> None:
    """Print whether what the board gave is what the goldens say."""
    wrong = [one for one in found if not one.holds]
    most = max(one.difference for one in found)
    same = "to the bit" if not any(one.differing for one in found) else f"within {most:.1e}"
    if not wrong:
        report.text(f"goldens: {len(found)} of {len(found)} outputs agree, {same}\n")
    for one in wrong:
        complain(
            f"error: on the board, golden {one.golden}, output `{one.output}`: off by"
            f" {one.difference:.1e} of its largest value, {one.allowed:.0e} is allowed"
        )


def show_comparison(report: Report, names: Sequence[str], found: "CostComparison | None") -> None:
    """Print how the second bundle compares with the first.

    Args:
        report: Where results and warnings are told.
        names: What the two are called.
        found: The comparison; None where one was timed and the other counted.
    """
    if not found:
        report.text("one was timed and the other counted: they do not compare")
        return
    text = f"{names[1]} takes {found.ratio:.2f} times the {found.by} of {names[0]}"
    if found.verdict == "undecided":
        text += ": undecided, as measurements differ by as much"
    report.text(text)


def _cells(cost: "RunCost", timed: bool) -> tuple[TableCell, ...]:
    if not timed:
        return tuple("-" if n is None else n for n in (cost.instructions, cost.cycles))
    if not cost.times:
        return ("-",) * len(TIMED)
    t = cost.times
    spread = f"{t.low:.3f} to {t.high:.3f}" if t.runs > 1 else "once"
    return (f"{t.median:.3f}", spread, f"{t.first:.3f}")


def _weight(cost: "RunCost") -> float:
    if cost.times:
        return cost.times.median
    return float(cost.cycles or cost.instructions or 0)


def _memory(found: "MemoryUse") -> str:
    parts = [f"{size(found.files)} to install"]
    if found.program is not None:
        parts.append(f"{size(found.program)} as loaded")
    if found.arena is not None:
        bound = f" (at least {size(found.arena_bound)})" if found.arena_bound else ""
        parts.append(f"arena {size(found.arena)}{bound}")
    if found.peak is not None:
        parts.append(f"peak {size(found.peak)}")
    return ", ".join(parts)
