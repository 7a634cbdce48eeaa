"""The layers of a network as a tree of blocks: what each costs, and what it reads."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcc.compiler.support.console import TableCell, fits, table

if TYPE_CHECKING:
    from tcc.compiler.ir.cost import NodeCost

COLUMNS = ("layer", "op", "inputs", "output", "params", "MACs", "bytes")
SCREEN = 40
"""Lines of a screen where there is none."""
AROUND = 8
"""Lines of a screen that are for what stands around the layers."""
NAMED = 3
"""Inputs that are named; others are counted."""
Path = tuple[str, ...]


@dataclass
class BlockPart:
    """A block with its parts, or a layer with its row."""

    path: Path = ()
    row: "NodeCost | None" = None
    parts: dict[str, "BlockPart"] = field(default_factory=dict)

    def rows(self) -> Iterator["NodeCost"]:
        """Yield the rows of all layers, in order."""
        if self.row:
            yield self.row
        for part in self.parts.values():
            yield from part.rows()

    @property
    def inner(self) -> "BlockPart":
        """The block that it is, where it holds nothing but one block."""
        (only, *more) = self.parts.values() or (self,)
        return only.inner if only.parts and not more and not self.row else self

    @property
    def depth(self) -> int:
        """How many levels of parts there are."""
        return max((1 + part.inner.depth for part in self.parts.values()), default=0)


@dataclass(frozen=True)
class TableLine:
    """A part as it is shown: how deep, in which block, and whether its own parts are not."""

    part: BlockPart
    level: int
    home: Path
    folded: bool

    def cells(self, layers: frozenset[str]) -> tuple[TableCell, ...]:
        """Return the line of the table; `layers` are the names of all layers."""
        rows, part = tuple(self.part.rows()), self.part
        inputs = self.inputs(rows, layers)
        more = f" +{len(inputs) - NAMED}" if len(inputs) > NAMED else ""
        count = f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"
        return (
            "  " * self.level + "/".join(part.path[len(self.home) :]),
            count if part.parts else rows[0].op,
            ", ".join(inputs[:NAMED]) + more,
            "x".join(map(str, rows[-1].shape)),
            sum(row.params for row in rows),
            sum(row.macs for row in rows),
            sum(row.activation_bytes for row in rows),
        )

    def inputs(self, rows: Sequence["NodeCost"], layers: frozenset[str]) -> list[str]:
        """Return what it reads from outside, by names as its block sees them."""
        inside = {row.path for row in rows}
        read = [name for row in rows for name in row.inputs if name not in inside]
        seen = (_seen(name, self.home) if name in layers else name for name in read)
        return list(dict.fromkeys(seen))


def tree(rows: Sequence["NodeCost"]) -> BlockPart:
    """Return the block that holds all layers."""
    root = BlockPart()
    for row in rows:
        part = root
        for name in row.path.split("/"):
            part = part.parts.setdefault(name, BlockPart((*part.path, name)))
        part.row = row
    return root


def blocks(root: BlockPart) -> Iterator[BlockPart]:
    """Yield every block, each before its own."""
    for part in root.parts.values():
        if part.parts:
            yield part
            yield from blocks(part)


def shown(root: BlockPart, depth: int | None, *, every: bool) -> list[str]:
    """Return the table of layers: blocks down to a depth, or every layer.

    Unless told, blocks are folded so that the table fits a screen; where that is not enough, its
    middle is left out. A last line says so.

    Args:
        root: The network's blocks, each with those in it.
        depth: How deep blocks are opened; None for as deep as fits.
        every: Whether all layers are shown.

    Returns:
        The lines of the table.
    """
    deep = root.depth if every else depth or _fitting(root)
    found = list(_lines(root, deep))
    layers = frozenset(row.path for row in root.rows())
    told, room = every or depth is not None, _room()
    head, *body = _narrow([*COLUMNS], [line.cells(layers) for line in found])
    if not told and len(body) > room:
        left = len(body) - 2 * (room // 2)
        note = f"... {left} more ..."
        # Input and head are what one looks for; the middle of a deep network is more of the same.
        body = [*body[: room // 2], note, *body[len(body) - room // 2 :]]
    elif not any(line.folded for line in found):
        return [head, *body]
    return [head, *body, "(--depth N opens more blocks, --layers all)"]


def _lines(part: BlockPart, depth: int, level: int = 0) -> Iterator[TableLine]:
    """Yield all parts down to a depth."""
    for own in part.parts.values():
        inner = own.inner
        yield TableLine(inner, level, part.path, bool(inner.parts) and depth == 1)
        if depth > 1:
            yield from _lines(inner, depth - 1, level + 1)


def _fitting(root: BlockPart) -> int:
    """Return the largest depth at which the table fits a screen."""
    room = _room()
    return next((d for d in range(root.depth, 0, -1) if len(list(_lines(root, d))) <= room), 1)


def _room() -> int:
    """Return how many layers fit a screen."""
    real = bool(sys.stdout and sys.stdout.isatty())
    return max((shutil.get_terminal_size().lines if real else SCREEN) - AROUND, 2)


def _narrow(columns: list[str], rows: Sequence[tuple[TableCell, ...]]) -> list[str]:
    """Return a table that fits the terminal, if need be without inputs, bytes, outer names."""
    found = table(columns, rows)
    for unneeded in ("inputs", "bytes"):
        if fits(found):
            break
        place = columns.index(unneeded)
        columns = columns[:place] + columns[place + 1 :]
        rows = [row[:place] + row[place + 1 :] for row in rows]
        found = table(columns, rows, gap=1)
    return found if fits(found) else table(columns, [_shorter(row) for row in rows], gap=1)


def _shorter(row: tuple[TableCell, ...]) -> tuple[TableCell, ...]:
    name = str(row[0])
    indent = " " * (len(name) - len(name.lstrip()))
    return (indent + name.strip().rpartition("/")[2], *row[1:])


def _seen(name: str, home: Path) -> str:
    """Return what a layer is called in a block: the part that holds it; `../` leads out of one."""
    path, same = tuple(name.split("/")), 0
    while same < min(len(home), len(path) - 1) and home[same] == path[same]:
        same += 1
    return "../" * (len(home) - same) + path[same]
