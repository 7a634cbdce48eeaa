"""What a bundle's artifact costs, and how two of them compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tcc.compiler.bundle import artifact_runs, bundle_folder, replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Golden
from tcc.compiler.bundle.replay import Replayed
from tcc.compiler.data import confined_images
from tcc.compiler.data.dataset import fitting
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.measurement import BoardTask, Measurement, RunCost, Workload
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    from tcc.compiler.bundle.artifact_runs import Outputs

UNDECIDED = 0.15
"""How far the ratio of two costs must be from 1 to say which is less: what scatters by 11 % against
published times, 24 % at worst, tells no finer difference (docs/measuring.md)."""


class CostVerdict(StrEnum):
    """Whether one cost is less than another."""

    LESS = "less"
    MORE = "more"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class CostComparison:
    """The ratio of two bundles' costs, the second over the first; `by` says of what."""

    by: str
    ratio: float
    verdict: CostVerdict


def workloads(bundle: Bundle, runs: int, threads: int = 1) -> tuple[Workload, ...]:
    """Return the goldens of a bundle, as what can be measured.

    Args:
        bundle: The bundle.
        runs: How often each is to be run.
        threads: How many threads are to run it.

    Raises:
        UserError: One is not of the manifest's contract (E0621).
    """
    cases = bundle.manifest.goldens.cases
    return tuple(_workload(bundle, case, runs, threads) for case in cases)


def _workload(bundle: Bundle, case: Golden, runs: int, threads: int) -> Workload:
    pixels = None
    if case.image:
        path = bundle.folder / case.image
        pixels = fitting(confined_images.read(path), bundle.input, str(path))
    return Workload(pixels, replay.tensor(bundle, case), runs, threads)


def measure(
    bundle: Bundle, device: Device, given: Workload, progress: Progress = silent
) -> Measurement:
    """Return what the artifact of a bundle costs.

    Args:
        bundle: The bundle.
        device: Its target.
        given: One input, and how often it is run.
        progress: Told of each stage.

    Returns:
        Times or counts of each layer and of the whole, and the memory.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest says (E0656).
        MissingTool: What measures it is not here.
        UserError: The artifact cannot be run, nothing measures it here (E0657), or another bundle
            took its place meanwhile (E0622).
    """

    def measured(bundle: Bundle) -> Measurement:
        artifact_runs.check(bundle, device)
        return device.measure(bundle.model, bundle.input, given, progress)

    return bundle_folder.undisturbed(bundle, measured)


def measure_on_board(
    bundle: Bundle, device: Device, task: BoardTask, progress: Progress = silent
) -> tuple[Measurement, Replayed | None]:
    """Return what the artifact costs on a board, and how its answers agree with the goldens.

    The agreement is None where nothing brings answers back.

    Args:
        bundle: The bundle.
        device: Its target.
        task: The board, and what is to be run there.
        progress: Told of each stage.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest says (E0656).
        UserError: The board does not do what it is asked (E0658), the artifact cannot be run there
            (E0657), or another bundle took its place meanwhile (E0622).
    """

    def measured(bundle: Bundle) -> "tuple[Measurement, Sequence[Outputs] | None]":
        artifact_runs.check(bundle, device)
        return device.measure_on_board(bundle.model, bundle.input, task, progress)

    found, outputs = bundle_folder.undisturbed(bundle, measured)
    if outputs is None:
        return found, None
    for given in outputs:
        artifact_runs.check_outputs(bundle, given)
    return found, replay.judged(bundle, device, bundle.manifest.goldens.cases, outputs)


def compared(first: RunCost, second: RunCost) -> CostComparison | None:
    """Return how a cost compares with another of the same kind; None where there is none.

    RunTimes that overlap, from quartile to quartile, decide nothing either.
    """
    apart = True
    if first.times and second.times:
        by, (old, new) = "time", (first.times.median, second.times.median)
        apart = first.times.high < second.times.low or second.times.high < first.times.low
    # The finer measure that both have: times before modelled cycles, these before instructions.
    elif first.cycles and second.cycles:
        by, (old, new) = "cycles", (float(first.cycles), float(second.cycles))
    elif first.instructions and second.instructions:
        by, (old, new) = "instructions", (float(first.instructions), float(second.instructions))
    else:
        return None
    ratio = new / old if old else 1.0
    return CostComparison(by, ratio, _verdict(ratio) if apart else CostVerdict.UNDECIDED)


def _verdict(ratio: float) -> CostVerdict:
    if ratio < 1 - UNDECIDED:
        return CostVerdict.LESS
    # As far from 1 as the other bound, whichever of the two comes first.
    return CostVerdict.MORE if ratio > 1 / (1 - UNDECIDED) else CostVerdict.UNDECIDED
