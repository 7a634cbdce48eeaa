"""Many slides: each runs by itself, somewhere, and a table says what became of all."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.slides import one_slide
from tcc.compiler.slides.one_slide import SlideRequest
from tcc.compiler.support import task_places
from tcc.compiler.support.console import Report, Stages, cell
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.support.task_places import LostTask, TaskPlace

if TYPE_CHECKING:
    from tcc.compiler.slides.archive import Archive, ArchivedSlide
    from tcc.compiler.slides.slide_tasks import SlideEnd, SlideTask


OTHER_RUN = "E1309"
COUNTS, AREAS = ("patches", "positive", "damaged"), ("positive_mm2", "tissue_mm2")
"""What of a summary is in the table."""


@dataclass
class ArchiveOutcome:
    """What became of slides: documents and problems, by the slides' numbers."""

    slides: "Sequence[ArchivedSlide]"
    documents: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    problems: dict[int, tuple[Diagnostic, ...]] = field(default_factory=dict)
    others: Sequence[Diagnostic] = ()
    left_out: Sequence[Path] = ()
    ours: bool = False

    def state(self, number: int) -> str:
        """Return what became of a slide, in a word or two."""
        if number in self.documents:
            return "done before" if self.documents[number]["finished_before"] else "done"
        codes = [each.code for each in self.problems.get(number, ())]
        if not codes:
            return "not begun"
        return "another run" if codes == [OTHER_RUN] else f"failed: {codes[0]}"

    def end(self, number: int, end: "SlideEnd") -> None:
        """Take in what a slide came to."""
        if end.document is not None:
            self.documents[number] = {**end.document, "folder": str(self.slides[number].place)}
            return
        self.problems[number] = end.problems
        self.ours |= end.code == 1


def _print_outcome(report: Report, outcome: ArchiveOutcome) -> None:
    """Print what became of each slide."""
    rows = []
    for number, slide in enumerate(outcome.slides):
        found = outcome.documents.get(number)
        counts = [f"{found[name]:,}" if found else "-" for name in COUNTS]
        areas = [f"{found[name]:.2f}" if found else "-" for name in AREAS]
        rows.append((str(slide.path), outcome.state(number), *counts, *areas))
    heads = ("slide", "state", "patches", "tumour", "damaged", "tumour mm2", "tissue mm2")
    report.table(heads, rows)


FULL_DISK = "E0604"
LOOK = 2.0
"""Seconds between two looks at how far the slides are."""
ARRIVAL = 60.0
"""Seconds after which this machine sees what another wrote."""
SHOWN = 5
"""Most names that a note lists."""


@dataclass(frozen=True)
class ArchiveRequest:
    """What is done to each slide, the words that say so, and where: by how many processes."""

    one: SlideRequest
    words: tuple[str, ...]
    place: TaskPlace
    workers: int


def alone(
    report: Report,
    stages: Stages,
    request: SlideRequest,
    slide: "ArchivedSlide",
    workers: int,
) -> ArchiveOutcome:
    """Run one slide in this process."""
    outcome = ArchiveOutcome([slide])
    try:
        found = one_slide.run(report, stages, request, slide.path, slide.place, workers)
        outcome.documents[0] = found
    except UserError as error:
        outcome.problems[0] = error.diagnostics
    return outcome


def run(
    report: Report, stages: Stages, request: ArchiveRequest, archive: "Archive"
) -> ArchiveOutcome:
    """Run the slides that are not finished; one that fails does not stop the others.

    A full disk does: none would find room.

    Raises:
        UserError: No Dask cluster answers, or Slurm takes no jobs (E1317).
        MissingTool: Dask or submitit is not installed.
    """
    outcome = ArchiveOutcome(archive.slides, others=archive.problems, left_out=archive.others)
    if archive.others:
        report.note(f"left out, as no slides by their names: {_names(archive)}")
    _look(outcome, request)
    open_ones = [n for n in range(len(archive.slides)) if n not in outcome.documents]
    if outcome.documents:
        report.note(f"{len(outcome.documents):,} of {len(archive.slides):,} slides are finished")
    if open_ones:
        _work(report, stages, request, _Overview(outcome, _largest_first(archive, open_ones)))
    again = [n for n, found in outcome.problems.items() if found[0].code == OTHER_RUN]
    _look(outcome, request, again)
    _print_outcome(report, outcome)
    return outcome


@dataclass
class _Overview:
    """How far slides are, the numbers of which are `open_ones`, by the sizes of their files."""

    outcome: ArchiveOutcome
    open_ones: Sequence[int]
    began: float = field(default_factory=time.monotonic)
    ended: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Look sizes up, once."""
        self.sizes = {n: _size(self.outcome.slides[n].path) for n in self.open_ones}

    def share(self) -> float:
        """Return how much of the work is done, from 0 to 1."""
        from tcc.compiler.slides import slide_lease, slide_record

        done = 0.0
        for number, size in self.sizes.items():
            if number in self.ended:
                done += size
            elif found := slide_lease.progress(
                slide_record.folder(self.outcome.slides[number].place)
            ):
                done += size * found[0] / max(1, found[1])
        return done / sum(self.sizes.values())

    def left(self) -> str:
        """Say how long it will take, if all goes on as until now."""
        share = self.share()
        seconds = (time.monotonic() - self.began) * (1 - share) / share if share else 0.0
        minutes = round(seconds / 60)
        return f"about {minutes // 60} h {minutes % 60} min" if minutes else "a minute or less"


def _work(report: Report, stages: Stages, request: ArchiveRequest, view: _Overview) -> None:
    """Run slides, and take in what they come to."""
    from tcc.compiler.slides import slide_tasks

    outcome = view.outcome
    cluster = request.place.elsewhere
    at_once = min(request.workers, len(view.open_ones))
    each = request.workers if cluster else request.workers // at_once
    tasks = [_task(request, outcome.slides[n], each) for n in view.open_ones]
    place = replace(request.place, workers=at_once, cores=each)
    with (
        task_places.opened(place, "run slides there") as runner,
        _watched(stages, view),
        closing(runner(slide_tasks.run, tasks)) as ends,
    ):
        for index, found in ends:
            number, task = view.open_ones[index], tasks[index]
            end = slide_tasks.lost(task, found.why) if isinstance(found, LostTask) else found
            if cluster and end.document is not None:
                end = _arrived(request, outcome.slides[number], task, end)
            outcome.end(number, end)
            view.ended.add(number)
            _tell(report, request, view, number, end)
            if any(problem.code == FULL_DISK for problem in end.problems):
                break


def _task(request: ArchiveRequest, slide: "ArchivedSlide", workers: int) -> "SlideTask":
    from tcc.compiler.slides.slide_tasks import SlideTask

    path, bundle = str(slide.path.absolute()), str(request.one.bundle.folder.resolve())
    where = (f"--output={slide.place.parent.absolute()}", f"--workers={workers}")
    words = ("slide", "run", bundle, path, *request.words, *where, "--json", "--quiet")
    return SlideTask(words, path, str(slide.path))


def _arrived(
    request: ArchiveRequest, slide: "ArchivedSlide", task: "SlideTask", end: "SlideEnd"
) -> "SlideEnd":
    """Return the end of a slide that another machine ran, whose result has to be seen here."""
    from tcc.compiler.slides import slide_tasks

    until = time.monotonic() + ARRIVAL
    asked = request.one.digest(slide.path)
    while one_slide.finished(request.one, slide.place, asked) is None:
        if time.monotonic() > until:
            why = "its result is not here: do all machines see this folder, and have one tcc?"
            return slide_tasks.lost(task, why)
        time.sleep(LOOK / 10)
    return end


def _look(
    outcome: ArchiveOutcome, request: ArchiveRequest, numbers: Sequence[int] | None = None
) -> None:
    """Take in which slides are finished; all, or those of some numbers."""
    for number in range(len(outcome.slides)) if numbers is None else numbers:
        slide = outcome.slides[number]
        found = one_slide.finished(request.one, slide.place, request.one.digest(slide.path))
        if found is not None:
            outcome.problems.pop(number, None)
            outcome.documents[number] = one_slide.document(slide.place, found, before=True)


def _largest_first(archive: "Archive", numbers: Sequence[int]) -> list[int]:
    """Return slides in the order in which they are begun, so that the last ones are short."""
    return sorted(numbers, key=lambda n: -_size(archive.slides[n].path))


def _size(path: Path) -> int:
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


@contextmanager
def _watched(stages: Stages, view: _Overview) -> Iterator[None]:
    """Show how far all slides are while somebody looks on."""
    ended = threading.Event()

    def show() -> None:
        while True:
            stages("slides", round(1000 * view.share()), 1000)
            stages.say(f"slide {len(view.ended):,} of {len(view.open_ones):,}")
            if ended.wait(LOOK):
                return

    stages("slides", 0, 1000)
    if not stages.is_watched:
        yield
        return
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(
    report: Report, request: ArchiveRequest, view: _Overview, number: int, end: "SlideEnd"
) -> None:
    """Say what a slide came to, as it comes: a night's log is read in the morning."""
    known = {f"warning: {notice}" for notice in request.one.bundle.manifest.notices}
    for line in end.said.splitlines():
        if line.strip() and line not in known:
            report.notice(line.removeprefix("warning: "))
    count = f"{len(view.ended):,} of {len(view.open_ones):,}"
    name, state = cell(str(view.outcome.slides[number].path)), view.outcome.state(number)
    left = f", {view.left()} left" if len(view.ended) < len(view.open_ones) else ""
    report.note(f"{count}: {name}: {state}{left}")


def _names(archive: "Archive") -> str:
    more = len(archive.others) - SHOWN
    shown = ", ".join(cell(str(path)) for path in archive.others[:SHOWN])
    return f"{shown}, and {more:,} more" if more > 0 else shown
