"""Loss, accuracy and learning rate of runs of training, epoch by epoch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.plots.drawing import COLOURS, LINES, figure, short
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "metrics.jsonl"
MAX_BYTES = 1 << 26
MAX_RUNS = len(COLOURS) * len(LINES)
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

    def series(self, place: tuple[str, ...] | None) -> tuple[list[float], list[float]]:
        """Return the epochs and values that there are at a place of each line."""
        found = [(_number(line, ("epoch",)), _number(line, place or ())) for line in self.epochs]
        known = [
            (epoch, value) for epoch, value in found if epoch is not None and value is not None
        ]
        return [epoch for epoch, _ in known], [value for _, value in known]


def read(path: Path) -> TrainingLog:
    """Return the run of a folder that `tcc train` wrote, or of its log.

    Raises:
        UserError: It has no log, or one that is damaged or empty (E1282).
    """
    file = path / NAME if path.is_dir() else path
    data = _content(file, path)
    lines = data.decode(errors="replace").splitlines()
    if lines and not data.endswith(b"\n"):
        lines.pop()  # it is being written
    epochs = [_line_of(line, number, file) for number, line in enumerate(lines, 1)]
    epochs = [line for line in epochs if _number(line, ("epoch",)) is not None]
    if not epochs:
        raise fail("E1282", "no epoch has ended in this log", whole_file(str(file)))
    return TrainingLog(path.name if path.is_dir() else path.parent.name or path.stem, tuple(epochs))


def _content(file: Path, path: Path) -> bytes:
    try:
        with regular_files.opened(file) as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        help = "name a folder that `tcc train` wrote"
        raise fail("E1282", f"there is no {NAME} here", whole_file(str(path)), help=help) from None
    except OSError as error:
        raise atomic_files.explain(error, file, "read this") from error
    if len(data) > MAX_BYTES:
        raise fail("E1282", "this log is too large", whole_file(str(file)))
    return data


def _line_of(line: str, number: int, file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        label = f"line {number} is no JSON object"
        raise fail("E1282", "this is no log of training", whole_file(str(file)), label=label)
    return found


def draw(runs: Sequence[TrainingLog]) -> "Figure":
    """Return the curves of runs: a colour each, training thin and validation thick."""
    from matplotlib.lines import Line2D

    panels = [
        panel for panel in PANELS
        if any(run.series(place)[0] for run in runs for place in panel[1:] if place)
    ]  # fmt: skip
    made = figure(9, 2.9 * ((len(panels) + 1) // 2) + 0.3 * min(len(runs), 12))
    for place, (name, training, validation) in enumerate(panels):
        axes: Any = made.add_subplot((len(panels) + 1) // 2, 2, place + 1)
        for index, run in enumerate(runs):
            _lines(axes, run, index, (training, validation))
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if name == "learning rate":
            axes.set_yscale("log")
    handles: list[Any] = [Line2D([], [], color="grey", linewidth=w) for w in (0.9, 2)]
    handles += [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linestyle=_line(i))
        for i in range(len(runs))
    ]
    labels = ["training", "validation", *(short(run.name) for run in runs)]
    made.legend(handles, labels, loc="outside lower center", ncols=4)
    return made


def _line(index: int) -> Any:
    return LINES[index // len(COLOURS)]


def _lines(axes: Any, run: TrainingLog, index: int, places: Sequence[Any]) -> None:
    style = {"color": COLOURS[index % len(COLOURS)], "linestyle": _line(index)}
    for place, width in zip(places, (0.9, 2.0), strict=True):
        epochs, values = run.series(place)
        if epochs:
            mark = "o" if len(epochs) == 1 else None
            axes.plot(epochs, values, linewidth=width, marker=mark, **style)


def _number(line: Mapping[str, Any], place: tuple[str, ...]) -> float | None:
    found: Any = line
    for word in place:
        found = found.get(word) if isinstance(found, Mapping) else None
    plain = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if plain and isfinite(found) else None
