"""The networks that come with tcc, and the papers' tables: what they print, and what specs cost.

A table is a file of `zoo/tables`: for each row a spec with its settings and the printed figures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import NOWHERE, Span, fail, find_nearest_name
from tcc.compiler.support.json_records import Record
from tcc.compiler.zoo import shipped, trained
from tcc.compiler.zoo.counting_conventions import CONVENTIONS, Convention, CountedNetwork

UNITS: Mapping[str, int] = {"": 1, "M": 10**6, "G": 10**9, "MB": 10**6, "MiB": 2**20}
"""What a paper's units hold."""


class Column(Record, frozen=True):
    """A column of a paper: its title, unit, decimals, and the convention that it counts by."""

    title: str
    convention: str
    unit: str = ""
    digits: int = 0

    @property
    def rule(self) -> Convention:
        """The convention itself."""
        return CONVENTIONS[self.convention]


class Row(Record, frozen=True):
    """A network of a paper: the spec that it is, and the printed figures by column.

    `functions` and `twice` say how the program is written that the paper counted; `why` says in
    a line what the figures do not follow from.
    """

    model: str
    spec: str
    printed: Mapping[str, float]
    settings: Mapping[str, str] | None = None
    functions: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    why: str = ""


class PaperTable(Record, frozen=True):
    """A table of a paper; `note` says in a line what holds for all of it."""

    title: str
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]
    note: str = ""


class PrintedMatch(StrEnum):
    """How a printed figure comes from the computed one."""

    EQUAL = "equal"
    ROUNDED = "rounded"
    TRUNCATED = "truncated"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure: computed, exactly, and as the paper prints it, in the unit of its column."""

    column: Column
    computed: int
    printed: Decimal

    @property
    def scaled(self) -> Decimal:
        """The computed figure in the column's unit."""
        return Decimal(self.computed) / UNITS[self.column.unit]

    @property
    def difference(self) -> Decimal:
        """What the computed figure exceeds the printed one by, in the column's unit."""
        return self.scaled - self.printed

    @property
    def agreement(self) -> PrintedMatch:
        """Whether the printed figure is the computed one to the printed digits."""
        last_digit = Decimal(1).scaleb(-self.column.digits)
        if self.difference == 0:
            return PrintedMatch.EQUAL
        # Papers round, and some cut digits off; which of the two is a finding and is named.
        if self.scaled.quantize(last_digit, ROUND_HALF_UP) == self.printed:
            return PrintedMatch.ROUNDED
        if self.scaled.quantize(last_digit, ROUND_DOWN) == self.printed:
            return PrintedMatch.TRUNCATED
        return PrintedMatch.NONE


@dataclass(frozen=True, slots=True)
class Line:
    """A row as computed: exact costs, and a figure for each column that the paper prints."""

    row: Row
    params: int
    macs: int
    cells: Mapping[str, Cell]


def list_tables() -> tuple[str, ...]:
    """Return the tables' names, in order."""
    return tuple(
        sorted(path.stem for path in (shipped.get_package_folder("zoo") / "tables").glob("*.yaml"))
    )


def read_table(name: str, at: Span) -> PaperTable:
    """Return a table; `at` is where the user named it.

    Raises:
        UserError: There is none (E0609); the nearest is named.
    """
    if name not in list_tables():
        nearest_name = find_nearest_name(name, set(list_tables()))
        table_names = f"tables are {', '.join(list_tables())}"
        help = f"did you mean `{nearest_name}`? {table_names}" if nearest_name else table_names
        raise fail("E0609", f"there is no table `{name[:80]}`", at, help=help)
    table: PaperTable = json_records.decode(
        PaperTable, read_document(shipped.get_package_folder("zoo") / "tables" / f"{name}.yaml")
    )
    return table


def read_document(path: Path) -> Any:
    """Return a file of the zoo's data as dicts and lists."""
    return to_plain(parse(path.read_text(), path.name))


def compute_lines(table: PaperTable) -> Iterator[Line]:
    """Yield each row of a table with what its spec costs."""
    specs = shipped.list_specs()
    for row in table.rows:
        graph = load(specs[row.spec], row.settings).graph
        # Printed figures are decimal text and compared as such: 0.285 as a float would round down.
        network = CountedNetwork(graph, row.functions, row.twice)
        cells = {
            name: Cell(column, column.rule.count(network), Decimal(str(row.printed[name])))
            for name, column in table.columns.items()
        }
        yield Line(row, network.cost.params, network.cost.macs, cells)


class NetworkDescription(Record, frozen=True):
    """What a spec's text does not say: see `zoo/models.yaml`."""

    task: str = ""
    paper: str = ""


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A network with its default settings; `tables` are those that one of its rows is in.

    `trained` are the names of the trained networks of its spec.
    """

    name: str
    description: NetworkDescription
    input: TensorType
    classes: int
    params: int
    macs: int
    tables: tuple[str, ...]
    trained: tuple[str, ...]


def iterate_networks() -> Iterator[ZooNetwork]:
    """Yield every network that comes with tcc, by name."""
    descriptions = read_document(shipped.get_package_folder("zoo") / "models.yaml")
    # The tables say which specs they have; a list on each network would be the same thing twice.
    used = {name: {row.spec for row in read_table(name, NOWHERE).rows} for name in list_tables()}
    for name, path in shipped.list_specs().items():
        graph = load(path).graph
        total = compute_cost(graph)
        yield ZooNetwork(
            name,
            json_records.decode(NetworkDescription, descriptions.get(name, {})),
            graph.inputs[0].type,
            graph.types[graph.outputs[0].value].elements,
            total.params,
            total.macs,
            tuple(table for table, specs in used.items() if name in specs),
            trained.list_names_of_spec(path),
        )
