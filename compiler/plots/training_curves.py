"""Loss, accuracy and learning rate of runs of training, epoch by epoch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.plots.drawing import COLORS, LINE_STYLES, create_figure, trim_label
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG_NAME = "metrics.jsonl"
MAX_BYTES = 1 << 26
MAX_RUNS = len(COLORS) * len(LINE_STYLES)
PANELS = (
    ("loss", ("loss",), ("val", "loss")),
    ("accuracy", ("accuracy",), ("val", "accuracy")),
    ("macro F1", None, ("val", "macro_f1")),
    ("learning rate", ("learning_rate",), None),
)
"""What is drawn: its name, and where a line has it of training and of validation."""


@dataclass(frozen=True)
class TrainingLog:
    """The epochs of a run, as its log has them."""

    name: str
    epochs: tuple[Mapping[str, Any], ...]

    def get_series(self, key_path: tuple[str, ...] | None) -> tuple[list[float], list[float]]:
        """Return the epochs and values that there are at a place of each line."""
        pairs = [
            (_get_number(line, ("epoch",)), _get_number(line, key_path or ()))
            for line in self.epochs
        ]
        known_pairs = [
            (epoch, number) for epoch, number in pairs if epoch is not None and number is not None
        ]
        return [epoch for epoch, _ in known_pairs], [number for _, number in known_pairs]


def read_log(path: Path) -> TrainingLog:
    """Return the run of a folder that `tcc train` wrote, or of its log.

    Raises:
        UserError: It has no log, or one that is damaged or empty (E1282).
    """
    file = path / LOG_NAME if path.is_dir() else path
    content = _read_content(file, path)
    lines = content.decode(errors="replace").splitlines()
    if lines and not content.endswith(b"\n"):
        lines.pop()  # it is being written
    epochs = [_parse_line(line, number, file) for number, line in enumerate(lines, 1)]
    epochs = [line for line in epochs if _get_number(line, ("epoch",)) is not None]
    if not epochs:
        raise fail("E1282", "no epoch has ended in this log", make_file_span(str(file)))
    return TrainingLog(path.name if path.is_dir() else path.parent.name or path.stem, tuple(epochs))


def _read_content(file: Path, path: Path) -> bytes:
    try:
        with regular_files.open_file(file) as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        help = "name a folder that `tcc train` wrote"
        raise fail(
            "E1282", f"there is no {LOG_NAME} here", make_file_span(str(path)), help=help
        ) from None
    except OSError as error:
        raise atomic_files.explain(error, file, "read this") from error
    if len(content) > MAX_BYTES:
        raise fail("E1282", "this log is too large", make_file_span(str(file)))
    return content


def _parse_line(line: str, number: int, file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        label = f"line {number} is no JSON object"
        raise fail("E1282", "this is no log of training", make_file_span(str(file)), label=label)
    return document


def draw(runs: Sequence[TrainingLog]) -> "Figure":
    """Return the curves of runs: a colour each, training thin and validation thick."""
    from matplotlib.lines import Line2D

    panels = [
        panel for panel in PANELS
        if any(run.get_series(position)[0] for run in runs for position in panel[1:] if position)
    ]  # fmt: skip
    fig = create_figure(9, 2.9 * ((len(panels) + 1) // 2) + 0.3 * min(len(runs), 12))
    for position, (name, training, validation) in enumerate(panels):
        axes: Any = fig.add_subplot((len(panels) + 1) // 2, 2, position + 1)
        for index, run in enumerate(runs):
            _draw_lines(axes, run, index, (training, validation))
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if name == "learning rate":
            axes.set_yscale("log")
    handles: list[Any] = [Line2D([], [], color="grey", linewidth=w) for w in (0.9, 2)]
    handles += [
        Line2D([], [], color=COLORS[i % len(COLORS)], linestyle=_get_line_style(i))
        for i in range(len(runs))
    ]
    labels = ["training", "validation", *(trim_label(run.name) for run in runs)]
    fig.legend(handles, labels, loc="outside lower center", ncols=4)
    return fig


def _get_line_style(index: int) -> Any:
    return LINE_STYLES[index // len(COLORS)]


def _draw_lines(axes: Any, run: TrainingLog, index: int, key_paths: Sequence[Any]) -> None:
    style = {"color": COLORS[index % len(COLORS)], "linestyle": _get_line_style(index)}
    for key_path, width in zip(key_paths, (0.9, 2.0), strict=True):
        epochs, numbers = run.get_series(key_path)
        if epochs:
            mark = "o" if len(epochs) == 1 else None
            axes.plot(epochs, numbers, linewidth=width, marker=mark, **style)


def _get_number(line: Mapping[str, Any], key_path: tuple[str, ...]) -> float | None:
    node: Any = line
    for key in key_path:
        node = node.get(key) if isinstance(node, Mapping) else None
    is_number = isinstance(node, int | float) and not isinstance(node, bool)
    return float(node) if is_number and isfinite(node) else None
