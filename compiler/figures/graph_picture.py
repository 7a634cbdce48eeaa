"""A graph's picture, from its boxes to the text of the file."""

from dataclasses import dataclass
from typing import assert_never

from tcc.compiler.figures import Direction, Level
from tcc.compiler.figures.block_folding import fold
from tcc.compiler.figures.box_layout import lay_out
from tcc.compiler.figures.box_tree import nest, shape_of
from tcc.compiler.figures.drawing import Drawing, DrawingStyle, clip, counted, rounded
from tcc.compiler.figures.page_layout import Sheet, sheet
from tcc.compiler.figures.scene import Scene, scene
from tcc.compiler.figures.svg import render_sheet
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """How much a picture shows, where its values flow to, and whether it explains its colours."""

    level: Level = Level.BLOCK
    direction: Direction = Direction.DOWN
    legend: bool = False


def draw(graph: Graph, look: PictureOptions, doc: str = "") -> str:
    """Return a graph as the text of an SVG file; `doc` is what it says of itself."""
    return render_sheet(_sheet(graph, look), _heading(graph), doc)


def shapes(graph: Graph, look: PictureOptions) -> Scene:
    """Return a graph as shapes, for other kinds of files."""
    return scene(_sheet(graph, look))


def _sheet(graph: Graph, look: PictureOptions) -> Sheet:
    drawing = plan(graph, look.level, look.direction)
    return sheet(drawing, _heading(graph), with_legend=look.legend)


def _heading(graph: Graph) -> str:
    costs = cost(graph)
    return f"{graph.name}: {counted(costs.params, 'params')}, {rounded(costs.macs, 'MACs')}"


def plan(
    graph: Graph, level: Level = Level.BLOCK, direction: Direction = Direction.DOWN
) -> Drawing:
    """Return where everything stands in the picture of a graph."""
    root = nest(graph)
    match level:
        case Level.BLOCK:
            shown = fold(root)
        case Level.OP:
            shown = root
        case _:
            assert_never(level)
    # What is said on lines is known before anything is placed, since texts take room.
    shapes = {value: clip(shape_of(kind)) for value, kind in graph.types.items()}
    return lay_out(shown, DrawingStyle(shapes, direction))
