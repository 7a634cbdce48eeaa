"""The blocks of a job, in this process or in several, of which each has the slide open itself."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

from tcc.compiler.slides import slide_file, slide_job
from tcc.compiler.slides.patch_reader import GridPlace
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.slide_job import BlockWorker, SlideJob
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import Diagnostic, whole_file
from tcc.compiler.support.progress import Progress

PatchBlocks = list[tuple[GridPlace, ...]]
Numbered = list[tuple[int, tuple[GridPlace, ...]]]


def classify(
    job: SlideJob, slide: Slide, folder: Path, blocks: PatchBlocks, workers: int, progress: Progress
) -> int:
    """Classify what is not done yet of a job; return how many patches were done before.

    Args:
        job: What is done.
        slide: The slide, open.
        folder: Where finished blocks are.
        blocks: All of the job's.
        workers: How many processes share them; one is this.
        progress: Told of patches.

    Raises:
        UserError: As for `BlockWorker.work`.
        MachineError: A process was killed (E1310).
    """
    open_ones: Numbered = []
    for number, block in enumerate(blocks):
        if slide_job.stored(slide_job.block_file(folder, number), job, block) is None:
            open_ones.append((number, block))
    total = sum(map(len, blocks))
    before = done = total - sum(len(block) for _, block in open_ones)
    progress("patches", done, total)
    if workers == 1 or len(open_ones) < 2:
        counts = BlockWorker(job, slide, folder).work(open_ones)
    else:
        counts = _shared(job, folder, open_ones, workers)
    for count in counts:
        done += count
        progress("patches", done, total)
    return before


def _shared(job: SlideJob, folder: Path, numbered: Numbered, workers: int) -> Iterator[int]:
    """Yield how many patches each block had, as processes finish them."""
    # Not forked: a process with threads, such as those of runtimes, may not be.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (job, folder)) as pool:
        futures = [pool.submit(_work, one) for one in numbered]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            help = "run the command again: it goes on from the patches that are finished"
            where = whole_file(str(job.path))
            found = Diagnostic("E1310", "a process that classified was killed", where, help=help)
            raise MachineError(found) from None
        finally:
            pool.shutdown(cancel_futures=True)


class _Process:
    """What a process of several keeps open until it ends."""

    stack = ExitStack()
    worker: BlockWorker | None = None


def _begin(job: SlideJob, folder: Path) -> None:
    slide = _Process.stack.enter_context(slide_file.opened(job.path, job.mpp))
    _Process.worker = BlockWorker(job, slide, folder)


def _work(one: tuple[int, tuple[GridPlace, ...]]) -> int:
    assert _Process.worker
    (count,) = _Process.worker.work([one])
    return count
