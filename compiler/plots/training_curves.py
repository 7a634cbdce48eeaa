"""Training curves: loss, accuracy and learning rate of runs by epoch."""

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
"""The panels: name, and the keys in a line of the log for training and for validation."""


@dataclass(frozen=True)
class TrainingLog:
    """The log of a training run: one record per epoch."""

    name: str
    epochs: tuple[Mapping[str, Any], ...]

    def get_series(self, key_path: tuple[str, ...] | None) -> tuple[list[float], list[float]]:
        """Return the epochs that have a value under a key, and the values."""
        pairs = [
            (_get_number(line, ("epoch",)), _get_number(line, key_path or ()))
            for line in self.epochs
        ]
        known_pairs = [
            (epoch, number) for epoch, number in pairs if epoch is not None and number is not None
        ]
        return [epoch for epoch, _ in known_pairs], [number for _, number in known_pairs]


def read_log(path: Path) -> TrainingLog:
    """Read the log of a training run, from the run's folder or the log file.

    Raises:
        UserError: There is no log, or it is damaged or empty (E1282).
    """
    file = path / LOG_NAME if path.is_dir() else path
    content = _read_content(file, path)
    lines = content.decode(errors="replace").splitlines()
    if lines and not content.endswith(b"\n"):
        lines.pop()  # incomplete: a run is still writing it
    epochs = [_parse_line(line, number, file) for number, line in enumerate(lines, 1)]
    epochs = [line for line in epochs if _get_number(line, ("epoch",)) is not None]
    if not epochs:
        message = "this log has no completed epoch"
        help = "wait until the run has finished its first epoch"
        raise fail("E1282", message, make_file_span(str(file)), help=help)
    return TrainingLog(path.name if path.is_dir() else path.parent.name or path.stem, tuple(epochs))


def _read_content(file: Path, path: Path) -> bytes:
    try:
        with regular_files.open_file(file) as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = f"there is no training log {LOG_NAME} here"
        help = "give the folder of a run of `tcc train`"
        raise fail("E1282", message, make_file_span(str(path)), help=help) from None
    except OSError as error:
        raise atomic_files.explain(error, file, "read this") from error
    if len(content) > MAX_BYTES:
        message = f"this training log is larger than the maximum of {MAX_BYTES >> 20} MiB"
        raise fail("E1282", message, make_file_span(str(file)))
    return content


def _parse_line(line: str, number: int, file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        label = f"line {number} is not a JSON object"
        help = f"give the folder of a run of `tcc train`, or its {LOG_NAME}"
        message = "this file is not a training log"
        raise fail("E1282", message, make_file_span(str(file)), label=label, help=help)
    return document


def draw(runs: Sequence[TrainingLog]) -> "Figure":
    """Return the curves of runs, one colour per run: training thin, validation thick."""
    from matplotlib.lines import Line2D

    panels = [
        panel for panel in PANELS
        if any(run.get_series(position)[0] for run in runs for position in panel[1:] if position)
    ]  # fmt: skip
    fig = create_figure(8.4, 2.7 * ((len(panels) + 1) // 2) + 0.3 * min(len(runs), 12))
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
    labels = ["training (thin)", "validation (thick)", *(trim_label(run.name) for run in runs)]
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
