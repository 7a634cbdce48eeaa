"""What the colours of boxes mean, below a drawing."""

from dataclasses import dataclass

from tcc.compiler.figures.drawing import Drawing, TextLine
from tcc.compiler.figures.text_metrics import DETAIL

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


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A patch of a kind's colour, and its text; the last entry, of lines, has no patch."""

    kind: str
    x: int
    y: int
    text: TextLine


def legend(
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
