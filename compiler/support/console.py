"""What a command tells: results on standard output, everything else on standard error."""

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

EVERY = 60.0
"""Seconds of long work without a line after which a log gets one."""
MOST = 50
"""Warnings about a spec that are printed; JSON has them all."""
HEARD: ContextVar[tuple[Diagnostic, ...] | None] = ContextVar("HEARD", default=None)
"""The warnings about the spec that a command works on; None where it works on none."""

_HEAD = re.compile(r"^(error|warning|internal error)(\[[EW]\d+\])?:", re.MULTILINE)
_SHADES = {"error": 31, "warning": 33, "internal error": 31}


@dataclass(frozen=True)
class Report:
    """How much a command tells, and in which form."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    _said: set[str] = field(default_factory=set, repr=False, compare=False)
    """What was said of what is wrong and what goes on: of several networks, it is said once."""

    def document(self, data: Mapping[str, Any]) -> None:
        """Print the one JSON document of the command, if JSON is wanted."""
        if self.json:
            print_json(data)

    def text(self, text: str) -> None:
        """Print a result, unless JSON is wanted."""
        if not self.json:
            echo(printable(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> None:
        """Print a table; numbers stand right, and keep their thousands apart."""
        self.lines(table(columns, rows))

    def lines(self, lines: Sequence[str]) -> None:
        """Print lines that `table` made, unless JSON is wanted."""
        if not self.json:
            echo("\n".join(lines))

    def notice(self, text: str, code: str = "") -> None:
        """Say on standard error what must not be missed, even if quiet."""
        self._once(f"warning{f'[{code}]' if code else ''}: {text}", complain)

    def warn(self, diagnostic: Diagnostic | DiagnosticGroup) -> None:
        """Say on standard error what is worth knowing but no error."""
        if not self.quiet:
            self._once(str(diagnostic), complain)

    def insist(self, diagnostic: Diagnostic) -> None:
        """Say on standard error a warning that must not be missed, even if quiet."""
        self._once(str(diagnostic), complain)

    def _once(self, text: str, say: Callable[[str], None]) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text)

    def warnings(self, found: Iterable[Diagnostic]) -> None:
        """Say warnings, those of one cause as one."""
        for diagnostic in diagnostics.group_alike(found):
            self.warn(diagnostic)

    def note(self, text: str) -> None:
        """Say on standard error what goes on, unless quiet."""
        if not self.quiet:
            self._once(printable(text), partial(echo, err=True))

    def remark(self, kind: str, text: str) -> None:
        """Say what a stage has to say, now or out of the cache.

        Args:
            kind: `warning`, `note`, or the short or the `full` form of one.
            text: The remark.
        """
        match kind:
            case "warning":
                self.notice(text)
            case "note":
                self.note(text)
            case "short" if not self.verbose:
                self.note(text)
            case "full" if self.verbose:
                self.note(text)

    def detail(self, text: str) -> None:
        """Say on standard error what goes on, if verbose."""
        if self.verbose:
            echo(printable(text), err=True)

    @contextmanager
    def stages(self) -> Iterator["Stages"]:
        """Measure the stages of long work; show them on a terminal, or now and then in a log."""
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
        # On standard error, and gone at the end: results may be piped, and logs hold no bars.
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            yield Stages(bars)


@dataclass
class ProgressLines:
    """Writes how far long work is, from a thread of its own, whenever nothing was said for long.

    A stage is told with the share of it that is done and the time that the whole work has taken.
    """

    write: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)
    _spoke: float = field(default_factory=time.monotonic)
    _stage: str = ""
    _share: float | None = None
    _detail: str = ""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until nothing more is written."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def update(self, stage: str, parts_done: int, total: int) -> None:
        """Take in how far a stage is; a stage of one part has no share."""
        if stage != self._stage:
            self._detail = ""
        self._stage, self._share = stage, parts_done / total if total > 1 else None

    def add_detail(self, text: str) -> None:
        """Take in what else is known of the stage."""
        self._detail = text

    def hear(self) -> None:
        """Take in that a line was written by somebody else."""
        self._spoke = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(max(0.01, self._spoke + EVERY - time.monotonic())):
            if time.monotonic() >= self._spoke + EVERY and self._stage:
                self.write(self._line())
                self.hear()

    def _line(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        share = "" if self._share is None else f" {self._share:.0%},"
        detail = f" {self._detail}," if self._detail else ""
        return f"{self._stage}:{share}{detail} after {minutes} min {seconds:02} s"


@dataclass
class Stages:
    """The stages of long work by name: seconds each took, in order of their beginning."""

    bars: "Progress | None" = None
    lines: ProgressLines | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)
    _stage: str = ""
    _task: "TaskID | None" = None

    @property
    def is_watched(self) -> bool:
        """Whether anybody sees how far a stage is."""
        return self.bars is not None or self.lines is not None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Hear that `done` of `total` parts of a stage are finished."""
        if self.lines:
            self.lines.update(what, done, total)
        if what != self._stage:
            self.end()
            self._stage = what
            if self.bars:
                self._task = self.bars.add_task(what, total=total)
        if self.bars and self._task is not None:
            self.bars.update(self._task, completed=done, total=total)

    def say(self, text: str) -> None:
        """Show something else in the place of the stage's name while it runs."""
        if self.lines:
            self.lines.add_detail(text)
        if self.bars and self._task is not None:
            self.bars.update(self._task, description=text)

    def spoke(self) -> None:
        """Hear that a line about the work was printed, so that the next one can wait."""
        if self.lines:
            self.lines.hear()

    def end(self) -> None:
        """End the stage that runs."""
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        if self.bars and self._task is not None:
            self.bars.remove_task(self._task)
        self._since, self._stage, self._task = now, "", None


def echo(text: str | bytes, err: bool = False, nl: bool = True) -> None:
    """Print on standard output, or on standard error.

    Args:
        text: What is printed.
        err: Whether on standard error.
        nl: Whether a line ends after it.
    """
    with named("<standard error>" if err else "<standard output>"):
        typer.echo(text, err=err, nl=nl)


@contextmanager
def named(stream: str) -> Iterator[None]:
    """Have an error of the operating system say which stream it is about."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or stream
        raise


def doubt(warnings: tuple[Diagnostic, ...]) -> None:
    """Say what is doubtful about a spec, even if quiet, and put it into the command's document."""
    HEARD.set(warnings)
    for warning in warnings[:MOST]:
        complain(f"{warning}\n")
    if warnings:
        more = f"{len(warnings)} warnings" if len(warnings) > 1 else "1 warning"
        most = f", {MOST} of them shown" if len(warnings) > MOST else ""
        echo(f"{more}{most}; `allow: [...]` in the spec silences a kind", err=True)


def print_json(data: Mapping[str, Any]) -> None:
    """Print a JSON document on standard output, with the warnings about the command's spec."""
    heard = HEARD.get()
    if heard is not None:
        data = {**data, "warnings": [warning.as_json() for warning in heard]}
    # NaN is not JSON: whoever hands one in is at fault, and is found here.
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # A file's name may hold bytes that are no text: they are shown as errors show them.
    echo(text.encode(errors="replace").decode())


def complain(text: str) -> None:
    """Print errors or warnings on standard error, their first words in colour on a terminal."""
    shown = printable(text)
    if sys.stderr and colored(sys.stderr):
        shown = _HEAD.sub(lambda head: f"\x1b[1;{_SHADES[head[1]]}m{head[0]}\x1b[0m", shown)
    echo(shown, err=True)


def colored(stream: IO[str]) -> bool:
    """Whether colour is wanted there: a terminal that can, and nobody who said no."""
    # See no-color.org: any value but the empty one says no.
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Replace what would move a terminal's cursor, but for line ends."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[TableCell]], gap: int = 2) -> list[str]:
    """Return the lines of a table, one a row, as wide as its content.

    Args:
        columns: Their heads.
        rows: A value for each column.
        gap: Spaces between columns.
    """
    from rich.cells import cell_len

    numbers = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        for index in range(len(columns))
    ]
    texts = [columns, *([cell(value) for value in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        line = ""
        for text, width, number in zip(row, widths, numbers, strict=True):
            space = " " * (width - cell_len(text))
            line += (space + text if number else text + space) + " " * gap
        lines.append(line.rstrip())
    if sys.stdout and colored(sys.stdout):
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return lines


def fits(lines: Sequence[str]) -> bool:
    """Whether lines fit the terminal; where there is none, any do."""
    if not (sys.stdout and sys.stdout.isatty()):
        return True
    return max(map(len, lines[1:]), default=0) <= shutil.get_terminal_size().columns


def cell(value: TableCell) -> str:
    """Return a value as a table shows it, in one line: a file's name may hold the end of one."""
    return f"{value:,}" if isinstance(value, int) else printable(str(value)).replace("\n", "\ufffd")


def size(count: int) -> str:
    """Return bytes for a person, in thousands as file managers count: `737.0 KB`."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
