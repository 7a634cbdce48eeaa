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
from tcc.compiler.ir.measurement import Measurement, MemoryUse, RunCost, RunTimes, Workload, times
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WARM = 5
"""Runs before those that count, the first of which is told."""
LOADS = 5
"""How often a model is loaded; the first time brings the runtime itself."""
ITSELF = Path("/proc/self")
T = TypeVar("T")


def measure(
    how: str,
    file: Path,
    source: Input,
    load: Callable[[], T],
    run: Callable[[T], object],
    given: tuple[Workload, Progress],
) -> Measurement:
    """Return what it costs to load a model and run it.

    Args:
        how: What runs it.
        file: The model's file.
        source: The network's input.
        load: Gives a session, anew each time.
        run: Runs a session once.
        given: The workload, and who is told how far it is.
    """
    workload, progress = given
    before = _forget_peak()
    loading = repeated(load, LOADS, "load", progress)
    # One more time: those that were timed are gone, and their memory is not counted with this
    # one's.
    session = load()
    network = repeated(lambda: run(session), workload.runs, "time", progress)
    grown = _peak() - before if before else None
    made = _preprocessing(source, workload, progress)
    memory = MemoryUse(file.stat().st_size, peak=grown)
    cost = RunCost(times=network)
    return Measurement(how, cost, RunCost(times=loading), made, memory)


def repeated(work: Callable[[], object], count: int, what: str, progress: Progress) -> RunTimes:
    """Return the times of some work, after a few runs that warm up.

    Args:
        work: What is timed.
        count: How many runs count.
        what: What progress calls it.
        progress: Told how many runs are done.

    Returns:
        Milliseconds.
    """
    found = []
    for index in range(WARM + count):
        progress(what, index, WARM + count)
        start = time.perf_counter()
        work()
        found.append((time.perf_counter() - start) * 1e3)
    return times(found[WARM:], found[0])


def _preprocessing(source: Input, workload: Workload, progress: Progress) -> RunCost | None:
    # Preprocessing is not part of a model's file here: it is timed by itself, as the device has to
    # do it too.
    image, contract = workload.image, source.preprocess
    if image is None or contract is None:
        return None
    channels, height, width = source.type.shape

    def work() -> "NDArray[np.float32]":
        return preprocess.apply(contract, image, (channels, height, width))

    return RunCost(times=repeated(work, LOADS, "preprocess", progress))


def _forget_peak() -> int:
    """Have the system count the peak anew; return what the process has now, 0 if it cannot tell."""
    # Garbage of what ran before would be counted, or freed in between.
    gc.collect()
    with suppress(OSError):
        # 5 resets the peak of the resident memory to what it is now: proc(5), since Linux 4.0.
        (ITSELF / "clear_refs").write_text("5")
        return _peak()
    return 0


# The high-water mark of resident memory (proc(5), VmHWM): samples between runs would miss what a
# run takes and gives back.
def _peak() -> int:
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB$", (ITSELF / "status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
