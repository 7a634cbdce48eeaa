"""Layer table of a network as a tree of blocks, with costs and inputs."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcc.compiler.support.console import TableCell, fits_terminal, format_table

if TYPE_CHECKING:
    from tcc.compiler.ir.cost import NodeCost

COLUMNS = ("layer", "op", "inputs", "output", "params", "MACs", "bytes")
DEFAULT_LINES = 40
"""Screen lines assumed without a terminal."""
RESERVED_LINES = 8
"""Screen lines for the text above and below the table."""
MAX_NAMED_INPUTS = 3
"""Inputs shown by name; the others are counted."""
Path = tuple[str, ...]


@dataclass
class BlockPart:
    """A block with its parts, or a layer with its cost."""

    path: Path = ()
    row: "NodeCost | None" = None
    parts: dict[str, "BlockPart"] = field(default_factory=dict)

    def iterate_rows(self) -> Iterator["NodeCost"]:
        """Yield the costs of all layers, in order."""
        if self.row:
            yield self.row
        for part in self.parts.values():
            yield from part.iterate_rows()

    @property
    def inner(self) -> "BlockPart":
        """The innermost block in a chain of blocks with a single part; otherwise this block."""
        (sole_part, *other_parts) = self.parts.values() or (self,)
        return sole_part.inner if sole_part.parts and not other_parts and not self.row else self

    @property
    def depth(self) -> int:
        """The number of nesting levels."""
        return max((1 + part.inner.depth for part in self.parts.values()), default=0)


@dataclass(frozen=True)
class TableLine:
    """A line of the table: a part, its indentation, its block, and whether it is folded."""

    part: BlockPart
    level: int
    block_path: Path
    folded: bool

    def build_cells(self, layers: frozenset[str]) -> tuple[TableCell, ...]:
        """Return the cells of the line. `layers` are the names of all layers."""
        rows, part = tuple(self.part.iterate_rows()), self.part
        inputs = self.list_inputs(rows, layers)
        extra_text = f" +{len(inputs) - MAX_NAMED_INPUTS}" if len(inputs) > MAX_NAMED_INPUTS else ""
        count = f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"
        return (
            "  " * self.level + "/".join(part.path[len(self.block_path) :]),
            count if part.parts else rows[0].op,
            ", ".join(inputs[:MAX_NAMED_INPUTS]) + extra_text,
            "x".join(map(str, rows[-1].shape)),
            sum(row.params for row in rows),
            sum(row.macs for row in rows),
            sum(row.activation_bytes for row in rows),
        )

    def list_inputs(self, rows: Sequence["NodeCost"], layers: frozenset[str]) -> list[str]:
        """Return the inputs from outside this part, by names relative to its block."""
        inside = {row.path for row in rows}
        outside_names = [name for row in rows for name in row.inputs if name not in inside]
        relative_names = (
            _make_relative_name(name, self.block_path) if name in layers else name
            for name in outside_names
        )
        return list(dict.fromkeys(relative_names))


def build_tree(rows: Sequence["NodeCost"]) -> BlockPart:
    """Return the root block of all layers."""
    root = BlockPart()
    for row in rows:
        part = root
        for name in row.path.split("/"):
            part = part.parts.setdefault(name, BlockPart((*part.path, name)))
        part.row = row
    return root


def iterate_blocks(root: BlockPart) -> Iterator[BlockPart]:
    """Yield every block, in preorder."""
    for part in root.parts.values():
        if part.parts:
            yield part
            yield from iterate_blocks(part)


def render_layers(root: BlockPart, depth: int | None, *, all_layers: bool) -> list[str]:
    """Return the layer table: blocks down to a depth, or every layer.

    By default, blocks are folded so that the table fits the screen. If that is not enough, the
    middle is omitted. The last line then names the options that show more.

    Args:
        root: The root block.
        depth: The depth to which blocks are opened; None for the largest that fits.
        all_layers: Whether to show all layers.

    Returns:
        The lines of the table.
    """
    max_depth = root.depth if all_layers else depth or _find_fitting_depth(root)
    table_lines = list(_iterate_lines(root, max_depth))
    layers = frozenset(row.path for row in root.iterate_rows())
    is_explicit, screen_lines = all_layers or depth is not None, _count_screen_lines()
    head, *body = _fit_table([*COLUMNS], [line.build_cells(layers) for line in table_lines])
    if not is_explicit and len(body) > screen_lines:
        hidden_lines = len(body) - 2 * (screen_lines // 2)
        note = f"... {hidden_lines} more ..."
        # Readers look for the input and the head; the middle of a deep network repeats.
        body = [*body[: screen_lines // 2], note, *body[len(body) - screen_lines // 2 :]]
    elif not any(line.folded for line in table_lines):
        return [head, *body]
    return [head, *body, "(--depth N opens more blocks, --layers all shows every layer)"]


def _iterate_lines(part: BlockPart, depth: int, level: int = 0) -> Iterator[TableLine]:
    """Yield all parts down to a depth."""
    for part_below in part.parts.values():
        inner = part_below.inner
        yield TableLine(inner, level, part.path, bool(inner.parts) and depth == 1)
        if depth > 1:
            yield from _iterate_lines(inner, depth - 1, level + 1)


def _find_fitting_depth(root: BlockPart) -> int:
    """Return the largest depth at which the table fits the screen."""
    screen_lines = _count_screen_lines()
    return next(
        (d for d in range(root.depth, 0, -1) if len(list(_iterate_lines(root, d))) <= screen_lines),
        1,
    )


def _count_screen_lines() -> int:
    """Return the number of table lines that fit the screen."""
    is_terminal = bool(sys.stdout and sys.stdout.isatty())
    return max(
        (shutil.get_terminal_size().lines if is_terminal else DEFAULT_LINES) - RESERVED_LINES, 2
    )


def _fit_table(columns: list[str], rows: Sequence[tuple[TableCell, ...]]) -> list[str]:
    """Return a table that fits the terminal. Drops inputs, bytes and outer names as needed."""
    lines = format_table(columns, rows)
    for unneeded in ("inputs", "bytes"):
        if fits_terminal(lines):
            break
        index = columns.index(unneeded)
        columns = columns[:index] + columns[index + 1 :]
        rows = [row[:index] + row[index + 1 :] for row in rows]
        lines = format_table(columns, rows, gap=1)
    return (
        lines
        if fits_terminal(lines)
        else format_table(columns, [_trim_name(row) for row in rows], gap=1)
    )


def _trim_name(row: tuple[TableCell, ...]) -> tuple[TableCell, ...]:
    name = str(row[0])
    indent = " " * (len(name) - len(name.lstrip()))
    return (indent + name.strip().rpartition("/")[2], *row[1:])


def _make_relative_name(name: str, block_path: Path) -> str:
    """Return a layer's name relative to a block; `../` stands for the parent block."""
    path, common_depth = tuple(name.split("/")), 0
    while (
        common_depth < min(len(block_path), len(path) - 1)
        and block_path[common_depth] == path[common_depth]
    ):
        common_depth += 1
    return "../" * (len(block_path) - common_depth) + path[common_depth]
