"""Figure of a graph, from its boxes to the text of the file."""

from dataclasses import dataclass
from typing import assert_never

from tcc.compiler.figures import Direction, Level
from tcc.compiler.figures.block_folding import fold
from tcc.compiler.figures.box_layout import build_drawing
from tcc.compiler.figures.box_tree import build_box_tree, format_type
from tcc.compiler.figures.drawing import (
    Drawing,
    DrawingStyle,
    clip_text,
    format_count,
    format_rounded,
)
from tcc.compiler.figures.page_layout import Sheet, build_sheet
from tcc.compiler.figures.scene import Scene, build_scene
from tcc.compiler.figures.svg import render_sheet
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """Options of a figure: level of detail, direction of flow, and legend."""

    level: Level = Level.BLOCK
    direction: Direction = Direction.DOWN
    legend: bool = False


def draw(graph: Graph, options: FigureOptions, doc: str = "") -> str:
    """Return a graph's figure as SVG text; `doc` becomes the description in the file."""
    return render_sheet(_build_sheet(graph, options), _build_heading(graph), doc)


def draw_scene(graph: Graph, options: FigureOptions) -> Scene:
    """Return a graph's figure as a scene, for other file formats."""
    return build_scene(_build_sheet(graph, options))


def _build_sheet(graph: Graph, options: FigureOptions) -> Sheet:
    drawing = plan_drawing(graph, options.level, options.direction)
    return build_sheet(drawing, _build_heading(graph), with_legend=options.legend)


def _build_heading(graph: Graph) -> str:
    costs = compute_cost(graph)
    return (
        f"{graph.name}: {format_count(costs.params, 'params')}, "
        f"{format_rounded(costs.macs, 'MACs')}"
    )


def plan_drawing(
    graph: Graph, level: Level = Level.BLOCK, direction: Direction = Direction.DOWN
) -> Drawing:
    """Return the drawing of a graph, with the positions of all elements."""
    root = build_box_tree(graph)
    match level:
        case Level.BLOCK:
            visible_root = fold(root)
        case Level.OP:
            visible_root = root
        case _:
            assert_never(level)
    # Edge labels come first, because their size affects the layout.
    shapes = {value: clip_text(format_type(kind)) for value, kind in graph.types.items()}
    return build_drawing(visible_root, DrawingStyle(shapes, direction))
