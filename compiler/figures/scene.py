"""A drawing as shapes of plain colours at their places on a page, for writers without styles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tcc.compiler.figures.drawing import DETAIL, HEADING, SHAPE, TITLE, Point, TextLine, clip
from tcc.compiler.figures.page_layout import ROUND, SIZE, Sheet, head, path


@dataclass(frozen=True, slots=True)
class Paint:
    """The colours of a kind of box; its own lets as much of what is below through."""

    fill: str = "#fff"
    stroke: str = "#8c959f"
    opacity: str = ""


TEXT, FAINT, LINE, WHITE = "#24292f", "#57606a", "#6e7781", "#fff"
PAINTS: Mapping[str, Paint] = {
    "block": Paint("#8c959f", opacity=".1"),
    "conv": Paint("#ddf4ff", "#54aeff"),
    "norm": Paint("#fff8c5", "#d4a72c"),
    "activation": Paint("#ffebe9", "#ff8182"),
    "pool": Paint("#dafbe1", "#4ac26b"),
    "join": Paint("#fbefff", "#c297ff"),
    "layout": Paint("#eaeef2"),
    "closed": Paint("#f6f8fa", "#57606a"),
    "input": Paint("#24292f", "#24292f"),
    "output": Paint("#24292f", "#24292f"),
}
DARK = ("input", "output")
"""Kinds whose texts are white."""


Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle with round corners."""

    x: int
    y: int
    width: int
    height: int
    fill: Colour
    stroke: Colour
    radius: int = ROUND


@dataclass(frozen=True, slots=True)
class Label:
    """A text and its colour."""

    text: TextLine
    colour: Colour


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn, in order: boxes, lines with round corners, arrow heads, texts.

    A line is a start, then for each corner its point and those where it begins and ends, and an
    end. All of its numbers are pixels.
    """

    width: int
    height: int
    rects: tuple[Rect, ...]
    lines: tuple[tuple[Point, ...], ...]
    heads: tuple[tuple[Point, Point, Point], ...]
    labels: tuple[Label, ...]
    line: Colour


def scene(sheet: Sheet) -> Scene:
    """Return a sheet's shapes."""
    drawing, right, down = sheet.drawing, sheet.left, sheet.top
    wires = [tuple(_moved(p, right, down) for p in wire.points) for wire in drawing.wires]
    arrows = (w for w, wire in zip(wires, drawing.wires, strict=True) if wire.arrow)
    return Scene(
        sheet.width,
        sheet.height,
        tuple(_rects(sheet)),
        tuple(dict.fromkeys(path(points) for points in wires)),
        tuple(dict.fromkeys(head(points) for points in arrows)),
        tuple(_labels(sheet)),
        rgb(LINE),
    )


def rgb(code: str) -> Colour:
    """Return the red, green and blue of a colour such as #8c959f or #fff."""
    digits = code[1:] if len(code) == 7 else "".join(2 * digit for digit in code[1:])
    red, green, blue = (int(digits[n : n + 2], 16) for n in (0, 2, 4))
    return red, green, blue


def _rects(sheet: Sheet) -> Iterator[Rect]:
    fills: list[Colour] = []
    for frame in sheet.drawing.frames:
        paint = PAINTS[frame.box.kind_shown]
        below = fills[frame.inside] if frame.inside >= 0 else rgb(WHITE)
        # PNG and PDF are written without transparency: colours are mixed here, from outside inward
        fills.append(_over(paint, below))
        x, y = frame.x + sheet.left, frame.y + sheet.top
        yield Rect(x, y, frame.width, frame.height, fills[-1], rgb(paint.stroke))
    for entry in sheet.legend:
        if entry.kind:
            paint = PAINTS[entry.kind]
            fill = _over(paint, rgb(WHITE))
            yield Rect(entry.x, entry.y, SIZE, SIZE, fill, rgb(paint.stroke), 3)


def _labels(sheet: Sheet) -> Iterator[Label]:
    drawing, by = sheet.drawing, (sheet.left, sheet.top)
    yield Label(sheet.title, rgb(TEXT))
    for frame in drawing.frames:
        colour = rgb(WHITE if frame.box.kind in DARK else TEXT)
        yield from (Label(_placed(text, by), colour) for text in frame.texts)
    yield from (Label(_placed(text, by), rgb(FAINT)) for text in drawing.shapes)
    yield from (Label(entry.text, rgb(TEXT)) for entry in sheet.legend)


def _placed(text: TextLine, by: Point) -> TextLine:
    return TextLine(text.x + by[0], text.y + by[1], text.text, text.font, text.centred)


def _over(paint: Paint, below: Colour) -> Colour:
    """Return a box's colour as it looks over what is below."""
    share = float(paint.opacity or 1)
    red, green, blue = (
        round(share * own + (1 - share) * under)
        for own, under in zip(rgb(paint.fill), below, strict=True)
    )
    return red, green, blue


def _moved(point: Point, right: int, down: int) -> Point:
    return point[0] + right, point[1] + down


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
