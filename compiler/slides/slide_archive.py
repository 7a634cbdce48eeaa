"""Run many slides, each as its own `tcc slide run`, so that a failure affects only one slide.

A table lists the state of each slide and the folder of its result.
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

from tcc.compiler.slides import slide_processing, slide_record, slide_results
from tcc.compiler.slides.slide_processing import SlideRequest
from tcc.compiler.support import atomic_files, task_runners
from tcc.compiler.support.console import Report, Stages, format_cell
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.task_runners import LostTask, TaskLocation

MAX_TRIES = 3
"""Maximum number of attempts if a slide's process is killed; finished patches are not repeated."""


@dataclass(frozen=True, slots=True)
class SlideTask:
    """The arguments of `tcc` for a slide, its absolute path, and its path as typed."""

    arguments: tuple[str, ...]
    path: str
    typed_path: str


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """The outcome of a slide: its document, or its errors; `warnings` is the warning text."""

    document: Mapping[str, Any] | None
    problems: tuple[Diagnostic, ...] = ()
    exit_code: int = 0
    warnings: str = ""


def run_task(task: SlideTask) -> SlideOutcome:
    """Run a slide, and repeat it if its process is killed."""
    for _ in range(MAX_TRIES):
        process_end = task_runners.run_command(task.arguments, task_runners.ONE_THREAD)
        if process_end.code >= 0:
            return _parse_outcome(task, process_end)
    name = signal.Signals(-process_end.code).name
    message = f"the process of this slide was killed by {name} in all {MAX_TRIES} attempts"
    help = "if memory ran out, use fewer --workers; otherwise check the slide's file"
    return SlideOutcome(
        None, (Diagnostic("E1310", message, make_file_span(task.typed_path), help=help),), 1
    )


def build_lost_outcome(task: SlideTask, reason: str) -> SlideOutcome:
    """Return the outcome of a slide without a result."""
    message = "the process of this slide ended without a result"
    help = "run the command again; finished slides and patches are not repeated"
    diagnostic = Diagnostic(
        "E1318", message, make_file_span(task.typed_path), label=reason[:300], help=help
    )
    return SlideOutcome(None, (diagnostic,), 1)


def _parse_outcome(task: SlideTask, process_end: task_runners.CommandOutcome) -> SlideOutcome:
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(process_end.out)
    if not isinstance(document, dict):
        return build_lost_outcome(task, (process_end.err or process_end.out).strip()[-300:])
    if process_end.code == 0:
        return SlideOutcome(document["slides"][0], warnings=process_end.err)
    diagnostics = tuple(
        _parse_diagnostic(task, document_diagnostic)
        for document_diagnostic in document.get("diagnostics", ())
    )
    if not diagnostics:
        return build_lost_outcome(task, str(document.get("error")))
    return SlideOutcome(None, diagnostics, process_end.code)


def _parse_diagnostic(task: SlideTask, document: Mapping[str, Any]) -> Diagnostic:
    source = make_file_span(task.typed_path if document["file"] == task.path else document["file"])
    notes = tuple(document["notes"])
    return Diagnostic(
        document["code"], document["message"], source, document["label"], notes, document["help"]
    )


SLIDE_SUFFIXES = (
    ".bif", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms", ".vmu",
)  # fmt: skip
"""Suffixes of slides in a folder. Other slides must be named on the command line: plain images in
folders are mostly labels and thumbnails, and a DICOM slide consists of many files."""
MAX_FILES = 100_000
"""Maximum number of files in the searched folders."""


@dataclass(frozen=True, slots=True)
class ArchivedSlide:
    """A slide's file, and the folder of its result."""

    path: Path
    result_folder: Path


@dataclass
class Archive:
    """Slides, other files in the searched folders, and problems of these folders."""

    slides: list[ArchivedSlide] = field(default_factory=list)
    other_files: list[Path] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)


def list_slides(paths: Sequence[Path], out: Path) -> Archive:
    """Return the given slides, and those in the given folders and their subfolders.

    The result of a folder's slide has the same relative path in `out`. Hidden files, results and
    the contents of `out` are skipped. Links are followed, but each folder is searched only once.

    Raises:
        UserError: A folder has no slide (E1316), or two slides would have the same result folder
            (E0601).
    """
    archive = Archive()
    for path in paths:
        if not path.is_dir():
            archive.slides.append(ArchivedSlide(path, out / path.stem))
            continue
        slide_count = len(archive.slides)
        _FolderSearch(archive, path, out).search()
        if len(archive.slides) == slide_count and not archive.problems:
            suffixes = ", ".join(SLIDE_SUFFIXES)
            help = f"slides in a folder must end in {suffixes}; give other slides by their paths"
            raise fail(
                "E1316", "there is no slide in this folder", make_file_span(str(path)), help=help
            )
    _check_results(archive.slides)
    return archive


@dataclass
class _FolderSearch:
    """Searches a folder for slides; their results go to `results_root`."""

    archive: Archive
    root: Path
    results_root: Path
    visited: set[str] = field(default_factory=set)

    def search(self) -> None:
        self.visited = {os.path.realpath(self.results_root)} - {os.path.realpath(self.root)}
        folders = [self.root]
        while folders:
            folder = folders.pop()
            real_path = os.path.realpath(folder)
            if real_path in self.visited or slide_results.check_overwrite(folder) is None:
                continue
            self.visited.add(real_path)  # the real path, so that circular links end
            folders += reversed(list(self._list_folders(folder)))

    def _list_folders(self, folder: Path) -> Iterator[Path]:
        """Record the files of a folder, and yield its subfolders in the order of their names."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self.archive.problems += _list_diagnostics(error, folder)
            return
        for path in (folder / name for name in names if not name.startswith(".")):
            if path.is_dir():
                yield path
            elif path.suffix.lower() in SLIDE_SUFFIXES:
                result_folder = self.results_root / folder.relative_to(self.root) / path.stem
                self.archive.slides.append(ArchivedSlide(path, result_folder))
            else:
                self.archive.other_files.append(path)
        if len(self.archive.slides) + len(self.archive.other_files) > MAX_FILES:
            message = f"this folder has more than {MAX_FILES:,} files"
            help = "give its subfolders or slides separately"
            raise fail("E1316", message, make_file_span(str(self.root)), help=help)


def _list_diagnostics(error: OSError, folder: Path) -> Iterable[Diagnostic]:
    explanation = atomic_files.explain(error, folder, "look into this folder")
    return (
        explanation.diagnostics if isinstance(explanation, UserError) else (explanation.diagnostic,)
    )


def _check_results(slides: Sequence[ArchivedSlide]) -> None:
    """Check that no slide's result folder equals or contains that of another slide."""
    slide_by_folder: dict[Path, Path] = {}
    for slide in slides:
        if slide.result_folder in slide_by_folder:
            other_path = slide_by_folder[slide.result_folder]
            message = (
                f"two slides are named {slide.path.stem}, so their results would be in the same "
            )
            label = f"the other is {other_path}"
            raise _build_conflict_error(f"{message}folder", slide.path, label)
        slide_by_folder[slide.result_folder] = slide.path
    for slide in slides:
        for parent in slide.result_folder.parents:
            if parent in slide_by_folder:
                message = "the result of this slide would be inside the result of another slide"
                raise _build_conflict_error(
                    message, slide.path, f"the other is {slide_by_folder[parent]}"
                )


def _build_conflict_error(message: str, path: Path, label: str) -> UserError:
    help = "rename one of them, or run them separately with different --output folders"
    return fail("E0601", message, make_file_span(str(path)), label=label[:300], help=help)


OTHER_RUN_CODE = "E1309"
COUNT_COLUMNS, AREA_COLUMNS = ("patches", "positive", "damaged"), ("positive_mm2", "tissue_mm2")
"""Columns of the table from the summary."""


@dataclass
class ArchiveOutcome:
    """The outcome of all slides: documents and problems, by the slides' indices."""

    slides: "Sequence[ArchivedSlide]"
    documents: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    problems: dict[int, tuple[Diagnostic, ...]] = field(default_factory=dict)
    folder_problems: Sequence[Diagnostic] = ()
    left_out: Sequence[Path] = ()
    has_internal_error: bool = False

    def describe_state(self, number: int) -> str:
        """Return the state of a slide in a word or two."""
        if number in self.documents:
            return "done before" if self.documents[number]["finished_before"] else "done"
        codes = [diagnostic.code for diagnostic in self.problems.get(number, ())]
        if not codes:
            return "not started"
        return "another run" if codes == [OTHER_RUN_CODE] else f"failed: {codes[0]}"

    def add_outcome(self, number: int, outcome: SlideOutcome) -> None:
        """Record the outcome of a slide."""
        if outcome.document is not None:
            self.documents[number] = {
                **outcome.document,
                "folder": str(self.slides[number].result_folder),
            }
            return
        self.problems[number] = outcome.problems
        self.has_internal_error |= outcome.exit_code == 1


def _print_outcome(report: Report, outcome: ArchiveOutcome) -> None:
    """Print a table with the state of each slide."""
    rows = []
    for number, slide in enumerate(outcome.slides):
        document = outcome.documents.get(number)
        counts = [f"{document[name]:,}" if document else "-" for name in COUNT_COLUMNS]
        areas = [f"{document[name]:.2f}" if document else "-" for name in AREA_COLUMNS]
        rows.append((str(slide.path), outcome.describe_state(number), *counts, *areas))
    columns = ("slide", "state", "patches", "tumour", "damaged", "tumour mm2", "tissue mm2")
    report.print_table(columns, rows)


FULL_DISK_CODE = "E0604"
POLL_SECONDS = 2.0
"""Interval of progress updates."""
ARRIVAL_SECONDS = 60.0
"""Maximum delay until files from another machine are visible."""
MAX_SHOWN_NAMES = 5
"""Maximum number of names that a note lists."""


@dataclass(frozen=True)
class ArchiveRequest:
    """The request for each slide, its command-line arguments, and where it runs."""

    slide_request: SlideRequest
    arguments: tuple[str, ...]
    task_place: TaskLocation
    workers: int


def run_alone(
    report: Report,
    stages: Stages,
    request: SlideRequest,
    slide: ArchivedSlide,
    workers: int,
) -> ArchiveOutcome:
    """Run one slide in this process."""
    outcome = ArchiveOutcome([slide])
    try:
        document = slide_processing.run(
            report, stages, request, slide.path, slide.result_folder, workers
        )
        outcome.documents[0] = document
    except UserError as error:
        outcome.problems[0] = error.diagnostics
    return outcome


def run(
    report: Report, stages: Stages, request: ArchiveRequest, archive: Archive
) -> ArchiveOutcome:
    """Run the slides that are not finished; a failed slide does not stop the others.

    Only a full disk stops all slides.

    Raises:
        UserError: The Dask cluster does not respond, or Slurm rejects jobs (E1317).
        MissingTool: Dask or submitit is not installed.
    """
    outcome = ArchiveOutcome(
        archive.slides, folder_problems=archive.problems, left_out=archive.other_files
    )
    if archive.other_files:
        report.print_note(f"skipped files that are not slides by suffix: {_list_names(archive)}")
    _update_finished(outcome, request)
    open_numbers = [n for n in range(len(archive.slides)) if n not in outcome.documents]
    if outcome.documents:
        report.print_note(
            f"{len(outcome.documents):,} of {len(archive.slides):,} slides are finished"
        )
    if open_numbers:
        _run_tasks(
            report, stages, request, _ArchiveProgress(outcome, _sort_by_size(archive, open_numbers))
        )
    conflict_numbers = [
        n for n, diagnostics in outcome.problems.items() if diagnostics[0].code == OTHER_RUN_CODE
    ]
    _update_finished(outcome, request, conflict_numbers)
    _print_outcome(report, outcome)
    return outcome


@dataclass
class _ArchiveProgress:
    """Progress of the slides with the indices `open_numbers`, weighted by file size."""

    outcome: ArchiveOutcome
    open_numbers: Sequence[int]
    start_time: float = field(default_factory=time.monotonic)
    ended_numbers: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Read the file sizes once."""
        self.sizes = {n: _get_size(self.outcome.slides[n].path) for n in self.open_numbers}

    def compute_share(self) -> float:
        """Return the share of the work that is done, from 0 to 1."""
        done_bytes = 0.0
        for number, size in self.sizes.items():
            if number in self.ended_numbers:
                done_bytes += size
            elif patch_counts := slide_record.read_progress(
                slide_record.get_work_folder(self.outcome.slides[number].result_folder)
            ):
                done_bytes += size * patch_counts[0] / max(1, patch_counts[1])
        return done_bytes / sum(self.sizes.values())

    def estimate_remaining(self) -> str:
        """Return the estimated remaining time as text, from the speed so far."""
        share = self.compute_share()
        seconds = (time.monotonic() - self.start_time) * (1 - share) / share if share else 0.0
        minutes = round(seconds / 60)
        return f"about {minutes // 60} h {minutes % 60} min" if minutes else "a minute or less"


def _run_tasks(
    report: Report, stages: Stages, request: ArchiveRequest, archive_progress: _ArchiveProgress
) -> None:
    """Run the open slides, and record and report their outcomes."""
    outcome = archive_progress.outcome
    is_remote = request.task_place.is_remote
    task_count = min(request.workers, len(archive_progress.open_numbers))
    workers_per_slide = request.workers if is_remote else request.workers // task_count
    tasks = [
        _build_task(request, outcome.slides[n], workers_per_slide)
        for n in archive_progress.open_numbers
    ]
    task_place = replace(request.task_place, workers=task_count, cores=workers_per_slide)
    with (
        task_runners.open_runner(task_place, "run slides there") as runner,
        _show_progress(stages, archive_progress),
        closing(runner(run_task, tasks)) as task_ends,
    ):
        for index, task_end in task_ends:
            number, task = archive_progress.open_numbers[index], tasks[index]
            slide_outcome = (
                build_lost_outcome(task, task_end.reason)
                if isinstance(task_end, LostTask)
                else task_end
            )
            if is_remote and slide_outcome.document is not None:
                slide_outcome = _wait_for_result(
                    request, outcome.slides[number], task, slide_outcome
                )
            outcome.add_outcome(number, slide_outcome)
            archive_progress.ended_numbers.add(number)
            _report_outcome(report, request, archive_progress, number, slide_outcome)
            if any(problem.code == FULL_DISK_CODE for problem in slide_outcome.problems):
                break


def _build_task(request: ArchiveRequest, slide: ArchivedSlide, workers: int) -> SlideTask:
    path, bundle = str(slide.path.absolute()), str(request.slide_request.bundle.folder.resolve())
    options = (f"--output={slide.result_folder.parent.absolute()}", f"--workers={workers}")
    arguments = ("slide", "run", bundle, path, *request.arguments, *options, "--json", "--quiet")
    return SlideTask(arguments, path, str(slide.path))


def _wait_for_result(
    request: ArchiveRequest, slide: ArchivedSlide, task: SlideTask, slide_outcome: SlideOutcome
) -> SlideOutcome:
    """Wait until the result of another machine is visible here, and return the outcome."""
    deadline = time.monotonic() + ARRIVAL_SECONDS
    request_digest = request.slide_request.compute_digest(slide.path)
    while (
        slide_processing.find_finished_summary(
            request.slide_request, slide.result_folder, request_digest
        )
        is None
    ):
        if time.monotonic() > deadline:
            reason = (
                "its result is not visible on this machine; check that all machines share this "
                "folder and have the same version of tcc"
            )
            return build_lost_outcome(task, reason)
        time.sleep(POLL_SECONDS / 10)
    return slide_outcome


def _update_finished(
    outcome: ArchiveOutcome, request: ArchiveRequest, numbers: Sequence[int] | None = None
) -> None:
    """Record the finished slides, among all slides or those with the given indices."""
    for number in range(len(outcome.slides)) if numbers is None else numbers:
        slide = outcome.slides[number]
        summary = slide_processing.find_finished_summary(
            request.slide_request,
            slide.result_folder,
            request.slide_request.compute_digest(slide.path),
        )
        if summary is not None:
            outcome.problems.pop(number, None)
            outcome.documents[number] = slide_processing.build_document(
                slide.result_folder, summary, was_finished=True
            )


def _sort_by_size(archive: Archive, numbers: Sequence[int]) -> list[int]:
    """Return slides by descending size, so that the last ones to start are short."""
    return sorted(numbers, key=lambda n: -_get_size(archive.slides[n].path))


def _get_size(path: Path) -> int:
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


@contextmanager
def _show_progress(stages: Stages, archive_progress: _ArchiveProgress) -> Iterator[None]:
    """Show the progress of all slides, if it is displayed."""
    stop_event = threading.Event()

    def show_progress() -> None:
        while True:
            stages("slides", round(1000 * archive_progress.compute_share()), 1000)
            stages.show_detail(
                f"slide {len(archive_progress.ended_numbers):,} of "
                f"{len(archive_progress.open_numbers):,}"
            )
            if stop_event.wait(POLL_SECONDS):
                return

    stages("slides", 0, 1000)
    if not stages.is_watched:
        yield
        return
    thread = threading.Thread(target=show_progress, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_event.set()
        thread.join()


def _report_outcome(
    report: Report,
    request: ArchiveRequest,
    archive_progress: _ArchiveProgress,
    number: int,
    slide_outcome: SlideOutcome,
) -> None:
    """Report the outcome of a slide as soon as it ends, for logs of long runs."""
    printed_notices = {
        f"warning: {notice}" for notice in request.slide_request.bundle.manifest.notices
    }
    for line in slide_outcome.warnings.splitlines():
        if line.strip() and line not in printed_notices:
            report.warn_text(line.removeprefix("warning: "))
    count = f"{len(archive_progress.ended_numbers):,} of {len(archive_progress.open_numbers):,}"
    name, state = (
        format_cell(str(archive_progress.outcome.slides[number].path)),
        archive_progress.outcome.describe_state(number),
    )
    remaining = (
        f", {archive_progress.estimate_remaining()} left"
        if len(archive_progress.ended_numbers) < len(archive_progress.open_numbers)
        else ""
    )
    report.print_note(f"{count}: {name}: {state}{remaining}")


def _list_names(archive: Archive) -> str:
    hidden_count = len(archive.other_files) - MAX_SHOWN_NAMES
    names = ", ".join(format_cell(str(path)) for path in archive.other_files[:MAX_SHOWN_NAMES])
    return f"{names}, and {hidden_count:,} more" if hidden_count > 0 else names
