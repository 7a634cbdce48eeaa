"""Scenes: a drawing as plain shapes with colours and positions, for writers without styles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tcc.compiler.figures.drawing import DETAIL, HEADING, SHAPE, TITLE, Point, TextLine, clip_text
from tcc.compiler.figures.page_layout import (
    CORNER_RADIUS,
    PATCH_SIZE,
    Sheet,
    compute_arrow_head,
    expand_corners,
)


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours of a kind of box; `opacity` is that of the fill."""

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
DARK_KINDS = ("input", "output")
"""Kinds with white text."""


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
    radius: int = CORNER_RADIUS


@dataclass(frozen=True, slots=True)
class Label:
    """A text and its colour."""

    text: TextLine
    colour: Colour


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes in drawing order: boxes, lines with round corners, arrow heads, texts.

    A line is a start point, three points for each corner (start, corner, end), and an end point.
    All numbers are pixels.
    """

    width: int
    height: int
    rects: tuple[Rect, ...]
    lines: tuple[tuple[Point, ...], ...]
    heads: tuple[tuple[Point, Point, Point], ...]
    labels: tuple[Label, ...]
    line: Colour


def build_scene(sheet: Sheet) -> Scene:
    """Return the scene of a sheet."""
    drawing, dx, dy = sheet.drawing, sheet.drawing_x, sheet.drawing_y
    wires = [tuple(_shift_point(p, dx, dy) for p in wire.points) for wire in drawing.wires]
    arrows = (w for w, wire in zip(wires, drawing.wires, strict=True) if wire.arrow)
    return Scene(
        sheet.width,
        sheet.height,
        tuple(_iterate_rects(sheet)),
        tuple(dict.fromkeys(expand_corners(points) for points in wires)),
        tuple(dict.fromkeys(compute_arrow_head(points) for points in arrows)),
        tuple(_iterate_labels(sheet)),
        parse_rgb(LINE),
    )


def parse_rgb(code: str) -> Colour:
    """Return red, green and blue of a colour such as #8c959f or #fff."""
    digits = code[1:] if len(code) == 7 else "".join(2 * digit for digit in code[1:])
    red, green, blue = (int(digits[n : n + 2], 16) for n in (0, 2, 4))
    return red, green, blue


def _iterate_rects(sheet: Sheet) -> Iterator[Rect]:
    fills: list[Colour] = []
    for frame in sheet.drawing.frames:
        paint = PAINTS[frame.box.shown_kind]
        background = fills[frame.parent] if frame.parent >= 0 else parse_rgb(WHITE)
        # PNG and PDF have no transparency here: colours are blended from the outside in.
        fills.append(_compute_blend(paint, background))
        x, y = frame.x + sheet.drawing_x, frame.y + sheet.drawing_y
        yield Rect(x, y, frame.width, frame.height, fills[-1], parse_rgb(paint.stroke))
    for entry in sheet.legend:
        if entry.kind:
            paint = PAINTS[entry.kind]
            fill = _compute_blend(paint, parse_rgb(WHITE))
            yield Rect(entry.x, entry.y, PATCH_SIZE, PATCH_SIZE, fill, parse_rgb(paint.stroke), 3)


def _iterate_labels(sheet: Sheet) -> Iterator[Label]:
    drawing, offset = sheet.drawing, (sheet.drawing_x, sheet.drawing_y)
    yield Label(sheet.title, parse_rgb(TEXT))
    for frame in drawing.frames:
        colour = parse_rgb(WHITE if frame.box.kind in DARK_KINDS else TEXT)
        yield from (Label(_shift_text(text, offset), colour) for text in frame.texts)
    yield from (Label(_shift_text(text, offset), parse_rgb(FAINT)) for text in drawing.shapes)
    yield from (Label(entry.text, parse_rgb(TEXT)) for entry in sheet.legend)


def _shift_text(text: TextLine, offset: Point) -> TextLine:
    return TextLine(text.x + offset[0], text.y + offset[1], text.text, text.font, text.centred)


def _compute_blend(paint: Paint, background: Colour) -> Colour:
    """Return a box's colour, blended with its background."""
    opacity = float(paint.opacity or 1)
    red, green, blue = (
        round(opacity * front + (1 - opacity) * back)
        for front, back in zip(parse_rgb(paint.fill), background, strict=True)
    )
    return red, green, blue


def _shift_point(point: Point, dx: int, dy: int) -> Point:
    return point[0] + dx, point[1] + dy


MARGIN, ROW_HEIGHT, BAR_HEIGHT, AXIS_LENGTH = 24, 30, 16, 420
"""Pixels of the margin, a row, a bar's height, and the axis."""
TOP = 64
"""Pixels above the first row."""
PASS_PAINT, FAIL_PAINT = PAINTS["conv"], PAINTS["activation"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A name and a value of at most 1."""

    name: str
    value: float


def build_bar_chart(title: str, bars: Sequence[Bar], threshold: float) -> Scene:
    """Return a horizontal bar chart with a line at the threshold.

    The axis ends at 1. It begins at 0.9, or lower if the smallest bar needs it.
    """
    # From 0, bars of 0.98 and 0.9999 would look equal.
    axis_start = min([0.9, *(bar.value - 0.05 for bar in bars)])
    axis_x = MARGIN * 2 + max(DETAIL.measure_width(clip_text(bar.name)) for bar in bars)
    bottom = TOP + ROW_HEIGHT * len(bars)

    def compute_x(value: float) -> int:
        return axis_x + round(AXIS_LENGTH * (value - axis_start) / (1 - axis_start))

    rects, labels = (
        [],
        [Label(TextLine(MARGIN, MARGIN + 8, clip_text(title), HEADING), parse_rgb(TEXT))],
    )
    for index, bar in enumerate(bars):
        y = TOP + index * ROW_HEIGHT
        paint = PASS_PAINT if bar.value >= threshold else FAIL_PAINT
        width = max(1, compute_x(bar.value) - axis_x)
        rects.append(
            Rect(axis_x, y, width, BAR_HEIGHT, parse_rgb(paint.fill), parse_rgb(paint.stroke), 2)
        )
        base = y + BAR_HEIGHT - 4
        labels.append(Label(TextLine(MARGIN, base, clip_text(bar.name), DETAIL), parse_rgb(TEXT)))
        number_text = TextLine(axis_x + AXIS_LENGTH + 10, base, f"{bar.value:.6f}", TITLE)
        labels.append(Label(number_text, parse_rgb(TEXT)))
    marks = ((axis_start, SHAPE), (threshold, TITLE), (1.0, SHAPE))
    labels += [
        Label(
            TextLine(compute_x(value), bottom + 14, f"{value:.2f}", font, centred=True),
            parse_rgb(FAINT),
        )
        for value, font in marks
    ]
    lines = tuple(((compute_x(x), TOP - 8), (compute_x(x), bottom)) for x in (threshold, 1.0))
    width = axis_x + AXIS_LENGTH + MARGIN + 80
    height = bottom + MARGIN + 8
    return Scene(width, height, tuple(rects), lines, (), tuple(labels), parse_rgb(FAINT))
