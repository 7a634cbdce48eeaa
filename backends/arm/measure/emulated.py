"""Counting what a program runs under qemu, and modelling its cycles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.backends.arm.execute.runner import Calls
from tcc.backends.arm.measure import counts, cycles, inputs, plugin
from tcc.backends.arm.measure.counts import CountedInterval, ProgramCounts
from tcc.backends.arm.measure.places import LocalPlace
from tcc.backends.arm.measure.program_facts import ProgramFacts, facts
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import LayerRunCost, Measurement, RunCost, Workload
from tcc.compiler.support import regular_files
from tcc.compiler.support.progress import Progress

MODELLED = (
    f"cycles are modelled: published times of this processor are {cycles.FACTOR} times as long, "
    f"within {cycles.SCATTER:.0%} (docs/measuring.md)"
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
    plugin.write(calls.machine, library)
    known = facts(LocalPlace(calls), calls.program)
    progress("count", 0, 1)
    place = LocalPlace(replace(calls, options=plugin.named(library, file)))
    words = inputs.written(place, source, workload, "input")
    # The program asks for the time around each layer when it profiles, and the plugin takes a
    # snapshot whenever it asks: no mark is built into the program
    # (docs/decisions/0021-measuring-without-a-board.md).
    asked = ("--profile", place.path("profile")) if known.layers else ()
    place.execute(["--quiet", *asked, "--repeat", str(RUNS), *words], RUNS, counts.MOST)
    progress("model cycles", 0, 1)
    return _CostAccount(calls, _read(calls, file), known).measurement(workload)


def _read(calls: Calls, file: Path) -> ProgramCounts:
    try:
        with regular_files.opened(file) as stream:
            return counts.read(line.decode("ascii") for line in stream)
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
        modelled = sum(count * cycles.of_block(b.code, b.instructions) for b, count in blocks)
        return RunCost(instructions, round(modelled))
