"""The blocks of a job, in this process or in several, of which each has the slide open itself."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context, parent_process
from pathlib import Path

from tcc.compiler.slides import slide_file, slide_job
from tcc.compiler.slides.patch_reader import GridPlace
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.slide_job import BlockWorker, SlideJob
from tcc.compiler.support.progress import Progress

Work = Callable[[int, tuple[GridPlace, ...]], int]
PatchBlocks = Mapping[int, tuple[GridPlace, ...]]


TRIES = 3
"""How often processes that are killed are replaced."""


def classify(
    job: SlideJob, slide: Slide, folder: Path, blocks: PatchBlocks, workers: int, progress: Progress
) -> int:
    """Classify what is not done yet of a job; return how many patches were done before.

    Args:
        job: What is done.
        slide: The slide, open.
        folder: Where finished blocks are.
        blocks: All of the job's, by their numbers.
        workers: How many processes share them, of which this is one.
        progress: Told of patches.

    Raises:
        UserError: As for `BlockWorker.work`.
    """
    worker = BlockWorker(job, slide, folder)
    waiting = _open(worker, blocks)
    total = sum(map(len, blocks.values()))
    before = done = total - sum(map(len, waiting.values()))
    progress("patches", done, total)
    for number in _finished(worker, waiting, workers):
        done += len(blocks[number])
        progress("patches", done, total)
    return before


def _open(worker: BlockWorker, blocks: PatchBlocks) -> PatchBlocks:
    """Return those of blocks that are not finished."""
    return {
        number: block
        for number, block in blocks.items()
        if slide_job.stored(slide_job.block_file(worker.folder, number), worker.job, block) is None
    }


def _finished(worker: BlockWorker, blocks: PatchBlocks, workers: int) -> Iterator[int]:
    """Yield the numbers of blocks as they are finished; where a process is killed, others go on."""
    waiting = dict(blocks)
    # At the end this process by itself: where memory runs out, it may have enough.
    for processes in (*[workers] * TRIES, 1):
        try:
            for number in _shared(worker, _open(worker, waiting), processes):
                waiting.pop(number)
                yield number
            break
        except BrokenProcessPool:
            continue
    yield from waiting  # those of killed processes that nobody heard of


def _shared(worker: BlockWorker, blocks: PatchBlocks, workers: int) -> Iterator[int]:
    """Yield the blocks' numbers as this process and others finish them."""
    others = min(workers, len(blocks)) - 1
    if others < 1:
        yield from worker.work(list(blocks.items()))
        return
    # Not forked: a process with threads, such as those of runtimes, may not be.
    context, begin = get_context("spawn"), (worker.job, worker.folder)
    with (
        ProcessPoolExecutor(others, context, _begin, begin) as pool,
        ThreadPoolExecutor(1) as here,
    ):
        free: list[tuple[Executor, Work]] = [(here, worker.one), *[(pool, _work)] * others]
        running: dict[Future[int], tuple[Executor, Work]] = {}
        waiting = iter(blocks.items())
        while True:
            # A block for each that has none: more would leave the others idle at the end.
            for place, one in zip(free, waiting, strict=False):
                running[place[0].submit(place[1], *one)] = place
            if not running:
                return
            ended = wait(running, return_when=FIRST_COMPLETED).done
            free = [running.pop(future) for future in ended]
            yield from (future.result() for future in ended)


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


def _work(number: int, block: tuple[GridPlace, ...]) -> int:
    assert _Process.worker
    return _Process.worker.one(number, block)
