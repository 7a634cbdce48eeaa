"""Measuring a runtime that works in this process: its time, and by how much the process grows."""

import gc
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import (
    Measurement,
    MemoryUse,
    RunCost,
    RunTimes,
    Workload,
    summarize_times,
)
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WARMUP_RUNS = 5
"""Runs before those that count, the first of which is told."""
LOAD_RUNS = 5
"""How often a model is loaded; the first time brings the runtime itself."""
PROC_FOLDER = Path("/proc/self")
T = TypeVar("T")


def measure(
    runtime: str,
    file: Path,
    source: Input,
    load: Callable[[], T],
    run: Callable[[T], object],
    task: tuple[Workload, Progress],
) -> Measurement:
    """Return what it costs to load a model and run it.

    Args:
        runtime: What runs it.
        file: The model's file.
        source: The network's input.
        load: Gives a session, anew each time.
        run: Runs a session once.
        task: The workload, and who is told how far it is.
    """
    workload, progress = task
    start_bytes = _reset_peak()
    loading = measure_times(load, LOAD_RUNS, "load", progress)
    # One more time: those that were timed are gone, and their memory is not counted with this
    # one's.
    session = load()
    network = measure_times(lambda: run(session), workload.runs, "time", progress)
    growth = _read_peak() - start_bytes if start_bytes else None
    preprocessing = _measure_preprocessing(source, workload, progress)
    memory = MemoryUse(file.stat().st_size, peak=growth)
    cost = RunCost(times=network)
    return Measurement(runtime, cost, RunCost(times=loading), preprocessing, memory)


def measure_times(
    work: Callable[[], object], count: int, stage: str, progress: Progress
) -> RunTimes:
    """Return the times of some work, after a few runs that warm up.

    Args:
        work: What is timed.
        count: How many runs count.
        stage: What progress calls it.
        progress: Told how many runs are done.

    Returns:
        Milliseconds.
    """
    milliseconds = []
    for index in range(WARMUP_RUNS + count):
        progress(stage, index, WARMUP_RUNS + count)
        start = time.perf_counter()
        work()
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return summarize_times(milliseconds[WARMUP_RUNS:], milliseconds[0])


def _measure_preprocessing(source: Input, workload: Workload, progress: Progress) -> RunCost | None:
    # Preprocessing is not part of a model's file here: it is timed by itself, as the device has to
    # do it too.
    image, contract = workload.image, source.preprocess
    if image is None or contract is None:
        return None
    channels, height, width = source.type.shape

    def run_preprocessing() -> "NDArray[np.float32]":
        return preprocess.apply(contract, image, (channels, height, width))

    return RunCost(times=measure_times(run_preprocessing, LOAD_RUNS, "preprocess", progress))


def _reset_peak() -> int:
    """Have the system count the peak anew; return what the process has now, 0 if it cannot tell."""
    # Garbage of what ran before would be counted, or freed in between.
    gc.collect()
    with suppress(OSError):
        # 5 resets the peak of the resident memory to what it is now: proc(5), since Linux 4.0.
        (PROC_FOLDER / "clear_refs").write_text("5")
        return _read_peak()
    return 0


# The high-water mark of resident memory (proc(5), VmHWM): samples between runs would miss what a
# run takes and gives back.
def _read_peak() -> int:
    with suppress(OSError):
        peak_match = re.search(
            r"^VmHWM:\s*(\d+) kB$", (PROC_FOLDER / "status").read_text(), re.MULTILINE
        )
        return int(peak_match[1]) * 1024 if peak_match else 0
    return 0
