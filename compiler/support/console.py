"""Output of commands: results on standard output, everything else on standard error."""

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import typer

from tcc.compiler.support import diagnostics
from tcc.compiler.support.diagnostics import Diagnostic, DiagnosticGroup

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TableCell = str | int | float

LOG_INTERVAL = 60.0
"""Seconds without output after which long work writes a line to a log."""
MAX_WARNINGS = 50
"""Warnings about a spec that are printed; JSON lists all of them."""
SPEC_WARNINGS: ContextVar[tuple[Diagnostic, ...] | None] = ContextVar("HEARD", default=None)
"""The warnings about the spec that a command works on; None if it has no spec."""

_HEAD = re.compile(r"^(error|warning|internal error)(\[[EW]\d+\])?:", re.MULTILINE)
_COLORS = {"error": 31, "warning": 33, "internal error": 31}


@dataclass(frozen=True)
class Report:
    """How much a command prints, and in which form."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    _printed: set[str] = field(default_factory=set, repr=False, compare=False)
    """Messages that were printed: with several networks, each is printed once."""

    def print_document(self, document: Mapping[str, Any]) -> None:
        """Print the one JSON document of the command, if JSON was requested."""
        if self.json:
            print_json(document)

    def print_text(self, text: str) -> None:
        """Print a result, unless JSON was requested."""
        if not self.json:
            echo(replace_unprintable(text))

    def print_table(self, columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> None:
        """Print a table; numbers are right-aligned, with thousands separators."""
        self.print_lines(format_table(columns, rows))

    def print_lines(self, lines: Sequence[str]) -> None:
        """Print lines from `format_table`, unless JSON was requested."""
        if not self.json:
            echo("\n".join(lines))

    def warn_text(self, text: str, code: str = "") -> None:
        """Print an important warning on standard error, even if quiet."""
        self._print_once(f"warning{f'[{code}]' if code else ''}: {text}", print_problem)

    def warn(self, diagnostic: Diagnostic | DiagnosticGroup) -> None:
        """Print a warning on standard error, unless quiet."""
        if not self.quiet:
            self._print_once(str(diagnostic), print_problem)

    def warn_always(self, diagnostic: Diagnostic) -> None:
        """Print an important warning on standard error, even if quiet."""
        self._print_once(str(diagnostic), print_problem)

    def _print_once(self, text: str, print_line: Callable[[str], None]) -> None:
        if text not in self._printed:
            self._printed.add(text)
            print_line(text)

    def warn_grouped(self, warnings: Iterable[Diagnostic]) -> None:
        """Print warnings, similar ones as one."""
        for diagnostic in diagnostics.group_alike(warnings):
            self.warn(diagnostic)

    def print_note(self, text: str) -> None:
        """Print progress on standard error, unless quiet."""
        if not self.quiet:
            self._print_once(replace_unprintable(text), partial(echo, err=True))

    def report_remark(self, kind: str, text: str) -> None:
        """Print the remark of a stage, whether it ran now or comes from the cache.

        Args:
            kind: `warning`, `note`, or the `short` or `full` form of a note.
            text: The remark.
        """
        match kind:
            case "warning":
                self.warn_text(text)
            case "note":
                self.print_note(text)
            case "short" if not self.verbose:
                self.print_note(text)
            case "full" if self.verbose:
                self.print_note(text)

    def print_detail(self, text: str) -> None:
        """Print progress on standard error, if verbose."""
        if self.verbose:
            echo(replace_unprintable(text), err=True)

    @contextmanager
    def track_stages(self) -> Iterator["Stages"]:
        """Measure the stages of long work; show them as bars on a terminal, as lines in a log."""
        if self.quiet or not sys.stderr:
            yield Stages()
            return
        if not sys.stderr.isatty():
            lines = ProgressLines(partial(echo, err=True))
            lines.start()
            try:
                yield Stages(lines=lines)
            finally:
                lines.stop()
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        # On standard error, and removed at the end: results may be piped, and logs have no bars.
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            yield Stages(bars)


@dataclass
class ProgressLines:
    """Writes the progress of long work from its own thread, when nothing was printed for long.

    A line has the stage, the completed share of it, and the time since the start of the work.
    """

    write: Callable[[str], None]
    _start_time: float = field(default_factory=time.monotonic)
    _last_output_time: float = field(default_factory=time.monotonic)
    _stage: str = ""
    _share: float | None = None
    _detail: str = ""
    _stop_event: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._write_when_idle, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it; nothing is written afterwards."""
        self._stop_event.set()
        if self._thread:
            self._thread.join()

    def update(self, stage: str, parts_done: int, total: int) -> None:
        """Record the progress of a stage; a stage of one part has no share."""
        if stage != self._stage:
            self._detail = ""
        self._stage, self._share = stage, parts_done / total if total > 1 else None

    def add_detail(self, text: str) -> None:
        """Record a detail about the stage."""
        self._detail = text

    def record_output(self) -> None:
        """Record that a line was printed elsewhere."""
        self._last_output_time = time.monotonic()

    def _write_when_idle(self) -> None:
        while not self._stop_event.wait(
            max(0.01, self._last_output_time + LOG_INTERVAL - time.monotonic())
        ):
            if time.monotonic() >= self._last_output_time + LOG_INTERVAL and self._stage:
                self.write(self._format_line())
                self.record_output()

    def _format_line(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._start_time), 60)
        share = "" if self._share is None else f" {self._share:.0%},"
        detail = f" {self._detail}," if self._detail else ""
        return f"{self._stage}:{share}{detail} after {minutes} min {seconds:02} s"


@dataclass
class Stages:
    """The stages of long work by name, with the seconds of each, in order of their start."""

    bars: "Progress | None" = None
    lines: ProgressLines | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _stage_start: float = field(default_factory=time.perf_counter)
    _stage: str = ""
    _task: "TaskID | None" = None

    @property
    def is_watched(self) -> bool:
        """Whether the progress of a stage is shown."""
        return self.bars is not None or self.lines is not None

    def __call__(self, stage: str, completed: int, total: int) -> None:
        """Record that `completed` of `total` parts of a stage are finished."""
        if self.lines:
            self.lines.update(stage, completed, total)
        if stage != self._stage:
            self.finish_stage()
            self._stage = stage
            if self.bars:
                self._task = self.bars.add_task(stage, total=total)
        if self.bars and self._task is not None:
            self.bars.update(self._task, completed=completed, total=total)

    def show_detail(self, text: str) -> None:
        """Show a detail in place of the stage's name while it runs."""
        if self.lines:
            self.lines.add_detail(text)
        if self.bars and self._task is not None:
            self.bars.update(self._task, description=text)

    def record_output(self) -> None:
        """Record that a line about the work was printed, so that the next one can wait."""
        if self.lines:
            self.lines.record_output()

    def finish_stage(self) -> None:
        """End the current stage."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._stage_start
        if self.bars and self._task is not None:
            self.bars.remove_task(self._task)
        self._stage_start, self._stage, self._task = now, "", None


def echo(text: str | bytes, err: bool = False, nl: bool = True) -> None:
    """Print on standard output, or on standard error.

    Args:
        text: The text or bytes.
        err: Whether to print on standard error.
        nl: Whether to add a newline.
    """
    with attach_stream_name("<standard error>" if err else "<standard output>"):
        typer.echo(text, err=err, nl=nl)


@contextmanager
def attach_stream_name(stream: str) -> Iterator[None]:
    """Add the stream's name to an operating system error."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or stream
        raise


def warn_about_spec(warnings: tuple[Diagnostic, ...]) -> None:
    """Print the warnings about a spec, even if quiet, and add them to the JSON document."""
    SPEC_WARNINGS.set(warnings)
    for warning in warnings[:MAX_WARNINGS]:
        print_problem(f"{warning}\n")
    if warnings:
        count_text = f"{len(warnings)} warnings" if len(warnings) > 1 else "1 warning"
        limit_text = f", {MAX_WARNINGS} of them shown" if len(warnings) > MAX_WARNINGS else ""
        echo(f"{count_text}{limit_text}; `allow: [KIND]` in the spec turns a kind off", err=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document on standard output, with the warnings about the command's spec."""
    warnings = SPEC_WARNINGS.get()
    if warnings is not None:
        document = {**document, "warnings": [warning.to_json() for warning in warnings]}
    # NaN is not JSON: a caller that passes one has a bug, which is reported here.
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    # A file name may contain bytes that are not text: they are replaced, as in errors.
    echo(text.encode(errors="replace").decode())


def print_problem(text: str) -> None:
    """Print errors or warnings on standard error, with coloured headings on a terminal."""
    printable_text = replace_unprintable(text)
    if sys.stderr and supports_color(sys.stderr):
        printable_text = _HEAD.sub(
            lambda head: f"\x1b[1;{_COLORS[head[1]]}m{head[0]}\x1b[0m", printable_text
        )
    echo(printable_text, err=True)


def supports_color(stream: IO[str]) -> bool:
    """Whether to print colour: on a terminal that supports it, unless NO_COLOR is set."""
    # See no-color.org: any value but the empty one turns colour off.
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def replace_unprintable(text: str) -> str:
    """Replace characters that would move a terminal's cursor, except newlines."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def format_table(
    columns: Sequence[str], rows: Sequence[Sequence[TableCell]], gap: int = 2
) -> list[str]:
    """Return the lines of a table: the heading, then one line per row, padded to its content.

    Args:
        columns: Column headings.
        rows: A value for each column.
        gap: Spaces between columns.
    """
    from rich.cells import cell_len

    numbers = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        for index in range(len(columns))
    ]
    texts = [columns, *([format_cell(content) for content in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        line = ""
        for text, width, number in zip(row, widths, numbers, strict=True):
            space = " " * (width - cell_len(text))
            line += (space + text if number else text + space) + " " * gap
        lines.append(line.rstrip())
    if sys.stdout and supports_color(sys.stdout):
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return lines


def fits_terminal(lines: Sequence[str]) -> bool:
    """Whether lines fit the terminal; without a terminal, all do."""
    if not (sys.stdout and sys.stdout.isatty()):
        return True
    return max(map(len, lines[1:]), default=0) <= shutil.get_terminal_size().columns


def format_cell(content: TableCell) -> str:
    """Return a value as one line of a table: a file name may contain a newline."""
    return (
        f"{content:,}"
        if isinstance(content, int)
        else replace_unprintable(str(content)).replace("\n", "\ufffd")
    )


def format_bytes(count: int) -> str:
    """Return a size for a person, in units of 1,000 as file managers use: `737.0 KB`."""
    amount, unit = float(count), "B"
    for larger_unit in ("KB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger_unit
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
