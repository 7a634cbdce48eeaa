"""Timing a program where it runs by itself: on this machine, or on a board."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tcc.backends.arm.measure import inputs
from tcc.backends.arm.measure.places import ProgramPlace
from tcc.backends.arm.measure.program_facts import ProgramFacts
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import (
    LayerRunCost,
    Measurement,
    RunCost,
    RunTimes,
    Workload,
    times,
)
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.progress import Progress

WARM = 5
"""Runs before those that count."""
PROFILED = 20
"""Most runs whose layers are timed."""
LONGEST = 1e9
"""Milliseconds that nothing takes."""
BEFORE = 2
"""Lines of a profile before those of layers."""
LINE = 512
"""Bytes of a line of a profile, on the average, at most."""


def measure(
    place: ProgramPlace, known: ProgramFacts, source: Input, workload: Workload, progress: Progress
) -> Measurement:
    """Return what a program costs: the time of each run, and of each layer in further runs.

    Raises:
        UserError: The program fails, or does not do what it is for (E0652).
    """
    progress("time", 0, 2)
    words = inputs.written(place, source, workload, "input")
    count = WARM + workload.runs
    threads = f"{workload.threads} threads" if workload.threads > 1 else "one thread"
    asked = ("--quiet", "--threads", str(workload.threads))
    # Whole runs and layers in two processes: asking for the time around each layer would be part of
    # the runs' times.
    whole = ("--repeat", str(count), "--times", place.path("times"))
    peak = place.execute([*asked, *whole, *words], count, 8 * count).peak
    # The program writes numbers, not averages: medians and quartiles are taken in one place for
    # all.
    data = place.read("times", 8 * count + 1)
    taken = np.frombuffer(data, "<f8").tolist() if len(data) == 8 * count else []
    if not taken or not _are_times(taken):
        raise place.wrong("the program did not write the times of its runs")
    progress("time", 1, 2)
    profile = _profile(place, known, [*asked, *words], min(PROFILED, workload.runs))
    progress("time", 2, 2)
    image = workload.image is not None
    return Measurement(
        how=f"{place.how}, {threads}",
        network=RunCost(times=_kept(taken)),
        load=_once(profile[0]),
        preprocess=_once(profile[1]) if image else None,
        memory=replace(known.memory, peak=peak or None),
        layers=_layers(known, profile[BEFORE:]),
    )


def _are_times(found: Sequence[float]) -> bool:
    """Whether numbers that a program wrote can be milliseconds."""
    return all(0 <= each < LONGEST for each in found)


def _kept(taken: Sequence[float]) -> RunTimes:
    return times(list(taken[WARM:]), taken[0])


def _once(milliseconds: float) -> RunCost:
    return RunCost(times=times([milliseconds], milliseconds))


def _profile(
    place: ProgramPlace, known: ProgramFacts, words: Sequence[str], runs: int
) -> list[float]:
    """Return milliseconds: of creating and preprocessing, then of each layer in each run."""
    count, width = WARM + runs, len(known.layers)
    whole = ("--repeat", str(count), "--profile", place.path("profile"))
    most = LINE * (BEFORE + count * width)
    place.execute([*whole, *words], count, most)
    lines = place.read("profile", most).decode(errors="replace").splitlines()
    try:
        found = [parse_float(line.rsplit("\t", 1)[1]) / 1e6 for line in lines]
    except (ValueError, IndexError):
        found = []
    if len(found) != BEFORE + count * width or not _are_times(found):
        raise place.wrong("the program did not write the times of its layers")
    return found


def _layers(known: ProgramFacts, taken: Sequence[float]) -> tuple[LayerRunCost, ...]:
    width = len(known.layers)
    return tuple(
        LayerRunCost(name, kernel, RunCost(times=_kept(taken[index::width])))
        for index, (name, kernel) in enumerate(known.layers)
    )
