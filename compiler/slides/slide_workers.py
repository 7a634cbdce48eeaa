"""The blocks of a job, in this process or in several, of which each has the slide open itself."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context, parent_process
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


TRIES = 3
"""How many times in a row processes may be killed before a block is finished."""


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
        MachineError: Processes were killed again and again (E1310).
    """
    total = sum(map(len, blocks))
    open_ones = _open(job, folder, blocks)
    before = done = total - sum(len(block) for _, block in open_ones)
    progress("patches", done, total)
    if workers == 1 or len(open_ones) < 2:
        counts = BlockWorker(job, slide, folder).work(open_ones)
    else:
        counts = _shared(job, folder, blocks, workers)
    for count in counts:
        done += count
        progress("patches", done, total)
    return before


def _open(job: SlideJob, folder: Path, blocks: PatchBlocks) -> Numbered:
    """Return the blocks that are not finished, with their numbers."""
    return [
        (number, block)
        for number, block in enumerate(blocks)
        if slide_job.stored(slide_job.block_file(folder, number), job, block) is None
    ]


def _shared(job: SlideJob, folder: Path, blocks: PatchBlocks, workers: int) -> Iterator[int]:
    """Yield how many patches each block had; where a process is killed, others go on."""
    told: set[int] = {n for n, _ in enumerate(blocks)} - {n for n, _ in _open(job, folder, blocks)}
    tries = 0
    while tries < TRIES:
        before = len(told)
        try:
            for number in _pooled(job, folder, _open(job, folder, blocks), workers):
                told.add(number)
                yield len(blocks[number])
        except BrokenProcessPool:
            tries = tries + 1 if len(told) == before else 1
        else:
            break
    else:
        help = "run the command again, with fewer --workers: what is finished is not lost"
        message = "processes that classified were killed again and again"
        raise MachineError(Diagnostic("E1310", message, whole_file(str(job.path)), help=help))
    # Those of killed processes that nobody heard of.
    yield sum(len(block) for number, block in enumerate(blocks) if number not in told)


def _pooled(job: SlideJob, folder: Path, numbered: Numbered, workers: int) -> Iterator[int]:
    """Yield the blocks' numbers, as processes finish them."""
    # Not forked: a process with threads, such as those of runtimes, may not be.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (job, folder)) as pool:
        futures = {pool.submit(_work, one): one[0] for one in numbered}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        finally:
            pool.shutdown(cancel_futures=True)


class _Process:
    """What a process of several keeps open until it ends."""

    stack = ExitStack()
    worker: BlockWorker | None = None


def _begin(job: SlideJob, folder: Path) -> None:
    threading.Thread(target=_follow, daemon=True).start()
    slide = _Process.stack.enter_context(slide_file.opened(job.path, job.mpp))
    _Process.worker = BlockWorker(job, slide, folder)


def _follow() -> None:
    """End this process when the one that began it has, even if that was killed."""
    parent = parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _work(one: tuple[int, tuple[GridPlace, ...]]) -> int:
    assert _Process.worker
    (count,) = _Process.worker.work([one])
    return count
