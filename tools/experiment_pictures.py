"""The pictures of an experiment: confusion matrices, and cosines by network and by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from experiment_records import INTEGERS, Experiment, ExperimentResults
from experiment_rows import measured

from tcc.compiler.figures.drawing import DETAIL, HEADING, SHAPE, TITLE, TextLine
from tcc.compiler.figures.scene import (
    FAINT,
    TEXT,
    Bar,
    Label,
    Rect,
    Scene,
    build_bar_chart,
    parse_rgb,
)
from tcc.compiler.ir.target import MIN_COSINE

CELL, GAP, TOP = 44, 24, 84
"""Pixels of a matrix's cell, between matrices, and above them; a column is as wide as its name."""
DARK = (0, 56, 112)
"""The colour of a cell that holds all images of its class: one hue, told apart by lightness."""
LIGHT_FROM = 0.65
"""The share from which white has more contrast than the texts' colour."""
CAPTION = "Images by class, and what they were taken for"


@dataclass(frozen=True, slots=True)
class Matrix:
    """Images by their class, a row, and the one taken, a column; both in the classes' order."""

    title: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def left(self) -> int:
        """Pixels of the longest class."""
        return max(map(DETAIL.measure_width, (*self.classes, "taken for"))) + 8

    @property
    def column(self) -> int:
        """Pixels of a column."""
        return max(CELL, self.left)

    @property
    def width(self) -> int:
        """Pixels of the matrix, its classes and its title."""
        return self.left + max(self.column * len(self.classes), TITLE.measure_width(self.title))


def drawn(of: Experiment, found: ExperimentResults) -> Mapping[str, Scene]:
    """Return the pictures of an experiment by their kind; there are those that it has figures for.

    Matrices are of the first seed, cosines of the least.
    """
    made = {}
    seen = list(measured(of, found))
    if matrices := [
        Matrix(
            f"{each.row.name}, {table.data}",
            found.data[table.data].classes,
            each.judged[0].confusion,
        )
        for table, each in seen
        if each.row.name in table.confusion
    ]:
        made["confusion"] = side_by_side(matrices)
    networks = [
        Bar(f"{table.data}, {each.row.name}", min(values))
        for table, each in seen
        if any(column in INTEGERS for column in table.columns)
        if (values := [run.integers.cosine for run in each.runs if run.integers])
    ]
    if networks:
        made["cosines"] = build_bar_chart("Cosine of int8 and float outputs", networks, MIN_COSINE)
    for table, each in seen:
        first = each.runs[0].integers
        if each.row.name in table.layers and first and first.layers:
            bars = [Bar(name, cosine) for name, cosine in first.layers.items()]
            title = f"{each.row.name}, {table.data}: cosine of int8 and float values, by layer"
            made[f"layers-{table.data}"] = build_bar_chart(title, bars, MIN_COSINE)
    return made


def side_by_side(shown: Sequence[Matrix]) -> Scene:
    """Return the picture of some matrices."""
    starts = list(accumulate((each.width + GAP for each in shown), initial=GAP))
    rects = tuple(
        rect for each, start in zip(shown, starts, strict=False) for rect in _cells(each, start)
    )
    labels = [Label(TextLine(GAP, 32, CAPTION, HEADING), parse_rgb(TEXT))]
    for each, start in zip(shown, starts, strict=False):
        labels += _texts(each, start)
    height = TOP + CELL * max(len(each.classes) for each in shown) + 2 * GAP
    width = max(starts[-1], 2 * GAP + HEADING.measure_width(CAPTION))
    return Scene(width, height, rects, (), (), tuple(labels), parse_rgb(FAINT))


def _shares(matrix: Matrix) -> list[list[float]]:
    return [[count / max(sum(line), 1) for count in line] for line in matrix.counts]


def _cells(matrix: Matrix, start: int) -> list[Rect]:
    made = []
    for line, shares in enumerate(_shares(matrix)):
        for column, share in enumerate(shares):
            red, green, blue = (round(255 + (end - 255) * share) for end in DARK)
            x, y = start + matrix.left + column * matrix.column, TOP + line * CELL
            made.append(Rect(x, y, matrix.column, CELL, (red, green, blue), parse_rgb(FAINT), 0))
    return made


def _texts(matrix: Matrix, start: int) -> list[Label]:
    left = start + matrix.left
    foot = TOP + CELL * len(matrix.classes) + 16
    made = [
        Label(TextLine(left, TOP - 14, matrix.title, TITLE), parse_rgb(TEXT)),
        Label(TextLine(start, foot, "taken for", SHAPE), parse_rgb(FAINT)),
    ]
    middles = [left + n * matrix.column + matrix.column // 2 for n in range(len(matrix.classes))]
    made += [
        Label(TextLine(x, foot, name, DETAIL, True), parse_rgb(TEXT))
        for x, name in zip(middles, matrix.classes, strict=True)
    ]
    shares = _shares(matrix)
    for line, name in enumerate(matrix.classes):
        base = TOP + line * CELL + CELL // 2 + 4
        made.append(Label(TextLine(start, base, name, DETAIL), parse_rgb(TEXT)))
        for column, count in enumerate(matrix.counts[line]):
            shade = parse_rgb("#fff") if shares[line][column] >= LIGHT_FROM else parse_rgb(TEXT)
            middle = TextLine(middles[column], base, str(count), DETAIL, True)
            made.append(Label(middle, shade))
    return made
