"""A slide's patches through a bundle: blocks of them, each of which is done once.

What a block gives is a file of a working folder, written whole. A run that was killed leaves the
folder, and the next one goes on from it, if bundle, slide, grid and tissue are the same.
"""

import hashlib
import json
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
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs, manifest
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.data import dataset
from tcc.compiler.ir.device import Device
from tcc.compiler.slides import patch_grid, slide_file
from tcc.compiler.slides.patch_grid import GridPlace, PatchGrid, PatchReader
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.progress import Progress

Patches = list[NDArray[np.uint8] | None]

BATCH = 32
"""Patches that the artifact is handed at a time."""


@dataclass(frozen=True, eq=False)
class SlideJob:
    """What is done to a slide: `kept` of the grid's patches, `size` pixels each, to an output.

    With `skips`, patches that cannot be decoded are left out.
    """

    path: Path
    mpp: float
    grid: PatchGrid
    size: int
    kept: NDArray[np.bool_]
    bundle: Bundle
    device: Device
    output: OutputContract
    skips: bool

    @cached_property
    def digest(self) -> str:
        """What tells jobs apart whose blocks give other values, in hex."""
        file = self.path.stat()
        parts = {
            "slide": [self.path.name, file.st_size, file.st_mtime_ns],
            "grid": [self.grid.width, self.grid.height, self.grid.span, self.grid.stride],
            "patches": [self.size, hashlib.sha256(np.packbits(self.kept).tobytes()).hexdigest()],
            "bundle": hashlib.sha256(manifest.encode(self.bundle.manifest)).hexdigest(),
            "how": [self.mpp, self.output.name, self.skips],
            "blocks": [patch_grid.READ, patch_grid.BLOCK_BYTES],
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def block_file(folder: Path, number: int) -> Path:
    """Return where a block's raw outputs lie."""
    return folder / f"{number:07}.npy"


def stored(path: Path, job: SlideJob, block: tuple[GridPlace, ...]) -> NDArray[np.float32] | None:
    """Return what a block gave, (patches, values); None where it is not there, whole."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = found.dtype == np.float32 and found.shape == (len(block), *job.output.shape)
    return found if fits else None


class BlockWorker:
    """Classifies blocks of a job with an open slide."""

    def __init__(self, job: SlideJob, slide: Slide, folder: Path) -> None:
        self.job, self.slide, self.folder = job, slide, folder
        self.reader = PatchReader(slide, job.grid, job.size)

    def work(self, numbered: list[tuple[int, tuple[GridPlace, ...]]]) -> Iterator[int]:
        """Classify blocks, and yield the number of each; the next is read meanwhile.

        Args:
            numbered: PatchBlocks with their numbers.

        Raises:
            UserError: The slide is damaged (E1302), the bundle cannot run, or gives no finite
                numbers (E0720).
        """
        with ThreadPoolExecutor(1) as threads:
            ahead: Future[Patches] | None = None
            for place, (number, block) in enumerate(numbered):
                patches = ahead.result() if ahead else self._read(block)
                following = numbered[place + 1 : place + 2]
                ahead = threads.submit(self._read, following[0][1]) if following else None
                self._store(number, self._classified(patches))
                yield number

    def one(self, number: int, block: tuple[GridPlace, ...]) -> int:
        """Classify a block, and return its number; errors as for `work`."""
        self._store(number, self._classified(self._read(block)))
        return number

    def _read(self, block: tuple[GridPlace, ...]) -> Patches:
        """Return a block's patches; None for those that cannot be decoded, where these may be."""
        try:
            return list(self.reader.read(block))
        except UserError as error:
            if not (self.job.skips and slide_file.is_damage(error)):
                raise
        found: Patches = []
        for place in block:
            try:
                found += self.reader.read((place,))
            except UserError as error:
                if not slide_file.is_damage(error):
                    raise
                found.append(None)
        return found

    def _classified(self, patches: Patches) -> NDArray[np.float32]:
        """Return raw outputs (patches, values); NaN of what could not be decoded."""
        job = self.job
        made = np.full((len(patches), *job.output.shape), np.nan, np.float32)
        whole = [n for n, patch in enumerate(patches) if patch is not None]
        for first in range(0, len(whole), BATCH):
            batch = whole[first : first + BATCH]
            given: Any = [patches[n] for n in batch]
            dataset.fitting(given[0], job.bundle.input, str(job.path))
            answers = artifact_runs.run(job.bundle, job.device, given)
            made[batch] = [answer[job.output.name] for answer in answers]
        if not np.isfinite(made[whole]).all():
            message = f"output `{job.output.name}` is not finite for a patch of this slide"
            raise fail("E0720", message, whole_file(str(job.path)))
        return made

    def _store(self, number: int, values: NDArray[np.float32]) -> None:
        out = BytesIO()
        np.save(out, values, allow_pickle=False)
        atomic_files.write_file(block_file(self.folder, number), out.getvalue())


def collected(
    job: SlideJob, folder: Path, blocks: Mapping[int, tuple[GridPlace, ...]]
) -> NDArray[np.float32]:
    """Return the raw outputs (rows, columns, values) of all blocks, NaN where nothing is."""
    made = np.full((*job.grid.shape, *job.output.shape), np.nan, np.float32)
    for number, block in blocks.items():
        found = stored(block_file(folder, number), job, block)
        if found is None:
            message = "a finished block is gone from the working folder"
            raise fail("E1309", message, whole_file(str(folder)), help="run the command again")
        rows, columns = np.array(block).T
        made[rows, columns] = found
    return made


def blocks_of(job: SlideJob, slide: Slide) -> dict[int, tuple[GridPlace, ...]]:
    """Return a job's patches in blocks, by their numbers.

    Raises:
        UserError: The slide is too coarse, or has no level near this resolution (E1308).
    """
    reader = PatchReader(slide, job.grid, job.size)
    reader.check()
    return dict(enumerate(patch_grid.blocks(reader, job.kept)))


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
        if stored(block_file(worker.folder, number), worker.job, block) is None
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
