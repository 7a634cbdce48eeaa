"""What a bundle's artifact costs, and how two of them compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tcc.compiler.bundle import artifact_runs, bundle_folder, replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Golden
from tcc.compiler.bundle.replay import GoldenReplay
from tcc.compiler.data import confined_images
from tcc.compiler.data.dataset import check_image
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.measurement import BoardTask, Measurement, RunCost, Workload
from tcc.compiler.support.progress import Progress, silent

if TYPE_CHECKING:
    from tcc.compiler.bundle.artifact_runs import Outputs

MIN_COST_DIFFERENCE = 0.15
"""How far the ratio of two costs must be from 1 to say which is less: what scatters by 11 % against
published times, 24 % at worst, tells no finer difference (docs/measuring.md)."""


class CostVerdict(StrEnum):
    """Whether one cost is less than another."""

    LOWER = "less"
    HIGHER = "more"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class CostComparison:
    """The ratio of two bundles' costs, the second over the first; `by` says of what."""

    by: str
    ratio: float
    verdict: CostVerdict


def build_workloads(bundle: Bundle, runs: int, threads: int = 1) -> tuple[Workload, ...]:
    """Return the goldens of a bundle, as what can be measured.

    Args:
        bundle: The bundle.
        runs: How often each is to be run.
        threads: How many threads are to run it.

    Raises:
        UserError: One is not of the manifest's contract (E0621).
    """
    cases = bundle.manifest.goldens.cases
    return tuple(_build_workload(bundle, case, runs, threads) for case in cases)


def _build_workload(bundle: Bundle, case: Golden, runs: int, threads: int) -> Workload:
    pixels = None
    if case.image:
        path = bundle.folder / case.image
        pixels = check_image(confined_images.read_image(path), bundle.input, str(path))
    return Workload(pixels, replay.read_input_tensor(bundle, case), runs, threads)


def measure_bundle(
    bundle: Bundle, device: Device, workload: Workload, progress: Progress = silent
) -> Measurement:
    """Return what the artifact of a bundle costs.

    Args:
        bundle: The bundle.
        device: Its target.
        workload: One input, and how often it is run.
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

    def measure_checked(bundle: Bundle) -> Measurement:
        artifact_runs.check(bundle, device)
        return device.measure(bundle.model, bundle.input, workload, progress)

    return bundle_folder.run_undisturbed(bundle, measure_checked)


def measure_on_board(
    bundle: Bundle, device: Device, task: BoardTask, progress: Progress = silent
) -> tuple[Measurement, GoldenReplay | None]:
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

    def measure_checked(bundle: Bundle) -> "tuple[Measurement, Sequence[Outputs] | None]":
        artifact_runs.check(bundle, device)
        return device.measure_on_board(bundle.model, bundle.input, task, progress)

    measurement, outputs = bundle_folder.run_undisturbed(bundle, measure_checked)
    if outputs is None:
        return measurement, None
    for case_outputs in outputs:
        artifact_runs.check_outputs(bundle, case_outputs)
    return measurement, replay.compare_goldens(
        bundle, device, bundle.manifest.goldens.cases, outputs
    )


def compare_costs(first_cost: RunCost, second_cost: RunCost) -> CostComparison | None:
    """Return how a cost compares with another of the same kind; None where there is none.

    RunTimes that overlap, from quartile to quartile, decide nothing either.
    """
    is_disjoint = True
    if first_cost.times and second_cost.times:
        by, (first_figure, second_figure) = (
            "time",
            (first_cost.times.median, second_cost.times.median),
        )
        is_disjoint = (
            first_cost.times.high < second_cost.times.low
            or second_cost.times.high < first_cost.times.low
        )
    # The finer measure that both have: times before modelled cycles, these before instructions.
    elif first_cost.cycles and second_cost.cycles:
        by, (first_figure, second_figure) = (
            "cycles",
            (float(first_cost.cycles), float(second_cost.cycles)),
        )
    elif first_cost.instructions and second_cost.instructions:
        by, (first_figure, second_figure) = (
            "instructions",
            (float(first_cost.instructions), float(second_cost.instructions)),
        )
    else:
        return None
    ratio = second_figure / first_figure if first_figure else 1.0
    return CostComparison(
        by, ratio, _classify_ratio(ratio) if is_disjoint else CostVerdict.UNDECIDED
    )


def _classify_ratio(ratio: float) -> CostVerdict:
    if ratio < 1 - MIN_COST_DIFFERENCE:
        return CostVerdict.LOWER
    # As far from 1 as the other bound, whichever of the two comes first.
    return CostVerdict.HIGHER if ratio > 1 / (1 - MIN_COST_DIFFERENCE) else CostVerdict.UNDECIDED
