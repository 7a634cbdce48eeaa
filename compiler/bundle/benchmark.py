"""Cost of a bundle's artifact, measured or modelled, and comparison of two costs."""

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
"""Smallest difference from 1 at which a ratio of two costs decides. Modelled costs scatter by 11 %
against published times, 24 % at worst (docs/measuring.md)."""


class CostVerdict(StrEnum):
    """Result of comparing the second cost with the first."""

    LOWER = "less"
    HIGHER = "more"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class CostComparison:
    """Ratio of two bundles' costs, second over first; `by` names the measure."""

    by: str
    ratio: float
    verdict: CostVerdict


def build_workloads(bundle: Bundle, runs: int, threads: int = 1) -> tuple[Workload, ...]:
    """Return a workload for each golden of a bundle.

    Args:
        bundle: The bundle.
        runs: Number of runs of each golden.
        threads: Number of threads.

    Raises:
        UserError: A golden does not fit the manifest's contract (E0621).
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
    """Measure what it costs to run a bundle's artifact.

    Args:
        bundle: The bundle.
        device: Its target.
        workload: One input, and the number of runs.
        progress: Receives each stage.

    Returns:
        Times or counts of each layer and of the network, and the memory.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest states (E0656).
        MissingTool: The measuring tool is not installed.
        UserError: The artifact cannot be run, nothing measures it here (E0657), or the bundle was
            replaced while in use (E0622).
    """

    def measure_checked(bundle: Bundle) -> Measurement:
        artifact_runs.check(bundle, device)
        return device.measure(bundle.model, bundle.input, workload, progress)

    return bundle_folder.run_undisturbed(bundle, measure_checked)


def measure_on_board(
    bundle: Bundle, device: Device, task: BoardTask, progress: Progress = silent
) -> tuple[Measurement, GoldenReplay | None]:
    """Measure an artifact on a board, and compare its outputs with the goldens.

    The comparison is None if no outputs come back from the board.

    Args:
        bundle: The bundle.
        device: Its target.
        task: The board, and what to run on it.
        progress: Receives each stage.

    Raises:
        Untrusted: Its program was not built here (E1350).
        Mislabelled: The artifact is not what the manifest states (E0656).
        UserError: The board fails (E0658), the artifact cannot be run on it (E0657), or the bundle
            was replaced while in use (E0622).
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
    """Compare two costs by the finest measure that both have; None if they share none.

    Times decide only if their interquartile ranges do not overlap.
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
    # From fine to coarse: times, modelled cycles, instructions.
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
    # The reciprocal bound: the verdict does not depend on the order of the two.
    return CostVerdict.HIGHER if ratio > 1 / (1 - MIN_COST_DIFFERENCE) else CostVerdict.UNDECIDED
