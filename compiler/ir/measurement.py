"""Records of the measured costs of an artifact."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tcc.compiler.support.board import Board


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """The work to measure.

    Attributes:
        image: uint8 (height, width, 3), if the network takes images.
        tensor: float32 of the input's shape: the network's own input.
        runs: How many runs are timed, after the warm-up runs.
        threads: How many threads share the work.
    """

    image: "NDArray[np.uint8] | None"
    tensor: "NDArray[np.float32]"
    runs: int
    threads: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class BoardTask:
    """The work to measure on a board.

    Attributes:
        board: The board.
        workload: The work to time.
        cases: Inputs to answer, so that the outputs can be compared.
        runner: A program for the board that runs the artifact, if it is not a program itself.
    """

    board: "Board"
    workload: Workload
    cases: tuple[Workload, ...]
    runner: "Path | None" = None


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Milliseconds of `runs` runs: the median and the quartiles; `first` is the very first run."""

    median: float
    low: float
    high: float
    first: float
    runs: int


@dataclass(frozen=True, slots=True)
class RunCost:
    """The cost of something, as far as it was measured: counted and modelled, or timed."""

    instructions: int | None = None
    cycles: int | None = None
    times: RunTimes | None = None


@dataclass(frozen=True, slots=True)
class LayerRunCost:
    """A layer, named by its result, with the kernel that computes it and its cost."""

    name: str
    kernel: str
    cost: RunCost


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes; None if unknown.

    Attributes:
        files: Storage on the device: the program or the model's file.
        program: The program as loaded, with its weights and its static memory.
        arena: Intermediate values, and buffers of kernels and preprocessing.
        arena_bound: A lower bound for these values alone, for any memory plan.
        peak: The peak of the process; for a runtime in this process, its growth.
    """

    files: int
    program: int | None = None
    arena: int | None = None
    arena_bound: int | None = None
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The costs of an artifact.

    Attributes:
        how: What ran it.
        network: One run of the network, from input to raw outputs.
        load: Everything before the first input.
        preprocess: From the image's bytes to the input.
        layers: The parts of `network`, if they can be measured separately.
        caution: Why these numbers may differ from a device's.
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
    # Measured values, not interpolated between two. The median is robust against single runs that
    # other work on the machine delayed.
    ordered = sorted(milliseconds)
    low, median, high = (ordered[len(ordered) * quarter // 4] for quarter in (1, 2, 3))
    return RunTimes(median, low, high, first_run, len(ordered))
