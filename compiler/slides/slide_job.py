"""Classify the patches of a slide with a bundle, in blocks that are computed once.

Each block's outputs are written atomically to a file in a working folder. If a run is killed, the
next run resumes from the folder, if bundle, slide, grid and tissue are the same.
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
from tcc.compiler.slides.patch_grid import GridCell, PatchGrid, PatchReader
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.progress import Progress

Patches = list[NDArray[np.uint8] | None]

BATCH_SIZE = 32
"""Number of patches per call of the artifact."""


@dataclass(frozen=True, eq=False)
class SlideJob:
    """The classification of a slide's patches.

    Attributes:
        path: The slide.
        mpp: Micrometres per pixel of level 0.
        grid: The grid of patches.
        size: The side in pixels of the scaled patches that the bundle receives.
        selected: The patches to classify, bool (rows, columns).
        bundle: The bundle.
        device: The device that runs it.
        output: The output to read.
        skips_damaged: Whether to skip patches that cannot be decoded.
    """

    path: Path
    mpp: float
    grid: PatchGrid
    size: int
    selected: NDArray[np.bool_]
    bundle: Bundle
    device: Device
    output: OutputContract
    skips_damaged: bool

    @cached_property
    def digest(self) -> str:
        """A hex digest of everything that affects the blocks' values."""
        file = self.path.stat()
        settings = {
            "slide": [self.path.name, file.st_size, file.st_mtime_ns],
            "grid": [self.grid.width, self.grid.height, self.grid.span, self.grid.stride],
            "patches": [
                self.size,
                hashlib.sha256(np.packbits(self.selected).tobytes()).hexdigest(),
            ],
            "bundle": hashlib.sha256(manifest.encode(self.bundle.manifest)).hexdigest(),
            "how": [self.mpp, self.output.name, self.skips_damaged],
            "blocks": [patch_grid.BLOCK_SIDE, patch_grid.MAX_BLOCK_BYTES],
        }
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def locate_block_file(folder: Path, number: int) -> Path:
    """Return the path of a block's raw outputs."""
    return folder / f"{number:07}.npy"


def load_block(
    path: Path, job: SlideJob, block: tuple[GridCell, ...]
) -> NDArray[np.float32] | None:
    """Return a block's outputs (patches, values); None if the file is missing or incomplete."""
    try:
        outputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_valid = outputs.dtype == np.float32 and outputs.shape == (len(block), *job.output.shape)
    return outputs if is_valid else None


class BlockWorker:
    """Classifies blocks of a job, with an open slide."""

    def __init__(self, job: SlideJob, slide: Slide, folder: Path) -> None:
        self.job, self.slide, self.folder = job, slide, folder
        self.reader = PatchReader(slide, job.grid, job.size)

    def run_blocks(self, numbered_blocks: list[tuple[int, tuple[GridCell, ...]]]) -> Iterator[int]:
        """Classify blocks and yield the number of each; the next block is read in parallel.

        Args:
            numbered_blocks: Blocks with their numbers.

        Raises:
            UserError: The slide is damaged (E1302), or the bundle cannot run or returns values that
                are not finite (E0720).
        """
        with ThreadPoolExecutor(1) as threads:
            next_read: Future[Patches] | None = None
            for position, (number, block) in enumerate(numbered_blocks):
                patches = next_read.result() if next_read else self._read_block(block)
                next_block = numbered_blocks[position + 1 : position + 2]
                next_read = (
                    threads.submit(self._read_block, next_block[0][1]) if next_block else None
                )
                self._store(number, self._classify_patches(patches))
                yield number

    def run_block(self, number: int, block: tuple[GridCell, ...]) -> int:
        """Classify a block and return its number; errors are those of `run_blocks`."""
        self._store(number, self._classify_patches(self._read_block(block)))
        return number

    def _read_block(self, block: tuple[GridCell, ...]) -> Patches:
        """Return a block's patches; None for damaged ones, if the job skips them."""
        try:
            return list(self.reader.read_patches(block))
        except UserError as error:
            if not (self.job.skips_damaged and slide_file.is_damage(error)):
                raise
        patches: Patches = []
        for cell in block:
            try:
                patches += self.reader.read_patches((cell,))
            except UserError as error:
                if not slide_file.is_damage(error):
                    raise
                patches.append(None)
        return patches

    def _classify_patches(self, patches: Patches) -> NDArray[np.float32]:
        """Return raw outputs (patches, values), with NaN for damaged patches."""
        job = self.job
        outputs = np.full((len(patches), *job.output.shape), np.nan, np.float32)
        readable = [n for n, patch in enumerate(patches) if patch is not None]
        for start in range(0, len(readable), BATCH_SIZE):
            batch = readable[start : start + BATCH_SIZE]
            images: Any = [patches[n] for n in batch]
            dataset.check_image(images[0], job.bundle.input, str(job.path))
            answers = artifact_runs.run(job.bundle, job.device, images)
            outputs[batch] = [answer[job.output.name] for answer in answers]
        if not np.isfinite(outputs[readable]).all():
            message = f"output `{job.output.name}` is not finite for a patch of this slide"
            help = "check the magnitudes of the weights, and the preprocessing's `mean` and `std`"
            raise fail("E0720", message, make_file_span(str(job.path)), help=help)
        return outputs

    def _store(self, number: int, outputs: NDArray[np.float32]) -> None:
        buffer = BytesIO()
        np.save(buffer, outputs, allow_pickle=False)
        atomic_files.write_file(locate_block_file(self.folder, number), buffer.getvalue())


def collect_outputs(
    job: SlideJob, folder: Path, blocks: Mapping[int, tuple[GridCell, ...]]
) -> NDArray[np.float32]:
    """Return the raw outputs of all blocks (rows, columns, values), NaN where there are none."""
    outputs = np.full((*job.grid.shape, *job.output.shape), np.nan, np.float32)
    for number, block in blocks.items():
        block_outputs = load_block(locate_block_file(folder, number), job, block)
        if block_outputs is None:
            message = "a finished block is missing in the working folder"
            raise fail("E1309", message, make_file_span(str(folder)), help="run the command again")
        rows, columns = np.array(block).T
        outputs[rows, columns] = block_outputs
    return outputs


def list_blocks(job: SlideJob, slide: Slide) -> dict[int, tuple[GridCell, ...]]:
    """Return the blocks of a job's patches, by number.

    Raises:
        UserError: The slide is too coarse, or has no level near the patches' resolution (E1308).
    """
    reader = PatchReader(slide, job.grid, job.size)
    reader.check()
    return dict(enumerate(patch_grid.split_into_blocks(reader, job.selected)))


BlockTask = Callable[[int, tuple[GridCell, ...]], int]
PatchBlocks = Mapping[int, tuple[GridCell, ...]]


MAX_TRIES = 3
"""Maximum number of attempts with several processes if processes are killed."""


def classify(
    job: SlideJob, slide: Slide, folder: Path, blocks: PatchBlocks, workers: int, progress: Progress
) -> int:
    """Classify the unfinished blocks of a job; return the number of patches finished before.

    Args:
        job: The job.
        slide: The open slide.
        folder: The folder of finished blocks.
        blocks: All blocks of the job, by number.
        workers: The number of processes, including this one.
        progress: Receives the number of finished patches.

    Raises:
        UserError: As for `BlockWorker.run_blocks`.
    """
    worker = BlockWorker(job, slide, folder)
    unfinished = _select_unfinished(worker, blocks)
    total = sum(map(len, blocks.values()))
    finished_count = done_count = total - sum(map(len, unfinished.values()))
    progress("patches", done_count, total)
    for number in _iterate_finished(worker, unfinished, workers):
        done_count += len(blocks[number])
        progress("patches", done_count, total)
    return finished_count


def _select_unfinished(worker: BlockWorker, blocks: PatchBlocks) -> PatchBlocks:
    """Return the blocks that are not finished."""
    return {
        number: block
        for number, block in blocks.items()
        if load_block(locate_block_file(worker.folder, number), worker.job, block) is None
    }


def _iterate_finished(worker: BlockWorker, blocks: PatchBlocks, workers: int) -> Iterator[int]:
    """Yield the numbers of blocks as they are finished; replace killed processes."""
    unfinished = dict(blocks)
    # Finally only this process: its memory may suffice if it ran out with several.
    for processes in (*[workers] * MAX_TRIES, 1):
        try:
            for number in _run_shared(worker, _select_unfinished(worker, unfinished), processes):
                unfinished.pop(number)
                yield number
            break
        except BrokenProcessPool:
            continue
    yield from unfinished  # finished by killed processes, but not reported


def _run_shared(worker: BlockWorker, blocks: PatchBlocks, workers: int) -> Iterator[int]:
    """Yield the blocks' numbers as this process and others finish them."""
    extra_workers = min(workers, len(blocks)) - 1
    if extra_workers < 1:
        yield from worker.run_blocks(list(blocks.items()))
        return
    # Spawn, because forking a process with threads (such as a runtime's) is not safe.
    context, start_arguments = get_context("spawn"), (worker.job, worker.folder)
    with (
        ProcessPoolExecutor(extra_workers, context, _start_process, start_arguments) as pool,
        ThreadPoolExecutor(1) as own_thread,
    ):
        idle_workers: list[tuple[Executor, BlockTask]] = [
            (own_thread, worker.run_block),
            *[(pool, _run_in_process)] * extra_workers,
        ]
        running: dict[Future[int], tuple[Executor, BlockTask]] = {}
        remaining_blocks = iter(blocks.items())
        while True:
            # One block per idle worker: longer queues would leave other workers idle at the end.
            for worker_task, numbered_block in zip(idle_workers, remaining_blocks, strict=False):
                running[worker_task[0].submit(worker_task[1], *numbered_block)] = worker_task
            if not running:
                return
            done_futures = wait(running, return_when=FIRST_COMPLETED).done
            idle_workers = [running.pop(future) for future in done_futures]
            yield from (future.result() for future in done_futures)


class _ProcessState:
    """State of a worker process, open until the process ends."""

    stack = ExitStack()
    worker: BlockWorker | None = None


def _start_process(job: SlideJob, folder: Path) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    slide = _ProcessState.stack.enter_context(slide_file.open_slide(job.path, job.mpp))
    _ProcessState.worker = BlockWorker(job, slide, folder)


def _exit_with_parent() -> None:
    """End this process when its parent ends, even if the parent was killed."""
    parent = parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _run_in_process(number: int, block: tuple[GridCell, ...]) -> int:
    assert _ProcessState.worker
    return _ProcessState.worker.run_block(number, block)
