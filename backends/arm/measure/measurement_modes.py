"""Measures a program: timed where it runs natively or on a board, otherwise counted in qemu."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.codegen import runner_signature
from tcc.backends.arm.execute.runner import RunnerProcess, find_program
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.measure import emulated
from tcc.backends.arm.measure.program_facts import ProgramFacts, read_facts
from tcc.backends.arm.measure.program_hosts import BoardHost, LocalHost, ProgramHost, write_input
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import (
    BoardTask,
    LayerRunCost,
    Measurement,
    RunCost,
    RunTimes,
    Workload,
    summarize_times,
)
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from tcc.backends.arm.execute.runner import Outputs


WARM_UP_RUNS = 5
"""Runs before the measured ones."""
MAX_PROFILED_RUNS = 20
"""Largest number of runs with layer times."""
MAX_MILLISECONDS = 1e9
"""Times in milliseconds above this are not plausible."""
PROFILE_HEADER_LINES = 2
"""Lines of a profile before the layers' lines."""
MAX_LINE_BYTES = 512
"""Largest average length of a profile's lines in bytes."""


def measure(
    host: ProgramHost,
    program_facts: ProgramFacts,
    network_input: Input,
    workload: Workload,
    progress: Progress,
) -> Measurement:
    """Return the measured costs of a program: times of runs, then of layers in further runs.

    Raises:
        UserError: The program fails or misbehaves (E0652).
    """
    progress("time", 0, 2)
    input_arguments = write_input(host, network_input, workload, "input")
    count = WARM_UP_RUNS + workload.runs
    threads = f"{workload.threads} threads" if workload.threads > 1 else "one thread"
    base_options = ("--quiet", "--threads", str(workload.threads))
    # Runs and layers in two processes: reading the clock around each layer would add to the times
    # of runs.
    time_options = ("--repeat", str(count), "--times", host.get_path("times"))
    peak = host.execute([*base_options, *time_options, *input_arguments], count, 8 * count).peak
    # The program writes all times: medians and quartiles are always computed here.
    content = host.read_file("times", 8 * count + 1)
    run_times = np.frombuffer(content, "<f8").tolist() if len(content) == 8 * count else []
    if not run_times or not _is_plausible(run_times):
        raise host.create_error("the program did not write the times of its runs")
    progress("time", 1, 2)
    profile = _profile(
        host,
        program_facts,
        [*base_options, *input_arguments],
        min(MAX_PROFILED_RUNS, workload.runs),
    )
    progress("time", 2, 2)
    image = workload.image is not None
    return Measurement(
        how=f"{host.description}, {threads}",
        network=RunCost(times=_summarize_runs(run_times)),
        load=_create_single_run_cost(profile[0]),
        preprocess=_create_single_run_cost(profile[1]) if image else None,
        memory=replace(program_facts.memory, peak=peak or None),
        layers=_build_layer_costs(program_facts, profile[PROFILE_HEADER_LINES:]),
    )


def _is_plausible(milliseconds: Sequence[float]) -> bool:
    """Whether a program's values can be times in milliseconds."""
    return all(0 <= duration < MAX_MILLISECONDS for duration in milliseconds)


def _summarize_runs(run_times: Sequence[float]) -> RunTimes:
    return summarize_times(list(run_times[WARM_UP_RUNS:]), run_times[0])


def _create_single_run_cost(milliseconds: float) -> RunCost:
    return RunCost(times=summarize_times([milliseconds], milliseconds))


def _profile(
    host: ProgramHost, program_facts: ProgramFacts, arguments: Sequence[str], runs: int
) -> list[float]:
    """Return milliseconds: of creation and preprocessing, then of each layer in each run."""
    count, width = WARM_UP_RUNS + runs, len(program_facts.layers)
    profile_options = ("--repeat", str(count), "--profile", host.get_path("profile"))
    max_bytes = MAX_LINE_BYTES * (PROFILE_HEADER_LINES + count * width)
    host.execute([*profile_options, *arguments], count, max_bytes)
    lines = host.read_file("profile", max_bytes).decode(errors="replace").splitlines()
    try:
        milliseconds = [parse_float(line.rsplit("\t", 1)[1]) / 1e6 for line in lines]
    except (ValueError, IndexError):
        milliseconds = []
    if len(milliseconds) != PROFILE_HEADER_LINES + count * width or not _is_plausible(milliseconds):
        raise host.create_error("the program did not write the times of its layers")
    return milliseconds


def _build_layer_costs(
    program_facts: ProgramFacts, milliseconds: Sequence[float]
) -> tuple[LayerRunCost, ...]:
    width = len(program_facts.layers)
    return tuple(
        LayerRunCost(name, kernel, RunCost(times=_summarize_runs(milliseconds[index::width])))
        for index, (name, kernel) in enumerate(program_facts.layers)
    )


def run_cases(
    host: ProgramHost,
    program_facts: ProgramFacts,
    network_input: Input,
    cases: Sequence[Workload],
    progress: Progress,
) -> "list[Outputs]":
    """Return the raw outputs for each case.

    Raises:
        UserError: The program fails, or its output has another size (E0652).
    """
    shapes = program_facts.outputs
    sizes = [prod(shape) for shape in shapes.values()]
    case_outputs = []
    for number, case in enumerate(cases):
        progress("goldens", number, len(cases))
        input_arguments = write_input(host, network_input, case, f"golden {number}")
        host.execute(
            ["--quiet", "--raw", host.get_path("raw"), *input_arguments], 1, 4 * sum(sizes)
        )
        content = host.read_file("raw", 4 * sum(sizes) + 1)
        if len(content) != 4 * sum(sizes):
            raise host.create_error(
                "the size of the program's raw outputs is wrong",
                f"{len(content):,} bytes instead of {4 * sum(sizes):,}",
            )
        floats = np.frombuffer(content, "<f4").astype(np.float32)
        parts = np.split(floats, np.cumsum(sizes)[:-1])
        named_parts = zip(shapes.items(), parts, strict=True)
        case_outputs.append({name: part.reshape(shape) for (name, shape), part in named_parts})
    return case_outputs


def measure_locally(
    machine: Machine, folder: Path, network_input: Input, workload: Workload, progress: Progress
) -> Measurement:
    """Return the cost of the program in a folder: timed if it runs natively, else counted.

    Raises:
        MissingTool: A tool for counting is not installed.
        UserError: The program fails (E0652), or would be counted on several threads (E0601).
    """
    program = find_program(folder)
    with atomic_files.create_scratch_folder() as scratch:
        process = RunnerProcess(machine, program, scratch)
        if machine.native:
            host = LocalHost(process)
            return measure(host, read_facts(host, program), network_input, workload, progress)
        # With several threads, instruction counts depend on the emulator's scheduling.
        if workload.threads != 1:
            message = (
                f"instructions of {machine.target.name} programs are counted on one thread only, "
                f"not on {workload.threads}"
            )
            at = make_file_span("command line: --threads")
            raise fail("E0601", message, at, help="use `--threads 1`")
        return emulated.measure(process, network_input, workload, progress)


def measure_on_board(
    folder: Path, network_input: Input, task: BoardTask, progress: Progress
) -> "tuple[Measurement, list[Outputs]]":
    """Return the cost of the program in a folder on a board, and its outputs for each case.

    Raises:
        UserError: A command on the board fails (E0658), or the program fails (E0652).
    """
    program = find_program(folder)
    progress("copy", 0, 1)
    with regular_files.open_file(program) as file:
        remote_program = task.board.send(program.name, file.read(), executable=True)
    signature = runner_signature.find(folder)
    if signature and (folder / signature.file).exists():
        with regular_files.open_file(folder / signature.file) as file:
            task.board.send(signature.file, file.read())
    host = BoardHost(task.board, program, remote_program)
    program_facts = read_facts(host, program)
    measurement = measure(host, program_facts, network_input, task.workload, progress)
    return measurement, run_cases(host, program_facts, network_input, task.cases, progress)
