"""Counting what a program runs under qemu, and modelling its cycles."""

import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import zig
from tcc.backends.arm.execute.runner import Calls
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.measure.instructions import FACTOR, SCATTER, of_block
from tcc.backends.arm.measure.places import LocalPlace, write_input
from tcc.backends.arm.measure.program_facts import ProgramFacts, facts
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import LayerRunCost, Measurement, RunCost, Workload
from tcc.compiler.support import atomic_files, regular_files, user_folders
from tcc.compiler.support.external_tools import MissingTool, Tool
from tcc.compiler.support.progress import Progress

MOST = 1 << 28
"""Bytes that the plugin may write: more marks than any network has layers."""


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Instructions that run one after another: how many, and their bytes."""

    instructions: int
    code: bytes


@dataclass(frozen=True, slots=True)
class CountedInterval:
    """How often each block ran until the program asked for the time, opened a file or ended."""

    until: str
    runs: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ProgramCounts:
    """Everything that one process ran, and the most memory in bytes that it asked for."""

    intervals: tuple[CountedInterval, ...]
    blocks: Mapping[int, CodeBlock]
    heap: int

    def together(self, intervals: Iterable[CountedInterval]) -> Mapping[int, int]:
        """Return how often each block ran in several intervals."""
        found: dict[int, int] = {}
        for interval in intervals:
            for index, count in interval.runs.items():
                found[index] = found.get(index, 0) + count
        return found

    def instructions(self, runs: Mapping[int, int]) -> int:
        """Return how many instructions that is."""
        return sum(count * self.blocks[index].instructions for index, count in runs.items())


def read(lines: Iterable[str]) -> ProgramCounts:
    """Return what the plugin's file says.

    Raises:
        ValueError: It is cut off.
    """
    intervals: list[CountedInterval] = []
    blocks: dict[int, CodeBlock] = {}
    heap, runs = None, dict[int, int]()
    for line in lines:
        match line.split():
            case ["mark", what]:
                runs = {}
                intervals.append(CountedInterval(what, runs))
            # Blocks are told once, at the end; intervals refer to them by number.
            case ["block", index, count, code]:
                blocks[int(index)] = CodeBlock(int(count), bytes.fromhex(code))
            case ["heap", count]:
                heap = int(count)
            case [index, count]:
                runs[int(index)] = int(count)
            case _:
                raise ValueError("a line is cut off")
    # Told behind the last mark: without it the program, or qemu, was ended before its end.
    if heap is None or not blocks or any(index not in blocks for index in _all(intervals)):
        raise ValueError("its end is missing")
    return ProgramCounts(tuple(intervals), blocks, heap)


def _all(intervals: Iterable[CountedInterval]) -> Iterator[int]:
    return (index for interval in intervals for index in interval.runs)


SOURCE = "count.c"
OLDEST = 6
"""The first major version of qemu whose plugins hear of system calls."""
NEW_API = 9
"""The first major version that wants the second version of its interface."""


def write(machine: Machine, path: Path) -> None:
    """Write the plugin for the qemu of a machine, compiled if it was not yet.

    What runs is never the file in the cache: it is checked first, and this copy is of what was.

    Raises:
        MissingTool: There is no qemu that takes plugins, or no zig to compile it.
        ZigError: It does not compile.
        OSError: The cache or the file cannot be written.
    """
    api = 2 if _version(machine) >= NEW_API else 1
    text = (files("tcc.backends.arm") / "measure" / SOURCE).read_bytes()
    # An old glibc's symbols alone, so that the plugin loads beside whichever qemu was built with.
    options = ("-target", f"{_processor()}-linux-gnu.2.28", f"-DAPI={api}", "-shared", "-s")
    key = sha256(repr((text, options, zig.COMPILE)).encode()).hexdigest()[:16]
    entry = zig.cache() / f"count-{key}.sealed"
    library = user_folders.read_cached(entry)
    if library is None:
        library = _compile(text, options)
        user_folders.write_cached(entry, library)
    path.write_bytes(library)


def _compile(text: bytes, options: tuple[str, ...]) -> bytes:
    with atomic_files.scratch_folder() as folder:
        (folder / SOURCE).write_bytes(text)
        zig.run(folder, "cc", *zig.COMPILE, *options, "-o", "count.so", SOURCE)
        return (folder / "count.so").read_bytes()


def named(plugin: Path, out: Path) -> tuple[str, ...]:
    """Return qemu's options that have a plugin write a file; commas end a word of theirs."""
    return ("-plugin", ",".join(str(word).replace(",", ",,") for word in (plugin, f"out={out}")))


def _processor() -> str:
    found = platform.machine()
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(found, found)


def _version(machine: Machine) -> int:
    """Return the major version of a machine's qemu.

    Raises:
        MissingTool: It is not here, is too old, or was built without plugins.
    """
    found = re.search(r"version (\d+)\.", _said(machine, "--version"))
    # A qemu without plugins says so in its list of options alone.
    if not found or int(found[1]) < OLDEST or "-plugin" not in _said(machine, "-h"):
        needed_for = "count instructions, built with plugins (Debian 12's is, Debian 13's is not)"
        raise MissingTool(Tool(machine.qemu, needed_for, None, builds=False))
    return int(found[1])


def _said(machine: Machine, option: str) -> str:
    try:
        done = subprocess.run(
            [machine.qemu, option], check=False, capture_output=True, timeout=60, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


MODELLED = (
    f"cycles are modelled: published times of this processor are {FACTOR} times as long, "
    f"within {SCATTER:.0%} (docs/measuring.md)"
)
COUNTED = "there is no cycle model of this processor, and instructions alone say little"
CLOCK, OPEN = "clock", "open"
RUNS = 2
"""Runs of the network: one to warm up, one that counts. Counts are the same each time."""


def measure(calls: Calls, source: Input, workload: Workload, progress: Progress) -> Measurement:
    """Return what a program costs: instructions, and cycles where there is a model.

    Raises:
        MissingTool: qemu, what compiles its plugin, or what reads instructions is not here.
        UserError: The program fails, or does not do what it is for (E0652).
    """
    progress("compile qemu's plugin", 0, 1)
    library, file = calls.folder / "count.so", calls.folder / "counts"
    write(calls.machine, library)
    known = facts(LocalPlace(calls), calls.program)
    progress("count", 0, 1)
    place = LocalPlace(replace(calls, options=named(library, file)))
    words = write_input(place, source, workload, "input")
    # The program asks for the time around each layer when it profiles, and the plugin takes a
    # snapshot whenever it asks: no mark is built into the program
    # (docs/decisions/0021-measuring-without-a-board.md).
    asked = ("--profile", place.path("profile")) if known.layers else ()
    place.execute(["--quiet", *asked, "--repeat", str(RUNS), *words], RUNS, MOST)
    progress("model cycles", 0, 1)
    return _CostAccount(calls, _read(calls, file), known).measurement(workload)


def _read(calls: Calls, file: Path) -> ProgramCounts:
    try:
        with regular_files.opened(file) as stream:
            return read(line.decode("ascii") for line in stream)
    except (OSError, ValueError) as error:
        raise calls.wrong("the program was not counted to its end", str(error)[:120]) from None


@dataclass(frozen=True)
class _CostAccount:
    """What a program ran, as costs."""

    calls: Calls
    counted: ProgramCounts
    known: ProgramFacts

    def measurement(self, workload: Workload) -> Measurement:
        machine, known = self.calls.machine, self.known
        before, run = self._parted()
        # The last file that was opened is the input: what came before is loading, what comes after
        # preprocessing.
        opened = max((i for i, each in enumerate(before) if each.until == OPEN), default=-1) + 1
        own = [
            LayerRunCost(name, kernel, self._cost([each]))
            for (name, kernel), each in zip(known.layers, run[1:], strict=False)
        ]
        made = self._preprocessing(before[opened:]) if workload.image is not None else None
        # Loaded parts and heap; the stack is not counted.
        peak = known.memory.program and known.memory.program + self.counted.heap
        return Measurement(
            how=f"{machine.qemu}, one thread",
            network=self._cost(run),
            load=self._cost(before[:opened]),
            preprocess=made,
            memory=replace(known.memory, peak=peak),
            layers=tuple(own),
            caution=MODELLED if machine.modelled else COUNTED,
        )

    def _parted(self) -> tuple[Sequence[CountedInterval], Sequence[CountedInterval]]:
        """Return what ran before the first run of the network, and the parts of the last one.

        The program asks for the time before and after each run and, where its layers are wanted,
        before the first of them and after every one.
        """
        found = self.counted.intervals
        parts = len(self.known.layers) + 2 if self.known.layers else 1
        asked = [i for i, each in enumerate(found) if each.until == CLOCK]
        if len(asked) < RUNS * (parts + 1):
            raise self.calls.wrong("the program does not say when each layer ends")
        # From the end, since how often the time is asked before the runs is the runner's own
        # affair.
        first, last = asked[-RUNS * (parts + 1)], asked[-parts - 1]
        return found[: first + 1], [found[i] for i in range(last + 1, asked[-1] + 1)]

    def _preprocessing(self, intervals: Sequence[CountedInterval]) -> RunCost:
        """Return what lies between two questions for the time after the input was opened."""
        asked = [i for i, each in enumerate(intervals) if each.until == CLOCK]
        own = intervals[asked[-3] + 1 : asked[-2] + 1] if len(asked) > 2 else intervals
        return self._cost(own)

    def _cost(self, intervals: Sequence[CountedInterval]) -> RunCost:
        runs = self.counted.together(intervals)
        instructions = self.counted.instructions(runs)
        if not self.calls.machine.modelled:
            return RunCost(instructions)
        blocks = ((self.counted.blocks[index], count) for index, count in runs.items())
        modelled = sum(count * of_block(b.code, b.instructions) for b, count in blocks)
        return RunCost(instructions, round(modelled))
