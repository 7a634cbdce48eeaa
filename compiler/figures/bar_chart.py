"""Bars of numbers up to 1 against a threshold, as the papers show what quantising loses."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.compiler.figures.drawing import DETAIL, HEADING, SHAPE, TITLE, TextLine, clip
from tcc.compiler.figures.scene import FAINT, PAINTS, TEXT, Label, Rect, Scene, rgb

MARGIN, ROW, BAR, LONG = 24, 30, 16, 420
"""Pixels around, of a row, of a bar's height, and of the axis."""
TOP = 64
"""Pixels above the first row."""
GOOD, BAD = PAINTS["conv"], PAINTS["activation"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A name, and a number that is 1 at most; one that is no number is no bar."""

    name: str
    value: float


def bar_chart(title: str, bars: Sequence[Bar], threshold: float) -> Scene:
    """Return bars below each other, and a line at the threshold.

    The axis ends at 1 and begins where the least bar can be told from it: at 0.9 or below.
    """
    # From 0 on, .98 and .9999 would be bars of the same length.
    first = min([0.9, *(each.value - 0.05 for each in bars)])
    left = MARGIN * 2 + max(DETAIL.width(clip(each.name)) for each in bars)
    bottom = TOP + ROW * len(bars)

    def place(value: float) -> int:
        return left + round(LONG * (value - first) / (1 - first))

    rects, labels = [], [Label(TextLine(MARGIN, MARGIN + 8, clip(title), HEADING), rgb(TEXT))]
    for number, each in enumerate(bars):
        y = TOP + number * ROW
        paint = GOOD if each.value >= threshold else BAD
        width = max(1, place(each.value) - left)
        rects.append(Rect(left, y, width, BAR, rgb(paint.fill), rgb(paint.stroke), 2))
        base = y + BAR - 4
        labels.append(Label(TextLine(MARGIN, base, clip(each.name), DETAIL), rgb(TEXT)))
        shown = TextLine(left + LONG + 10, base, f"{each.value:.6f}", TITLE)
        labels.append(Label(shown, rgb(TEXT)))
    marks = ((first, SHAPE), (threshold, TITLE), (1.0, SHAPE))
    labels += [
        Label(TextLine(place(value), bottom + 14, f"{value:.2f}", font, centred=True), rgb(FAINT))
        for value, font in marks
    ]
    lines = tuple(((place(x), TOP - 8), (place(x), bottom)) for x in (threshold, 1.0))
    width = left + LONG + MARGIN + 80
    height = bottom + MARGIN + 8
    return Scene(width, height, tuple(rects), lines, (), tuple(labels), rgb(FAINT))
