"""Counts a program's instructions in qemu, and models its cycles."""

import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import zig
from tcc.backends.arm.execute.runner import RunnerProcess
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.measure.instructions import MEASURED_FACTOR, MEASURED_SCATTER, estimate_cycles
from tcc.backends.arm.measure.program_facts import ProgramFacts, read_facts
from tcc.backends.arm.measure.program_hosts import LocalHost, write_input
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import LayerRunCost, Measurement, RunCost, Workload
from tcc.compiler.support import atomic_files, regular_files, user_folders
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.progress import Progress

MAX_PLUGIN_BYTES = 1 << 28
"""Largest size of the plugin's file in bytes: enough for any network's layers."""


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A block of consecutive instructions: their count, and their bytes."""

    instructions: int
    code: bytes


@dataclass(frozen=True, slots=True)
class CountedInterval:
    """The runs of each block up to an event: the program read the clock, opened a file or ended."""

    end_event: str
    runs: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ProgramCounts:
    """All counts of one process, and its peak heap size in bytes."""

    intervals: tuple[CountedInterval, ...]
    blocks: Mapping[int, CodeBlock]
    heap_bytes: int

    def sum_runs(self, intervals: Iterable[CountedInterval]) -> Mapping[int, int]:
        """Return the number of runs of each block over several intervals."""
        runs: dict[int, int] = {}
        for interval in intervals:
            for index, count in interval.runs.items():
                runs[index] = runs.get(index, 0) + count
        return runs

    def count_instructions(self, runs: Mapping[int, int]) -> int:
        """Return the number of instructions of these runs."""
        return sum(count * self.blocks[index].instructions for index, count in runs.items())


def parse_counts(lines: Iterable[str]) -> ProgramCounts:
    """Return the counts from the plugin's file.

    Raises:
        ValueError: The file is truncated.
    """
    intervals: list[CountedInterval] = []
    blocks: dict[int, CodeBlock] = {}
    heap, runs = None, dict[int, int]()
    for line in lines:
        match line.split():
            case ["mark", event]:
                runs = {}
                intervals.append(CountedInterval(event, runs))
            # Blocks come once, at the end of the file; intervals refer to them by number.
            case ["block", index, count, code]:
                blocks[int(index)] = CodeBlock(int(count), bytes.fromhex(code))
            case ["heap", count]:
                heap = int(count)
            case [index, count]:
                runs[int(index)] = int(count)
            case _:
                raise ValueError("a line is truncated")
    # The heap comes after the last mark: without it the program, or qemu, was stopped early.
    if (
        heap is None
        or not blocks
        or any(index not in blocks for index in _iterate_block_indices(intervals))
    ):
        raise ValueError("its last lines are missing")
    return ProgramCounts(tuple(intervals), blocks, heap)


def _iterate_block_indices(intervals: Iterable[CountedInterval]) -> Iterator[int]:
    return (index for interval in intervals for index in interval.runs)


PLUGIN_SOURCE = "count.c"
MIN_QEMU_VERSION = 6
"""The first major version of qemu whose plugins receive system calls."""
MIN_API_2_VERSION = 9
"""The first major version of qemu that needs version 2 of the plugin interface."""


def write_plugin(machine: Machine, path: Path) -> None:
    """Write the plugin for a machine's qemu, compiled or from the cache.

    The cached file itself is never run: its checksum is verified, and this copy is run.

    Raises:
        MissingTool: There is no qemu with plugins, or no zig to compile the plugin.
        ZigError: The plugin does not compile.
        OSError: The cache or the file cannot be written.
    """
    api = 2 if _get_qemu_version(machine) >= MIN_API_2_VERSION else 1
    text = (files("tcc.backends.arm") / "measure" / PLUGIN_SOURCE).read_bytes()
    # Only symbols of an old glibc, so that the plugin loads into any build of qemu.
    options = ("-target", f"{_get_processor()}-linux-gnu.2.28", f"-DAPI={api}", "-shared", "-s")
    key = sha256(repr((text, options, zig.COMPILE_OPTIONS)).encode()).hexdigest()[:16]
    cache_path = zig.get_cache_folder() / f"count-{key}.sealed"
    library = user_folders.read_cached(cache_path)
    if library is None:
        library = _compile(text, options)
        user_folders.write_cached(cache_path, library)
    path.write_bytes(library)


def _compile(text: bytes, options: tuple[str, ...]) -> bytes:
    with atomic_files.create_scratch_folder() as folder:
        (folder / PLUGIN_SOURCE).write_bytes(text)
        zig.run(folder, "cc", *zig.COMPILE_OPTIONS, *options, "-o", "count.so", PLUGIN_SOURCE)
        return (folder / "count.so").read_bytes()


def build_plugin_options(plugin: Path, out: Path) -> tuple[str, ...]:
    """Return qemu's options to load the plugin with its output file; commas are doubled."""
    return (
        "-plugin",
        ",".join(str(option).replace(",", ",,") for option in (plugin, f"out={out}")),
    )


def _get_processor() -> str:
    processor = platform.machine()
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(processor, processor)


def _get_qemu_version(machine: Machine) -> int:
    """Return the major version of a machine's qemu.

    Raises:
        MissingTool: qemu is not installed, is too old, or was built without plugins.
    """
    version_match = re.search(r"version (\d+)\.", _read_output(machine, "--version"))
    # Only the list of options shows whether qemu has plugins.
    if (
        not version_match
        or int(version_match[1]) < MIN_QEMU_VERSION
        or "-plugin" not in _read_output(machine, "-h")
    ):
        needed_for = (
            f"count instructions, version {MIN_QEMU_VERSION} or newer built with plugins "
            "(Debian 12's is, Debian 13's is not)"
        )
        raise MissingTool(Tool(machine.qemu, needed_for, None, builds=False))
    return int(version_match[1])


def _read_output(machine: Machine, option: str) -> str:
    try:
        completed = subprocess.run(
            [machine.qemu, option], check=False, capture_output=True, timeout=60, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout


MODELLED_CAUTION = (
    f"cycles are modelled: published times of this processor are {MEASURED_FACTOR} times as long, "
    f"within {MEASURED_SCATTER:.0%} (docs/measuring.md)"
)
UNMODELLED_CAUTION = (
    "there is no cycle model of this processor; instruction counts alone do not predict its time"
)
CLOCK_EVENT, OPEN_EVENT = "clock", "open"
NETWORK_RUNS = 2
"""Runs of the network: one to warm up, one that is counted. Every run has the same counts."""


def measure(
    process: RunnerProcess, network_input: Input, workload: Workload, progress: Progress
) -> Measurement:
    """Return the costs of a program: instructions, and cycles if there is a cycle model.

    Raises:
        MissingTool: qemu, zig for its plugin, or the disassembler is not installed.
        UserError: The program fails or misbehaves (E0652).
    """
    progress("compile qemu's plugin", 0, 1)
    library, file = process.folder / "count.so", process.folder / "counts"
    write_plugin(process.machine, library)
    program_facts = read_facts(LocalHost(process), process.program)
    progress("count", 0, 1)
    host = LocalHost(replace(process, options=build_plugin_options(library, file)))
    input_arguments = write_input(host, network_input, workload, "input")
    # A profiling program reads the clock around each layer, and the plugin takes a snapshot at
    # each of these calls: the program needs no marks
    # (docs/decisions/0021-measuring-without-a-board.md).
    profile_options = ("--profile", host.get_path("profile")) if program_facts.layers else ()
    host.execute(
        ["--quiet", *profile_options, "--repeat", str(NETWORK_RUNS), *input_arguments],
        NETWORK_RUNS,
        MAX_PLUGIN_BYTES,
    )
    progress("model cycles", 0, 1)
    return _CostAccount(process, _read_counts(process, file), program_facts).build_measurement(
        workload
    )


def _read_counts(process: RunnerProcess, file: Path) -> ProgramCounts:
    try:
        with regular_files.open_file(file) as stream:
            return parse_counts(line.decode("ascii") for line in stream)
    except (OSError, ValueError) as error:
        raise process.create_error(
            "the instruction counts of the program are incomplete", str(error)[:120]
        ) from None


@dataclass(frozen=True)
class _CostAccount:
    """Computes costs from the counts of a program."""

    process: RunnerProcess
    counts: ProgramCounts
    program_facts: ProgramFacts

    def build_measurement(self, workload: Workload) -> Measurement:
        machine, program_facts = self.process.machine, self.program_facts
        setup_intervals, run_intervals = self._split_intervals()
        # The last file that was opened is the input: loading comes before it, preprocessing after.
        load_end = (
            max(
                (
                    i
                    for i, interval in enumerate(setup_intervals)
                    if interval.end_event == OPEN_EVENT
                ),
                default=-1,
            )
            + 1
        )
        layer_costs = [
            LayerRunCost(name, kernel, self._compute_cost([interval]))
            for (name, kernel), interval in zip(
                program_facts.layers, run_intervals[1:], strict=False
            )
        ]
        preprocess_cost = (
            self._compute_preprocess_cost(setup_intervals[load_end:])
            if workload.image is not None
            else None
        )
        # Loaded segments and heap; the stack is not counted.
        peak_bytes = (
            program_facts.memory.program and program_facts.memory.program + self.counts.heap_bytes
        )
        return Measurement(
            how=f"{machine.qemu}, one thread",
            network=self._compute_cost(run_intervals),
            load=self._compute_cost(setup_intervals[:load_end]),
            preprocess=preprocess_cost,
            memory=replace(program_facts.memory, peak=peak_bytes),
            layers=tuple(layer_costs),
            caution=MODELLED_CAUTION if machine.has_cycle_model else UNMODELLED_CAUTION,
        )

    def _split_intervals(self) -> tuple[Sequence[CountedInterval], Sequence[CountedInterval]]:
        """Return the intervals before the first run of the network, and those of the last run.

        The program reads the clock before and after each run and, if it profiles layers, also
        before the first layer and after every layer.
        """
        intervals = self.counts.intervals
        reads_per_run = len(self.program_facts.layers) + 2 if self.program_facts.layers else 1
        clock_reads = [
            i for i, interval in enumerate(intervals) if interval.end_event == CLOCK_EVENT
        ]
        if len(clock_reads) < NETWORK_RUNS * (reads_per_run + 1):
            raise self.process.create_error("the program does not report when each layer ends")
        # Count from the end: the runner may read the clock any number of times before the runs.
        first_run_start, last_run_start = (
            clock_reads[-NETWORK_RUNS * (reads_per_run + 1)],
            clock_reads[-reads_per_run - 1],
        )
        return intervals[: first_run_start + 1], [
            intervals[i] for i in range(last_run_start + 1, clock_reads[-1] + 1)
        ]

    def _compute_preprocess_cost(self, intervals: Sequence[CountedInterval]) -> RunCost:
        """Return the cost between two clock reads after the input was opened."""
        clock_reads = [
            i for i, interval in enumerate(intervals) if interval.end_event == CLOCK_EVENT
        ]
        preprocess_intervals = (
            intervals[clock_reads[-3] + 1 : clock_reads[-2] + 1]
            if len(clock_reads) > 2
            else intervals
        )
        return self._compute_cost(preprocess_intervals)

    def _compute_cost(self, intervals: Sequence[CountedInterval]) -> RunCost:
        runs = self.counts.sum_runs(intervals)
        instructions = self.counts.count_instructions(runs)
        if not self.process.machine.has_cycle_model:
            return RunCost(instructions)
        blocks = ((self.counts.blocks[index], count) for index, count in runs.items())
        modelled = sum(count * estimate_cycles(b.code, b.instructions) for b, count in blocks)
        return RunCost(instructions, round(modelled))
