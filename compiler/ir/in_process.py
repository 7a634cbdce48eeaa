"""Measure a runtime in this process: its time, and the growth of the process's memory."""

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
"""Runs before the timed ones; the first of them is reported separately."""
LOAD_RUNS = 5
"""How often a model is loaded; the first time loads the runtime itself."""
PROC_FOLDER = Path("/proc/self")
T = TypeVar("T")


def measure(
    runtime: str,
    file: Path,
    network_input: Input,
    load: Callable[[], T],
    run: Callable[[T], object],
    task: tuple[Workload, Progress],
) -> Measurement:
    """Return the costs of loading a model and running it.

    Args:
        runtime: The name of the runtime.
        file: The model's file.
        network_input: The network's input.
        load: Returns a new session each time.
        run: Runs a session once.
        task: The workload, and the receiver of progress.
    """
    workload, progress = task
    start_bytes = _reset_peak()
    loading = measure_times(load, LOAD_RUNS, "load", progress)
    # Load once more: the timed sessions are freed, so that only this one's memory counts.
    session = load()
    network = measure_times(lambda: run(session), workload.runs, "time", progress)
    growth = _read_peak() - start_bytes if start_bytes else None
    preprocessing = _measure_preprocessing(network_input, workload, progress)
    memory = MemoryUse(file.stat().st_size, peak=growth)
    cost = RunCost(times=network)
    return Measurement(runtime, cost, RunCost(times=loading), preprocessing, memory)


def measure_times(
    work: Callable[[], object], count: int, stage: str, progress: Progress
) -> RunTimes:
    """Return the times of some work, after a few warm-up runs.

    Args:
        work: The function to time.
        count: The number of timed runs.
        stage: The stage's name for progress.
        progress: Receives how many runs are done.

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


def _measure_preprocessing(
    network_input: Input, workload: Workload, progress: Progress
) -> RunCost | None:
    # Here, preprocessing is not part of the model's file: it is timed separately, because the
    # device has to do it too.
    image, contract = workload.image, network_input.preprocess
    if image is None or contract is None:
        return None
    channels, height, width = network_input.type.shape

    def run_preprocessing() -> "NDArray[np.float32]":
        return preprocess.apply(contract, image, (channels, height, width))

    return RunCost(times=measure_times(run_preprocessing, LOAD_RUNS, "preprocess", progress))


def _reset_peak() -> int:
    """Reset the system's peak of memory; return the current memory in bytes, 0 if unknown."""
    # Garbage from before would be counted, or freed in between.
    gc.collect()
    with suppress(OSError):
        # 5 resets the peak of resident memory to the current value: proc(5), since Linux 4.0.
        (PROC_FOLDER / "clear_refs").write_text("5")
        return _read_peak()
    return 0


# The high-water mark of resident memory (proc(5), VmHWM): sampling between runs would miss memory
# that a run frees again.
def _read_peak() -> int:
    with suppress(OSError):
        peak_match = re.search(
            r"^VmHWM:\s*(\d+) kB$", (PROC_FOLDER / "status").read_text(), re.MULTILINE
        )
        return int(peak_match[1]) * 1024 if peak_match else 0
    return 0
