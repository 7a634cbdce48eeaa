"""What a target's artifact costs: the records that backends measure."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tcc.compiler.support.board import Board


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """What is run to be measured.

    Attributes:
        image: uint8 (height, width, 3), where the network takes images.
        tensor: The input's shape: what the network itself takes.
        runs: How many runs are timed, after as many as it takes to warm up.
        threads: How many threads share the work.
    """

    image: "NDArray[np.uint8] | None"
    tensor: "NDArray[np.float32]"
    runs: int
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class BoardTask:
    """What is measured on a board.

    Attributes:
        board: Where it runs.
        workload: What is timed.
        cases: What the artifact is to answer, so that its answers can be compared.
        runner: A program for the board that runs the artifact, where that is no program itself.
    """

    board: "Board"
    workload: Workload
    cases: tuple[Workload, ...]
    runner: "Path | None" = None


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Milliseconds of `runs` runs, the median and the quartiles; `first` is the very first run."""

    median: float
    low: float
    high: float
    first: float
    runs: int


@dataclass(frozen=True, slots=True)
class RunCost:
    """What something costs, as far as it was measured: counted and modelled, or timed."""

    instructions: int | None = None
    cycles: int | None = None
    times: RunTimes | None = None


@dataclass(frozen=True, slots=True)
class LayerRunCost:
    """A layer by the name of its result, the kernel that computes it, and what that costs."""

    name: str
    kernel: str
    cost: RunCost


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes, None where not known.

    Attributes:
        files: What the device has to hold: the program or the model's file.
        program: The program as loaded, with its weights and its static memory.
        arena: Intermediate values, and what kernels and preprocessing work in.
        arena_bound: The least that any places of these values need, alone.
        peak: The most that the process took; for a runtime in this process, by how much it grew.
    """

    files: int
    program: int | None = None
    arena: int | None = None
    arena_bound: int | None = None
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an artifact costs.

    Attributes:
        how: What ran it.
        network: One run of the network, from input to raw outputs.
        load: All that comes before the first input.
        preprocess: From the image's bytes to the input.
        layers: The parts of `network`, where they can be told apart.
        caution: How far these numbers may be from a device's.
    """

    how: str
    network: RunCost
    load: RunCost
    preprocess: RunCost | None
    memory: MemoryUse
    layers: tuple[LayerRunCost, ...] = field(default=())
    caution: str = ""


def summarize_times(milliseconds: "list[float]", first_run: float) -> RunTimes:
    """Return the median and the quartiles of one or more runs; `first_run` is the cold one."""
    # Numbers that were measured, none interpolated between two. The median is not moved by single
    # runs that something else on the machine held up.
    ordered = sorted(milliseconds)
    low, median, high = (ordered[len(ordered) * quarter // 4] for quarter in (1, 2, 3))
    return RunTimes(median, low, high, first_run, len(ordered))
