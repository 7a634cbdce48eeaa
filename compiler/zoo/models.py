"""The networks that come with tcc: their specs, costs and weights, and the tables they are in."""

from collections.abc import Iterator
from dataclasses import dataclass

from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.support.json_records import Record
from tcc.compiler.zoo import shipped, tables, trained


class About(Record, frozen=True):
    """What a spec's text does not say: see `zoo/models.yaml`."""

    task: str = ""
    paper: str = ""


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A network with its default settings; `tables` are those that one of its rows is in.

    `trained` are the names of the trained networks of its spec.
    """

    name: str
    about: About
    input: TensorType
    classes: int
    params: int
    macs: int
    tables: tuple[str, ...]
    trained: tuple[str, ...]


def entries() -> Iterator[ZooNetwork]:
    """Yield every network that comes with tcc, by name."""
    about = tables.document(tables.folder() / "models.yaml")
    # The tables say which specs they have; a list on each network would be the same thing twice.
    used = {name: {row.spec for row in tables.read(name, NOWHERE).rows} for name in tables.names()}
    for name, path in shipped.specs().items():
        graph = load(path).graph
        total = cost(graph)
        yield ZooNetwork(
            name,
            json_records.decode(About, about.get(name, {})),
            graph.inputs[0].type,
            graph.types[graph.outputs[0].value].elements,
            total.params,
            total.macs,
            tuple(table for table, specs in used.items() if name in specs),
            trained.of_spec(path),
        )
