"""Write docs/support.md from docs/support.jsonl, which `support_matrix.py` measures.

    python tools/make_support.py [--check]

Combinations without a line in the record are `not built`.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import support_record
from generated import write_or_check
from support_record import RECORD, Cell, Key

from tcc.compiler.ir.device import Device
from tcc.compiler.targets import devices

PAGE = RECORD.with_suffix(".md")
HEAD = """# Support

See which network of the zoo runs on which target at which precision, its size, and how exact it is.
Of {all} combinations, {built} are built and compared with the reference, and {refused} are refused.
{taken} are `not built`: `tcc check` accepts them, but they are not measured yet. They have neither
a size nor a comparison.

A cell has the size of the target's files, the comparison of its outputs with the reference, and the
commit that was measured. Networks of more than 10⁹ multiplications run on one synthetic image,
the others on two. `exact` means equal bits; a number is the power of ten that bounds the largest
difference, relative to the largest output. The row *allowed* has the tolerance. Targets that
cannot run here have only a size. Differences of floats depend on the processor. Untrained
networks have random weights, of seed 0 with He's bounds, and a calibration on eight synthetic
images. [refused_ops.txt](../tests/golden/refused_ops.txt) lists which ops each target refuses,
and [targets](targets.md) explains the terms.

`make support` measures cells for a night: first those that are missing, then the oldest ones.
"""
COSINES = """
## Quantization error

The table has the least cosine similarity between an output of the int8 model and of the fp32 model,
on synthetic images. It is the same on every target that computes the int8 program bit for bit. With
random weights, it does not predict the result of trained ones. The [cards](../zoo/trained) have the
accuracy of the trained networks on real images.
"""


def make_page(record: Mapping[Key, Cell]) -> str:
    """Return the text of the page."""
    cells = [record.get(key, Cell(*key)) for key in support_record.list_keys()]
    built = sum(cell.bytes is not None for cell in cells)
    refused = sum(bool(cell.refused) for cell in cells)
    unbuilt = len(cells) - built - refused
    head = HEAD.format(all=len(cells), built=built, refused=refused, taken=unbuilt)
    parts = [head, *(_format_target(device, record) for device in devices.list_built_in_devices())]
    return "".join([*parts, _format_refusals(cells), COSINES, _format_cosines(cells)])


def _format_target(device: Device, record: Mapping[Key, Cell]) -> str:
    kinds = [kind.name for kind in device.target.precisions]
    rows = {
        name: [
            record.get((name, device.name, kind), Cell(name, device.name, kind)) for kind in kinds
        ]
        for name in support_record.load_networks()
    }
    allowed = [_find_usual_tolerance(column) for column in zip(*rows.values(), strict=True)]
    lines = [["network", *(f"`{kind}`" for kind in kinds)]]
    if any(allowed):
        lines.append(
            ["*allowed*", *(f"*{tolerance:g}*" if tolerance else "*none*" for tolerance in allowed)]
        )
    for name, row in rows.items():
        lines.append([name, *map(_format_cell, row, allowed)])
    return f"\n## {device.name}\n\n{device.target.title}.\n\n{_format_table(lines)}"


def _find_usual_tolerance(cells: Sequence[Cell]) -> float:
    """Return the most frequent tolerance of a column's cells."""
    ((tolerance, _),) = Counter(cell.allowed for cell in cells if cell.goldens).most_common(1) or [
        (0, 0)
    ]
    return tolerance


def _format_cell(cell: Cell, allowed: float) -> str:
    if cell.refused:
        return "refused"
    if cell.bytes is None:
        return "not built"
    parts = [f"{cell.bytes / 1000:,.0f} KB"]
    if cell.goldens and not cell.differing:
        parts.append("exact")
    elif cell.goldens:
        tolerance_note = f" of {cell.allowed:g}" if cell.allowed != allowed else ""
        parts.append(f"{cell.difference:.0e}{tolerance_note}")
    return f"{', '.join(parts)} ({cell.commit})"


def _format_refusals(cells: Sequence[Cell]) -> str:
    refused = [cell for cell in cells if cell.refused]
    lines = [f"- {' '.join(cell.key)}: {'; '.join(cell.refused)}\n" for cell in refused]
    return "".join(["\n## Refused combinations\n\n", *(lines or ["None.\n"])])


def _format_cosines(cells: Sequence[Cell]) -> str:
    cosines: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.cosine is not None:
            cosines.setdefault(cell.network, {}).setdefault(cell.precision, cell.cosine)
    kinds = list(dict.fromkeys(cell.precision for cell in cells if cell.cosine is not None))
    lines = [["network", *(f"`{kind}`" for kind in kinds)]]
    lines += [
        [
            name,
            *(f"{network_cosines[kind]:.4f}" if kind in network_cosines else "" for kind in kinds),
        ]
        for name, network_cosines in cosines.items()
    ]
    return f"\n{_format_table(lines)}"


def _format_table(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *rows]) + "\n"


def main() -> int:
    """Write or check the page; return the exit code."""
    return write_or_check({PAGE: make_page(support_record.read_record())})


if __name__ == "__main__":
    sys.exit(main())
