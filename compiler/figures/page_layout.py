"""A page around a drawing: margins, heading and legend; and how its lines bend."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tcc.compiler.figures.drawing import DETAIL, HEADING, Drawing, Point, TextLine, clip

MEANINGS = {
    "input": "input, output",
    "conv": "convolution, linear",
    "norm": "normalisation",
    "activation": "activation",
    "pool": "pooling, resizing",
    "join": "join",
    "layout": "moves or drops values",
    "closed": "block, closed",
    "block": "block, open",
}
"""The kinds of boxes, in the legend's order."""
EDGES = "on lines: channels x height x width"
SIZE, LINE, GAP = 14, 24, 18
"""Side of a patch of colour, height of a line, and pixels between entries."""


MARGIN = 24
"""Pixels around the drawing."""
TOP = 48
"""Pixels for its heading."""
ROUND = 6
"""Radius of corners."""
NARROWEST = 320
"""Width that a legend has at least."""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A patch of a kind's colour, and its text; the last entry, of lines, has no patch."""

    kind: str
    x: int
    y: int
    text: TextLine


@dataclass(frozen=True)
class Sheet:
    """A page: its size, its title, the drawing at `left` and `top`, and the legend below."""

    width: int
    height: int
    title: TextLine
    drawing: Drawing
    left: int
    top: int
    legend: tuple[LegendEntry, ...] = ()


def sheet(drawing: Drawing, heading: str, *, with_legend: bool = False) -> Sheet:
    """Return the page of a drawing."""
    title = TextLine(MARGIN, 30, clip(heading, 96), HEADING)
    inner = max(drawing.width, HEADING.width(title.text), NARROWEST if with_legend else 0)
    width, height = inner + 2 * MARGIN, drawing.height + TOP + MARGIN
    left = (width - drawing.width) // 2
    if not with_legend:
        return Sheet(width, height, title, drawing, left, TOP)
    entries, more = _explain(drawing, inner, MARGIN, height)
    return Sheet(width, height + more + MARGIN // 2, title, drawing, left, TOP, entries)


def _explain(
    drawing: Drawing, width: int, left: int, top: int
) -> tuple[tuple[LegendEntry, ...], int]:
    """Return the entries for what a drawing shows, in lines of a width, and their height."""
    # Only what is in the picture: a legend of nine kinds explains nothing to a network of three.
    shown = {frame.box.kind_shown for frame in drawing.frames}
    words = [(kind, text) for kind, text in MEANINGS.items() if kind in shown]
    if drawing.shapes:
        words.append(("", EDGES))
    entries, x, y = [], 0, 0
    for kind, text in words:
        patch = SIZE + 6 if kind else 0
        wide = patch + DETAIL.width(text)
        if x and x + wide > width:
            x, y = 0, y + LINE
        at = TextLine(left + x + patch, top + y + SIZE - 3, text, DETAIL)
        entries.append(LegendEntry(kind, left + x, top + y, at))
        x += wide + GAP
    return tuple(entries), y + LINE


def path(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return a line's points: start, end, and of each corner its beginning, itself and its end."""
    kept = [p for p, after in pairwise(points) if p != after]
    kept.append(points[-1])
    found = [kept[0]]
    for before, corner, after in zip(kept, kept[1:], kept[2:], strict=False):
        found += [_towards(corner, before), corner, _towards(corner, after)]
    return (*found, kept[-1])


def head(points: Sequence[Point]) -> tuple[Point, Point, Point]:
    """Return the corners of the arrow head at a line's end, which comes first."""
    (x, y), (from_x, from_y) = points[-1], next(p for p in points[-2::-1] if p != points[-1])
    dx, dy = _sign(x - from_x), _sign(y - from_y)
    back = (x - 6 * dx, y - 6 * dy)
    return (x, y), (back[0] - 3 * dy, back[1] - 3 * dx), (back[0] + 3 * dy, back[1] + 3 * dx)


def _towards(corner: Point, other: Point) -> Point:
    """Return the point where a rounded corner begins."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    # At most half of the shorter stretch, so that two corners do not overlap.
    by = min(ROUND, (abs(dx) + abs(dy)) // 2)
    return corner[0] + _sign(dx) * by, corner[1] + _sign(dy) * by


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
