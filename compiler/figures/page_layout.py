"""Page around a drawing: margins, heading, legend, and rounded corners of lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tcc.compiler.figures.drawing import DETAIL, HEADING, Drawing, Point, TextLine, clip_text

KIND_DESCRIPTIONS = {
    "input": "input, output",
    "conv": "convolution, linear",
    "norm": "normalisation",
    "activation": "activation",
    "pool": "pooling, resizing",
    "join": "add, multiply, concatenate",
    "layout": "data layout, dropout",
    "closed": "block, closed",
    "block": "block, open",
}
"""The kinds of boxes, in the legend's order."""
EDGE_DESCRIPTION = "edge labels: channels x height x width"
PATCH_SIZE, LINE, GAP = 14, 24, 18
"""Side of a colour patch, height of a line, and pixels between entries."""


MARGIN = 24
"""Pixels around the drawing."""
TOP = 48
"""Pixels for the heading."""
CORNER_RADIUS = 6
"""Radius of corners."""
MIN_LEGEND_WIDTH = 320
"""Minimum width of a legend."""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A colour patch of a kind, and its text; the last entry, for edges, has no patch."""

    kind: str
    x: int
    y: int
    text: TextLine


@dataclass(frozen=True)
class Sheet:
    """A page: size, title, drawing at (`drawing_x`, `drawing_y`), and the legend below."""

    width: int
    height: int
    title: TextLine
    drawing: Drawing
    drawing_x: int
    drawing_y: int
    legend: tuple[LegendEntry, ...] = ()


def build_sheet(drawing: Drawing, heading: str, *, with_legend: bool = False) -> Sheet:
    """Return a page with a heading, a drawing, and a legend if needed."""
    title = TextLine(MARGIN, 30, clip_text(heading, 96), HEADING)
    content_width = max(
        drawing.width, HEADING.measure_width(title.text), MIN_LEGEND_WIDTH if with_legend else 0
    )
    width, height = content_width + 2 * MARGIN, drawing.height + TOP + MARGIN
    drawing_x = (width - drawing.width) // 2
    if not with_legend:
        return Sheet(width, height, title, drawing, drawing_x, TOP)
    legend, legend_height = _layout_legend(drawing, content_width, MARGIN, height)
    return Sheet(
        width, height + legend_height + MARGIN // 2, title, drawing, drawing_x, TOP, legend
    )


def _layout_legend(
    drawing: Drawing, width: int, origin_x: int, origin_y: int
) -> tuple[tuple[LegendEntry, ...], int]:
    """Return the legend entries of a drawing, wrapped to a width, and their height."""
    # Only the kinds in the drawing.
    visible_kinds = {frame.box.shown_kind for frame in drawing.frames}
    descriptions = [
        (kind, text) for kind, text in KIND_DESCRIPTIONS.items() if kind in visible_kinds
    ]
    if drawing.shapes:
        descriptions.append(("", EDGE_DESCRIPTION))
    legend, x, y = [], 0, 0
    for kind, text in descriptions:
        patch = PATCH_SIZE + 6 if kind else 0
        entry_width = patch + DETAIL.measure_width(text)
        if x and x + entry_width > width:
            x, y = 0, y + LINE
        at = TextLine(origin_x + x + patch, origin_y + y + PATCH_SIZE - 3, text, DETAIL)
        legend.append(LegendEntry(kind, origin_x + x, origin_y + y, at))
        x += entry_width + GAP
    return tuple(legend), y + LINE


def expand_corners(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return a line's points: the start, three points of each rounded corner, and the end."""
    distinct = [p for p, following in pairwise(points) if p != following]
    distinct.append(points[-1])
    curve_points = [distinct[0]]
    for previous, corner, following in zip(distinct, distinct[1:], distinct[2:], strict=False):
        curve_points += [_move_towards(corner, previous), corner, _move_towards(corner, following)]
    return (*curve_points, distinct[-1])


def compute_arrow_head(points: Sequence[Point]) -> tuple[Point, Point, Point]:
    """Return the corners of the arrow head at a line's end, tip first."""
    (x, y), (from_x, from_y) = points[-1], next(p for p in points[-2::-1] if p != points[-1])
    dx, dy = _sign(x - from_x), _sign(y - from_y)
    back = (x - 6 * dx, y - 6 * dy)
    return (x, y), (back[0] - 3 * dy, back[1] - 3 * dx), (back[0] + 3 * dy, back[1] + 3 * dx)


def _move_towards(corner: Point, target: Point) -> Point:
    """Return the start of a rounded corner."""
    dx, dy = target[0] - corner[0], target[1] - corner[1]
    # At most half of the segment, so that two corners do not overlap.
    distance = min(CORNER_RADIUS, (abs(dx) + abs(dy)) // 2)
    return corner[0] + _sign(dx) * distance, corner[1] + _sign(dy) * distance


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
