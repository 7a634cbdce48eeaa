"""Read and write `docs/support.jsonl`: one line per zoo network, target and precision.

A new network, target or precision has no line until somebody measures it; this fails no check.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir.device import Plan
from tcc.compiler.support import json_records
from tcc.compiler.support.json_records import OmitDefault, Record
from tcc.compiler.targets import devices
from tcc.compiler.zoo import shipped, trained

RECORD = Path(__file__).resolve().parents[1] / "docs" / "support.jsonl"
Key = tuple[str, str, str]


class Cell(Record, frozen=True):
    """One network on one target at one precision: why it is refused, or the measurements.

    `bytes` is the size of the target's files, or None if it was not built. The artifact ran on
    `goldens` test vectors, 0 if this machine cannot run it. `differing` of `values` outputs have
    other bits than the reference's, by at most `difference` relative to the largest one; `allowed`
    is the tolerance. `cosine` compares the int8 with the fp32 outputs over images. `commit` is the
    abbreviated commit that was measured.
    """

    network: str
    target: str
    precision: str
    refused: OmitDefault[tuple[str, ...]] = ()
    bytes: OmitDefault[int | None] = None
    goldens: OmitDefault[int] = 0
    values: OmitDefault[int] = 0
    differing: OmitDefault[int] = 0
    difference: OmitDefault[float] = 0.0
    allowed: OmitDefault[float] = 0.0
    cosine: OmitDefault[float | None] = None
    commit: OmitDefault[str] = ""

    @property
    def key(self) -> Key:
        """Network, target and precision."""
        return (self.network, self.target, self.precision)


def list_plans() -> tuple[Plan, ...]:
    """Return every target of tcc with every precision that it builds."""
    return tuple(
        Plan(device, kind)
        for device in devices.list_built_in_devices()
        for kind in device.target.precisions
    )


@cache
def load_networks() -> Mapping[str, Spec]:
    """Return every network of the zoo, the trained ones after their specs."""
    specs = {}
    for name, path in shipped.list_specs().items():
        specs[name] = load(path)
        specs |= {
            trained_name: trained.read_networks()[trained_name].load()
            for trained_name in trained.list_names_of_spec(path)
        }
    return specs


def list_keys() -> list[Key]:
    """Return the keys of all cells, in order."""
    return [
        (name, p.device.name, p.precision.name) for name in load_networks() for p in list_plans()
    ]


def read_record() -> dict[Key, Cell]:
    """Return the cells in the record."""
    lines = RECORD.read_text().splitlines() if RECORD.exists() else []
    cells = (json_records.decode(Cell, json.loads(line)) for line in lines)
    return {cell.key: cell for cell in cells}


def format_record(cells: Iterable[Cell]) -> str:
    """Return the text of the record; cells of removed networks and targets are omitted."""
    by_key = {cell.key: cell for cell in cells}
    ordered_cells = (by_key[key] for key in list_keys() if key in by_key)
    return "".join(json.dumps(json_records.encode(cell)) + "\n" for cell in ordered_cells)
