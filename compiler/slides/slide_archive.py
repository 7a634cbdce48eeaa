"""Many slides: each is a `tcc slide run` of its own, so that none can end the others.

A table says what became of all, each with the place of its result.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tcc.compiler.slides import one_slide, slide_record, slide_results
from tcc.compiler.slides.one_slide import SlideRequest
from tcc.compiler.support import atomic_files, task_places
from tcc.compiler.support.console import Report, Stages, cell
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file
from tcc.compiler.support.task_places import LostTask, TaskPlace

TRIES = 3
"""How often a slide is begun whose process is killed; what is finished of it is not repeated."""


@dataclass(frozen=True, slots=True)
class SlideTask:
    """The words of a command, after `tcc`, and its slide: by a whole path, and as it was typed."""

    words: tuple[str, ...]
    path: str
    typed: str


@dataclass(frozen=True, slots=True)
class SlideEnd:
    """What a slide came to: its document, or what is wrong; `said` are warnings."""

    document: Mapping[str, Any] | None
    problems: tuple[Diagnostic, ...] = ()
    code: int = 0
    said: str = ""


def run_task(task: SlideTask) -> SlideEnd:
    """Run a slide, again where its process was killed."""
    for _ in range(TRIES):
        end = task_places.run_command(task.words, task_places.ONE_THREAD)
        if end.code >= 0:
            return _end(task, end)
    name = signal.Signals(-end.code).name
    message = f"what ran this slide was ended by {name}, {TRIES} times"
    help = "where memory ran out, take fewer --workers; else the slide's file is to blame"
    return SlideEnd(None, (Diagnostic("E1310", message, whole_file(task.typed), help=help),), 1)


def lost_end(task: SlideTask, why: str) -> SlideEnd:
    """Return the end of a slide that nothing brought to one."""
    message = "what was to run this slide did not come to an end"
    help = "run the command again: what is finished is not repeated"
    found = Diagnostic("E1318", message, whole_file(task.typed), label=why[:300], help=help)
    return SlideEnd(None, (found,), 1)


def _end(task: SlideTask, end: task_places.ChildEnd) -> SlideEnd:
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(end.out)
    if not isinstance(document, dict):
        return lost_end(task, (end.err or end.out).strip()[-300:])
    if end.code == 0:
        return SlideEnd(document["slides"][0], said=end.err)
    found = tuple(_diagnostic(task, each) for each in document.get("diagnostics", ()))
    if not found:
        return lost_end(task, str(document.get("error")))
    return SlideEnd(None, found, end.code)


def _diagnostic(task: SlideTask, plain: Mapping[str, Any]) -> Diagnostic:
    at = whole_file(task.typed if plain["file"] == task.path else plain["file"])
    notes = tuple(plain["notes"])
    return Diagnostic(plain["code"], plain["message"], at, plain["label"], notes, plain["help"])


FORMATS = (
    ".bif", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu",
)  # fmt: skip
"""Ends of names of what is taken for a slide in a folder; plain images there are mostly labels and
thumbnails, and a DICOM slide is many files: these are named one by one."""
MOST = 100_000
"""Most files of folders that are looked at."""


@dataclass(frozen=True, slots=True)
class ArchivedSlide:
    """A slide's file, and the folder that its result is to lie in."""

    path: Path
    place: Path


@dataclass
class Archive:
    """What was named: slides, other files of folders, and what is wrong with folders."""

    slides: list[ArchivedSlide] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)


def listed(given: Sequence[Path], out: Path) -> Archive:
    """Return the slides among files, and those in folders and what is below these.

    A slide of a folder has its result at the same place below `out`. What is hidden is left out, as
    are results, and whatever else lies in `out`. Links are followed, a folder is looked into once.

    Raises:
        UserError: There is no slide (E1316), or two would have one result (E0601).
    """
    found = Archive()
    for path in given:
        if not path.is_dir():
            found.slides.append(ArchivedSlide(path, out / path.stem))
            continue
        before = len(found.slides)
        _Search(found, path, out).look()
        if len(found.slides) == before and not found.problems:
            ends = ", ".join(FORMATS)
            help = f"slides of a folder end in {ends}; others are named themselves"
            raise fail(
                "E1316", "there is no slide in this folder", whole_file(str(path)), help=help
            )
    _check(found.slides)
    return found


@dataclass
class _Search:
    """Looks through a folder, whose slides' results are to lie in `out`."""

    found: Archive
    root: Path
    out: Path
    known: set[str] = field(default_factory=set)

    def look(self) -> None:
        self.known = {os.path.realpath(self.out)} - {os.path.realpath(self.root)}
        folders = [self.root]
        while folders:
            folder = folders.pop()
            own = os.path.realpath(folder)
            if own in self.known or slide_results.ours(folder) is None:
                continue
            self.known.add(own)  # by its one name, so that links in a circle end
            folders += reversed(list(self._files_of(folder)))

    def _files_of(self, folder: Path) -> Iterator[Path]:
        """Note the files of a folder, and yield the folders in it, by their names."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self.found.problems += _said(error, folder)
            return
        for path in (folder / name for name in names if not name.startswith(".")):
            if path.is_dir():
                yield path
            elif path.suffix.lower() in FORMATS:
                place = self.out / folder.relative_to(self.root) / path.stem
                self.found.slides.append(ArchivedSlide(path, place))
            else:
                self.found.others.append(path)
        if len(self.found.slides) + len(self.found.others) > MOST:
            message = f"more than {MOST:,} files are looked at in no folder"
            raise fail("E1316", message, whole_file(str(self.root)), help="name parts of it")


def _said(error: OSError, folder: Path) -> Iterable[Diagnostic]:
    why = atomic_files.explain(error, folder, "look into this folder")
    return why.diagnostics if isinstance(why, UserError) else (why.diagnostic,)


def _check(slides: Sequence[ArchivedSlide]) -> None:
    """Refuse slides of which one's result would lie in, or in place of, that of another."""
    known: dict[Path, Path] = {}
    for each in slides:
        if each.place in known:
            other = known[each.place]
            message = f"two slides are called {each.path.stem}, and their results would lie in one "
            label = f"the other is {other}"
            raise _clash(f"{message}folder", each.path, label)
        known[each.place] = each.path
    for each in slides:
        for above in each.place.parents:
            if above in known:
                message = "the result of this slide would lie in the result of another"
                raise _clash(message, each.path, f"that of {known[above]}")


def _clash(message: str, path: Path, label: str) -> UserError:
    help = "rename one, or run them with another --output each"
    return fail("E0601", message, whole_file(str(path)), label=label[:300], help=help)


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

    def end(self, number: int, end: SlideEnd) -> None:
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
    slide: ArchivedSlide,
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
    report: Report, stages: Stages, request: ArchiveRequest, archive: Archive
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
        done = 0.0
        for number, size in self.sizes.items():
            if number in self.ended:
                done += size
            elif found := slide_record.progress(
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
    outcome = view.outcome
    cluster = request.place.elsewhere
    at_once = min(request.workers, len(view.open_ones))
    each = request.workers if cluster else request.workers // at_once
    tasks = [_task(request, outcome.slides[n], each) for n in view.open_ones]
    place = replace(request.place, workers=at_once, cores=each)
    with (
        task_places.opened(place, "run slides there") as runner,
        _watched(stages, view),
        closing(runner(run_task, tasks)) as ends,
    ):
        for index, found in ends:
            number, task = view.open_ones[index], tasks[index]
            end = lost_end(task, found.why) if isinstance(found, LostTask) else found
            if cluster and end.document is not None:
                end = _arrived(request, outcome.slides[number], task, end)
            outcome.end(number, end)
            view.ended.add(number)
            _tell(report, request, view, number, end)
            if any(problem.code == FULL_DISK for problem in end.problems):
                break


def _task(request: ArchiveRequest, slide: ArchivedSlide, workers: int) -> SlideTask:
    path, bundle = str(slide.path.absolute()), str(request.one.bundle.folder.resolve())
    where = (f"--output={slide.place.parent.absolute()}", f"--workers={workers}")
    words = ("slide", "run", bundle, path, *request.words, *where, "--json", "--quiet")
    return SlideTask(words, path, str(slide.path))


def _arrived(
    request: ArchiveRequest, slide: ArchivedSlide, task: SlideTask, end: SlideEnd
) -> SlideEnd:
    """Return the end of a slide that another machine ran, whose result has to be seen here."""
    until = time.monotonic() + ARRIVAL
    asked = request.one.digest(slide.path)
    while one_slide.finished(request.one, slide.place, asked) is None:
        if time.monotonic() > until:
            why = "its result is not here: do all machines see this folder, and have one tcc?"
            return lost_end(task, why)
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


def _largest_first(archive: Archive, numbers: Sequence[int]) -> list[int]:
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
    report: Report, request: ArchiveRequest, view: _Overview, number: int, end: SlideEnd
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


def _names(archive: Archive) -> str:
    more = len(archive.others) - SHOWN
    shown = ", ".join(cell(str(path)) for path in archive.others[:SHOWN])
    return f"{shown}, and {more:,} more" if more > 0 else shown
