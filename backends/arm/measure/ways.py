"""The ways to measure a program, by the machine that it is for: timed, or counted in qemu."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.codegen import runner_signature
from tcc.backends.arm.execute.runner import Calls, program_file
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.measure import emulated
from tcc.backends.arm.measure.places import BoardPlace, LocalPlace, ProgramPlace, write_input
from tcc.backends.arm.measure.program_facts import ProgramFacts, facts
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import (
    BoardTask,
    LayerRunCost,
    Measurement,
    RunCost,
    RunTimes,
    Workload,
    times,
)
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from tcc.backends.arm.execute.runner import Outputs


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
    words = write_input(place, source, workload, "input")
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


def outputs(
    place: ProgramPlace,
    known: ProgramFacts,
    source: Input,
    cases: Sequence[Workload],
    progress: Progress,
) -> "list[Outputs]":
    """Return the raw outputs for each case.

    Raises:
        UserError: The program fails, or writes something else (E0652).
    """
    shapes = known.outputs
    sizes = [prod(shape) for shape in shapes.values()]
    found = []
    for number, case in enumerate(cases):
        progress("goldens", number, len(cases))
        words = write_input(place, source, case, f"golden {number}")
        place.execute(["--quiet", "--raw", place.path("raw"), *words], 1, 4 * sum(sizes))
        data = place.read("raw", 4 * sum(sizes) + 1)
        if len(data) != 4 * sum(sizes):
            raise place.wrong("the program wrote raw outputs of another size")
        values = np.frombuffer(data, "<f4").astype(np.float32)
        parts = np.split(values, np.cumsum(sizes)[:-1])
        named = zip(shapes.items(), parts, strict=True)
        found.append({name: part.reshape(shape) for (name, shape), part in named})
    return found


def here(
    machine: Machine, folder: Path, source: Input, workload: Workload, progress: Progress
) -> Measurement:
    """Return what the program in a folder costs: timed where it runs by itself, or else counted.

    Raises:
        MissingTool: What counts is not here.
        UserError: The program fails (E0652), or is counted, and on more threads than one (E0601).
    """
    program = program_file(folder)
    with atomic_files.scratch_folder() as scratch:
        calls = Calls(machine, program, scratch)
        if machine.native:
            place = LocalPlace(calls)
            return measure(place, facts(place, program), source, workload, progress)
        # Instructions of threads that wait for each other depend on the emulator's scheduling.
        if workload.threads != 1:
            message = f"{machine.target.name} is counted here, and that on one thread"
            raise fail("E0601", message, whole_file("command line: --threads"))
        return emulated.measure(calls, source, workload, progress)


def there(
    folder: Path, source: Input, task: BoardTask, progress: Progress
) -> "tuple[Measurement, list[Outputs]]":
    """Return what the program in a folder costs on a board, and what it gives for each case.

    Raises:
        UserError: The board does not do what it is asked (E0658), or the program fails (E0652).
    """
    program = program_file(folder)
    progress("copy", 0, 1)
    with regular_files.opened(program) as file:
        copied = task.board.put(program.name, file.read(), executable=True)
    signature = runner_signature.find(folder)
    if signature and (folder / signature.file).exists():
        with regular_files.opened(folder / signature.file) as file:
            task.board.put(signature.file, file.read())
    place = BoardPlace(task.board, program, copied)
    known = facts(place, program)
    found = measure(place, known, source, task.workload, progress)
    return found, outputs(place, known, source, task.cases, progress)
