"""A graph's picture, from its boxes to the text of the file."""

from typing import assert_never

from tcc.compiler.cost import cost
from tcc.compiler.draw import Level
from tcc.compiler.draw.blocks import fold
from tcc.compiler.draw.boxes import nest
from tcc.compiler.draw.describe import shape_of
from tcc.compiler.draw.layout import Drawing, lay_out
from tcc.compiler.draw.svg import render
from tcc.compiler.draw.words import clip, counted, rounded
from tcc.compiler.graph import Graph


def draw(graph: Graph, level: Level = Level.BLOCK, doc: str = "") -> str:
    """Return a graph as the text of an SVG file; `doc` is what it says of itself."""
    costs = cost(graph)
    heading = f"{graph.name}: {counted(costs.params, 'params')}, {rounded(costs.macs, 'MACs')}"
    return render(plan(graph, level), heading, doc)


def plan(graph: Graph, level: Level = Level.BLOCK) -> Drawing:
    """Return where everything stands in the picture of a graph."""
    root = nest(graph)
    match level:
        case Level.BLOCK:
            shown = fold(root)
        case Level.OP:
            shown = root
        case _:
            assert_never(level)
    shapes = {value: clip(shape_of(kind)) for value, kind in graph.types.items()}
    return lay_out(shown, shapes)
