"""Write docs/support.md from docs/support.jsonl, which `support_matrix.py` measures.

    python tools/make_support.py [--check]

It fails where a network, a target or a precision has no line there, or a line is of none.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import support_record
from generated import settle
from support_record import RECORD, Cell, Key

from tcc.compiler.cli import devices
from tcc.compiler.ir.device import Device

PAGE = RECORD.with_suffix(".md")
HEAD = """# Support

Every network of the zoo, with its default settings, on every target at every precision: {built}
of {all} were built and held against the reference, {refused} are refused. {taken} say `not built`:
their target takes the network, as `tcc check` tells, but nobody has built it for this page yet, so
that it has neither a size nor a comparison.

A cell has the bytes of the target's own files, and how its outputs for drawn images, one for
networks of more than 10⁹ multiplications and two for others, compare with the reference's:
`exact` to the bit, or the power of ten that the largest difference is within, relative to the
largest value, where the line *allowed* says how much may be. A cell without that is of a target
that nothing runs here. Cells with a star were built before the last change of their target's
kernels: {older}. Bytes are of this release; the differences of floats depend on the
processor. Networks whose weights nobody trained have random ones, of seed 0 and with
He's bounds, and a calibration on eight drawn images. What each target refuses, op by op, stands in
[refused_ops.txt](../tests/golden/refused_ops.txt), what the words mean in [targets](targets.md).

`tools/support_matrix.py` measures this, and tests measure some of it again.
"""
COSINES = """
## What integers lose

The least cosine of an output of the integer program with the floats' on drawn images, the same on
every target that computes the program to the bit. Where weights are random it says little of
trained ones; those of the trained networks on real images are on their [cards](../zoo/trained).
"""


def page(record: Mapping[Key, Cell]) -> str:
    """Return the page."""
    cells = [record[key] for key in support_record.wanted()]
    built = sum(cell.bytes is not None for cell in cells)
    refused = sum(bool(cell.refused) for cell in cells)
    taken = len(cells) - built - refused
    older = sum(cell.older for cell in cells)
    head = HEAD.format(
        all=len(cells), built=built, refused=refused, taken=taken, older=older or "none"
    )
    parts = [head, *(_of_target(device, record) for device in devices.shipped())]
    return "".join([*parts, _refusals(cells), COSINES, _cosines(cells)])


def _of_target(device: Device, record: Mapping[Key, Cell]) -> str:
    kinds = [kind.name for kind in device.target.precisions]
    rows = {
        name: [record[name, device.name, kind] for kind in kinds]
        for name in support_record.networks()
    }
    allowed = [_usual(column) for column in zip(*rows.values(), strict=True)]
    lines = [["network", *(f"`{kind}`" for kind in kinds)]]
    if any(allowed):
        lines.append(["*allowed*", *(f"*{most:g}*" if most else "*none*" for most in allowed)])
    for name, row in rows.items():
        lines.append([name, *map(_cell, row, allowed)])
    return f"\n## {device.name}\n\n{device.target.title}.\n\n{_table(lines)}"


def _usual(cells: Sequence[Cell]) -> float:
    """Return what most cells of a column may differ by."""
    ((most, _),) = Counter(cell.allowed for cell in cells if cell.goldens).most_common(1) or [
        (0, 0)
    ]
    return most


def _cell(cell: Cell, allowed: float) -> str:
    if cell.refused:
        return "refused"
    if cell.bytes is None:
        return "not built"
    size = f"{cell.bytes / 1000:,.0f} KB{'*' * cell.older}"
    if not cell.goldens:
        return size
    if not cell.differing:
        return f"{size}, exact"
    other = f" of {cell.allowed:g}" if cell.allowed != allowed else ""
    return f"{size}, {cell.difference:.0e}{other}"


def _refusals(cells: Sequence[Cell]) -> str:
    refused = [cell for cell in cells if cell.refused]
    lines = [f"- {' '.join(cell.key)}: {'; '.join(cell.refused)}\n" for cell in refused]
    return "".join(["\n## What is refused\n\n", *(lines or ["Nothing of the zoo.\n"])])


def _cosines(cells: Sequence[Cell]) -> str:
    found: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.cosine is not None:
            found.setdefault(cell.network, {}).setdefault(cell.precision, cell.cosine)
    kinds = list(dict.fromkeys(cell.precision for cell in cells if cell.cosine is not None))
    lines = [["network", *(f"`{kind}`" for kind in kinds)]]
    lines += [
        [name, *(f"{own[kind]:.4f}" if kind in own else "" for kind in kinds)]
        for name, own in found.items()
    ]
    return f"\n{_table(lines)}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *rest]) + "\n"


def missing(record: Mapping[Key, Cell]) -> Iterator[str]:
    """Yield what the record lacks, and what of it there is no more."""
    wanted = set(support_record.wanted())
    for key in sorted(wanted ^ record.keys()):
        yield f"{' '.join(key)}: {'not in the record' if key in wanted else 'there is no such'}"


def main() -> int:
    """Write or check the page; return the exit code."""
    record = support_record.read()
    if wrong := list(missing(record)):
        print("\n".join(wrong[:20]))
        print(f"{len(wrong)} lines of {RECORD.name} are wrong: run tools/support_matrix.py")
        return 1
    return settle({PAGE: page(record)})


if __name__ == "__main__":
    sys.exit(main())
