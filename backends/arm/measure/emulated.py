"""Counting what a program runs under qemu, and modelling its cycles."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.backends.arm.execute.runner import Calls
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.measure import counts, cycles, inputs, plugin
from tcc.backends.arm.measure.counts import CountedInterval, ProgramCounts
from tcc.backends.arm.measure.program_facts import ProgramFacts, facts
from tcc.compiler.ir.measurement import LayerRunCost, Measurement, RunCost, Workload
from tcc.compiler.support import regular_files, scratch_folders
from tcc.compiler.support.progress import Progress, silent

MODELLED = (
    f"cycles are modelled: published times of this processor are {cycles.FACTOR} times as long, "
    f"within {cycles.SCATTER:.0%} (docs/measuring.md)"
)
COUNTED = "there is no cycle model of this processor, and instructions alone say little"
CLOCK, OPEN = "clock", "open"
RUNS = 2
"""Runs of the network: one to warm up, one that counts. ProgramCounts are the same each time."""


def measure(
    machine: Machine, program: Path, workload: Workload, progress: Progress = silent
) -> Measurement:
    """Return what a program costs: instructions, and cycles where there is a model.

    Raises:
        MissingTool: qemu, what compiles its plugin, or what reads instructions is not here.
        UserError: The program fails, or does not do what it is for (E0652).
    """
    with scratch_folders.folder() as folder:
        progress("compile qemu's plugin", 0, 1)
        calls = Calls(machine, program, folder)
        library, file = plugin.built(machine), folder / "counts"
        known = facts(calls)
        progress("count", 0, 1)
        counting = replace(calls, options=plugin.named(library, file))
        words = inputs.written(folder, workload)
        asked = ("--profile", str(folder / "profile")) if known.layers else ()
        counting.execute(
            "--quiet", *asked, "--repeat", str(RUNS), *words, inputs=RUNS, written=counts.MOST
        )
        progress("model cycles", 0, 1)
        return _CostAccount(calls, _read(calls, file)).measurement(known, workload)


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

    def measurement(self, known: ProgramFacts, workload: Workload) -> Measurement:
        machine = self.calls.machine
        before, runs = self._parted(max(1, len(known.layers)))
        opened = max((i for i, each in enumerate(before) if each.until == OPEN), default=-1) + 1
        own = [
            LayerRunCost(name, kernel, self._cost([run]))
            for (name, kernel), run in zip(known.layers, runs, strict=False)
        ]
        image = workload.image is not None
        peak = known.memory.program and known.memory.program + self.counted.heap
        return Measurement(
            how=f"{machine.qemu}, one thread",
            network=self._cost(runs),
            load=self._cost(before[:opened]),
            preprocess=self._cost(before[opened:]) if image else None,
            memory=replace(known.memory, peak=peak),
            layers=tuple(own),
            caution=MODELLED if machine.modelled else COUNTED,
        )

    def _parted(self, layers: int) -> tuple[Sequence[CountedInterval], Sequence[CountedInterval]]:
        """Return what ran before the first run of the network, and the layers of the last one.

        The program asks for the time before the first layer of each run and after every one.
        """
        found = self.counted.intervals
        asked = [i for i, each in enumerate(found) if each.until == CLOCK]
        if len(asked) < RUNS * (layers + 1):
            raise self.calls.wrong("the program does not say when each layer ends")
        first, last = asked[-RUNS * (layers + 1)], asked[-layers - 1]
        return found[: first + 1], [found[i] for i in range(last + 1, asked[-1] + 1)]

    def _cost(self, intervals: Sequence[CountedInterval]) -> RunCost:
        runs = self.counted.together(intervals)
        instructions = self.counted.instructions(runs)
        if not self.calls.machine.modelled:
            return RunCost(instructions)
        blocks = ((self.counted.blocks[index], count) for index, count in runs.items())
        modelled = sum(count * cycles.of_block(b.code, b.instructions) for b, count in blocks)
        return RunCost(instructions, round(modelled))
