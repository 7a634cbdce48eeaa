"""Draw the plots of an experiment: confusion matrices, and cosines by network and by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from experiment_records import INTEGERS, Experiment, ExperimentResults
from experiment_rows import list_measured_rows

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
"""Pixels of a cell, between matrices and above them. A column is as wide as its name."""
DARK = (0, 56, 112)
"""The colour of a cell with all images of its class: one hue, with varying lightness."""
LIGHT_FROM = 0.65
"""From this share on, white text has more contrast than dark text."""
CAPTION = "Confusion matrices (rows: true class, columns: predicted class)"


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Number of images by true class (rows) and predicted class (columns)."""

    title: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def label_width(self) -> int:
        """The width of the longest class name in pixels."""
        return max(map(DETAIL.measure_width, (*self.classes, "predicted"))) + 8

    @property
    def column(self) -> int:
        """The width of a column in pixels."""
        return max(CELL, self.label_width)

    @property
    def width(self) -> int:
        """The width of the matrix, its class names and its title in pixels."""
        return self.label_width + max(
            self.column * len(self.classes), TITLE.measure_width(self.title)
        )


def draw_experiment(experiment: Experiment, figures: ExperimentResults) -> Mapping[str, Scene]:
    """Return the plots of an experiment by kind, as far as it has results for them.

    Matrices show the first seed, cosines the least of all seeds.
    """
    scenes = {}
    table_rows = list(list_measured_rows(experiment, figures))
    if matrices := [
        ConfusionMatrix(
            f"{table_row.row.name}, {table.data}",
            figures.data[table.data].classes,
            table_row.seed_scores[0].confusion,
        )
        for table, table_row in table_rows
        if table_row.row.name in table.confusion
    ]:
        scenes["confusion"] = draw_matrices(matrices)
    networks = [
        Bar(f"{table.data}, {table_row.row.name}", min(cosines))
        for table, table_row in table_rows
        if any(column in INTEGERS for column in table.columns)
        if (cosines := [run.integers.cosine for run in table_row.runs if run.integers])
    ]
    if networks:
        scenes["cosines"] = build_bar_chart("Cosine of int8 and fp32 outputs", networks, MIN_COSINE)
    for table, table_row in table_rows:
        int8_figures = table_row.runs[0].integers
        if table_row.row.name in table.layers and int8_figures and int8_figures.layers:
            bars = [Bar(name, cosine) for name, cosine in int8_figures.layers.items()]
            title = f"{table_row.row.name}, {table.data}: cosine of int8 and fp32 values, by layer"
            scenes[f"layers-{table.data}"] = build_bar_chart(title, bars, MIN_COSINE)
    return scenes


def draw_matrices(matrices: Sequence[ConfusionMatrix]) -> Scene:
    """Return the plot of some matrices."""
    starts = list(accumulate((matrix.width + GAP for matrix in matrices), initial=GAP))
    rects = tuple(
        rect
        for matrix, start in zip(matrices, starts, strict=False)
        for rect in _make_cells(matrix, start)
    )
    labels = [Label(TextLine(GAP, 32, CAPTION, HEADING), parse_rgb(TEXT))]
    for matrix, start in zip(matrices, starts, strict=False):
        labels += _make_labels(matrix, start)
    height = TOP + CELL * max(len(matrix.classes) for matrix in matrices) + 2 * GAP
    width = max(starts[-1], 2 * GAP + HEADING.measure_width(CAPTION))
    return Scene(width, height, rects, (), (), tuple(labels), parse_rgb(FAINT))


def _compute_shares(matrix: ConfusionMatrix) -> list[list[float]]:
    return [[count / max(sum(line), 1) for count in line] for line in matrix.counts]


def _make_cells(matrix: ConfusionMatrix, start: int) -> list[Rect]:
    rects = []
    for line, shares in enumerate(_compute_shares(matrix)):
        for column, share in enumerate(shares):
            red, green, blue = (round(255 + (end - 255) * share) for end in DARK)
            x, y = start + matrix.label_width + column * matrix.column, TOP + line * CELL
            rects.append(Rect(x, y, matrix.column, CELL, (red, green, blue), parse_rgb(FAINT), 0))
    return rects


def _make_labels(matrix: ConfusionMatrix, start: int) -> list[Label]:
    matrix_left = start + matrix.label_width
    foot = TOP + CELL * len(matrix.classes) + 16
    labels = [
        Label(TextLine(matrix_left, TOP - 14, matrix.title, TITLE), parse_rgb(TEXT)),
        Label(TextLine(start, foot, "predicted", SHAPE), parse_rgb(FAINT)),
    ]
    middles = [
        matrix_left + n * matrix.column + matrix.column // 2 for n in range(len(matrix.classes))
    ]
    labels += [
        Label(TextLine(x, foot, name, DETAIL, True), parse_rgb(TEXT))
        for x, name in zip(middles, matrix.classes, strict=True)
    ]
    shares = _compute_shares(matrix)
    for line, name in enumerate(matrix.classes):
        base = TOP + line * CELL + CELL // 2 + 4
        labels.append(Label(TextLine(start, base, name, DETAIL), parse_rgb(TEXT)))
        for column, count in enumerate(matrix.counts[line]):
            shade = parse_rgb("#fff") if shares[line][column] >= LIGHT_FROM else parse_rgb(TEXT)
            middle = TextLine(middles[column], base, str(count), DETAIL, True)
            labels.append(Label(middle, shade))
    return labels
