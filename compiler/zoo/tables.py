"""Networks that come with tcc, and tables of papers: printed figures and computed costs.

A table is a file in `zoo/tables`. Each row has a spec with its settings and the printed figures.
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
"""Values of the units in papers."""


class Column(Record, frozen=True):
    """A column of a table: its title, unit, decimals, and counting convention."""

    title: str
    convention: str
    unit: str = ""
    digits: int = 0

    @property
    def rule(self) -> Convention:
        """The counting convention."""
        return CONVENTIONS[self.convention]


class Row(Record, frozen=True):
    """A row of a table: a network's spec, and the printed figures by column.

    `functions` and `twice` describe the program that the paper counted; see CountedNetwork. `why`
    explains in one line why figures do not match.
    """

    model: str
    spec: str
    printed: Mapping[str, float]
    settings: Mapping[str, str] | None = None
    functions: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    why: str = ""


class PaperTable(Record, frozen=True):
    """A table of a paper; `note` is one line about all of it."""

    title: str
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]
    note: str = ""


class PrintedMatch(StrEnum):
    """How a printed figure relates to the computed one."""

    EQUAL = "equal"
    ROUNDED = "rounded"
    TRUNCATED = "truncated"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure: the exact computed value, and the printed value in the unit of its column."""

    column: Column
    computed: int
    printed: Decimal

    @property
    def scaled(self) -> Decimal:
        """The computed figure in the column's unit."""
        return Decimal(self.computed) / UNITS[self.column.unit]

    @property
    def difference(self) -> Decimal:
        """Computed minus printed value, in the column's unit."""
        return self.scaled - self.printed

    @property
    def agreement(self) -> PrintedMatch:
        """Whether the computed figure equals the printed one at the printed digits."""
        last_digit = Decimal(1).scaleb(-self.column.digits)
        if self.difference == 0:
            return PrintedMatch.EQUAL
        # Papers round or truncate; the result reports which.
        if self.scaled.quantize(last_digit, ROUND_HALF_UP) == self.printed:
            return PrintedMatch.ROUNDED
        if self.scaled.quantize(last_digit, ROUND_DOWN) == self.printed:
            return PrintedMatch.TRUNCATED
        return PrintedMatch.NONE


@dataclass(frozen=True, slots=True)
class Line:
    """A computed row: exact costs, and a figure for each column of the paper."""

    row: Row
    params: int
    macs: int
    cells: Mapping[str, Cell]


def list_tables() -> tuple[str, ...]:
    """Return the tables' names, sorted."""
    return tuple(
        sorted(path.stem for path in (shipped.get_package_folder("zoo") / "tables").glob("*.yaml"))
    )


def read_table(name: str, at: Span) -> PaperTable:
    """Return a table; `at` is the position of its name in the user's input.

    Raises:
        UserError: There is none (E0609); the help suggests the nearest name.
    """
    if name not in list_tables():
        nearest_name = find_nearest_name(name, set(list_tables()))
        table_names = f"tables: {', '.join(list_tables())}"
        help = f"did you mean `{nearest_name}`? {table_names}" if nearest_name else table_names
        raise fail("E0609", f"there is no table `{name[:80]}`", at, help=help)
    table: PaperTable = json_records.decode(
        PaperTable, read_document(shipped.get_package_folder("zoo") / "tables" / f"{name}.yaml")
    )
    return table


def read_document(path: Path) -> Any:
    """Return a YAML file of the zoo as dicts and lists."""
    return to_plain(parse(path.read_text(), path.name))


def compute_lines(table: PaperTable) -> Iterator[Line]:
    """Yield each row of a table with the computed cost of its spec."""
    specs = shipped.list_specs()
    for row in table.rows:
        graph = load(specs[row.spec], row.settings).graph
        # Compare printed figures as decimal text: 0.285 as a float would round down.
        network = CountedNetwork(graph, row.functions, row.twice)
        cells = {
            name: Cell(column, column.rule.count(network), Decimal(str(row.printed[name])))
            for name, column in table.columns.items()
        }
        yield Line(row, network.cost.params, network.cost.macs, cells)


class NetworkDescription(Record, frozen=True):
    """Description of a network from `zoo/models.yaml`: its task and its paper."""

    task: str = ""
    paper: str = ""


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A network with its default settings, and the names of the tables that have it.

    `trained` has the names of the trained networks with its spec.
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
    """Yield every network that comes with tcc, sorted by name."""
    descriptions = read_document(shipped.get_package_folder("zoo") / "models.yaml")
    # Derived from the tables, so that nothing is listed twice.
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
