"""`tcc bench`: what a bundle's artifact costs, and how two of them compare."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli import failures
from tcc.compiler.cli.options import ProgramOptions, ReportOptions
from tcc.compiler.report import bench_tables
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Stages
from tcc.compiler.support.diagnostics import fail, typed
from tcc.compiler.support.option_needs import BOARD_RUNNER, TIMED_BUNDLE
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcc.compiler.bundle.benchmark import CostComparison
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.replay import Replayed
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.measurement import Measurement
    from tcc.compiler.support.board import BoardLink

BundlesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="BUNDLE", help="A folder that `tcc build` wrote, and one to compare it with."
    ),
]
Runs = Annotated[
    int, typer.Option(metavar="N", min=1, max=100_000, help="How many runs are timed.")
]
Threads = Annotated[
    int, typer.Option(metavar="N", min=1, max=16, help="Threads that share the work, where timed.")
]
SshOption = Annotated[
    str | None,
    typer.Option(
        "--ssh",
        metavar="HOST",
        show_default=False,
        help="Copy what runs to a board and time it there: a host as `ssh` takes it.",
    ),
]
AdbOption = Annotated[
    bool, typer.Option("--adb", help="The same over `adb`: the only device, or ANDROID_SERIAL's.")
]
BenchmarkModel = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="LiteRT's benchmark_model for the board, which runs TFLite bundles there.",
    ),
]


@dataclass(frozen=True)
class BenchOptions:
    """How much is run, and where; `way` is None for here."""

    runs: int
    threads: int
    way: "BoardLink | None"
    benchmark_model: Path | None


@dataclass(frozen=True)
class BenchedBundle:
    """A bundle, what it costs, and how its answers on a board agree with its goldens.

    `calibrated` if it computes in integers.
    """

    bundle: "Bundle"
    calibrated: bool
    measured: "Measurement"
    replayed: "Replayed | None" = None

    @property
    def holds(self) -> bool:
        """Whether its answers, if any were brought back, are right."""
        return not self.replayed or all(one.holds for one in self.replayed.agreement)


def bench(
    bundles: BundlesArgument,
    runs: Runs = 50,
    threads: Threads = 1,
    ssh: SshOption = None,
    adb: AdbOption = False,
    benchmark_model: BenchmarkModel = None,
    *,
    program: ProgramOptions,
    report: ReportOptions,
) -> None:
    """Measure what bundles cost: time, or instructions and modelled cycles, and memory.

    What runs on this machine, or on a board, is timed; on a board the goldens are replayed too
    (exit code 4: one disagrees). What QEMU runs is counted: guest instructions, and for arm-a7
    cycles by a model. A program that was not built here runs only with --trust.
    """
    if len(bundles) > 2:
        raise fail("E0601", "one bundle is measured, or two", typed(str(bundles[2])))

    from tcc.compiler.bundle import benchmark
    from tcc.compiler.support import board

    way = board.link(ssh, adb)
    with report.stages() as stages:
        options = BenchOptions(runs, threads, way, benchmark_model)
        loaded = [
            trusted_bundle.load(folder, trust=program.trust, isa=program.isa) for folder in bundles
        ]
        _require_uses([device for _, device in loaded], options)
        benched = [_benched(bundle, device, options, stages) for bundle, device in loaded]
        stages.end()
    for bundle in benched:
        bench_tables.show(report, str(bundle.bundle.folder), bundle.measured)
        if bundle.replayed:
            bench_tables.show_goldens(report, bundle.replayed.agreement)
    compared = None
    if len(benched) == 2:
        compared = benchmark.compared(benched[0].measured.network, benched[1].measured.network)
        bench_tables.show_comparison(report, [str(folder) for folder in bundles], compared)
        if compared and _slower_in_integers(benched, compared):
            report.notice("integers take longer than floats here: for speed alone, build at fp32")
    code = 0 if all(bundle.holds for bundle in benched) else failures.BELOW
    report.document(
        {
            "bundles": [_document(bundle) for bundle in benched],
            "comparison": asdict(compared) if compared else None,
            "seconds": stages.seconds,
            "exit": code,
        }
    )
    if code:
        raise typer.Exit(code)


def _require_uses(devices: "Sequence[Device]", options: BenchOptions) -> None:
    """Refuse typed options that measuring these bundles has no use for (E0601)."""
    timed = options.way is not None or not all(device.is_counted for device in devices)
    has_runner = any(device.needs_board_runner for device in devices)
    option_needs.require({TIMED_BUNDLE: timed, BOARD_RUNNER: has_runner})


def _slower_in_integers(found: "Sequence[BenchedBundle]", compared: "CostComparison") -> bool:
    """Whether one of two bundles of a network for a target is in integers, and takes longer."""
    first, second = found
    about, other = first.bundle.manifest, second.bundle.manifest
    same = about.target == other.target and about.model == other.model
    slower = second if compared.verdict == "more" else first
    decided = compared.verdict != "undecided" and first.calibrated != second.calibrated
    return same and decided and slower.calibrated


def _benched(
    bundle: "Bundle", device: "Device", options: BenchOptions, stages: Stages
) -> BenchedBundle:
    from tcc.compiler.bundle import benchmark
    from tcc.compiler.ir.measurement import BoardTask
    from tcc.compiler.support import board

    built = device.target.precision(bundle.manifest.precision)
    calibrated = built is not None and built.calibrated
    given = benchmark.workloads(bundle, options.runs, options.threads)
    if options.way is None:
        # One golden is enough to time; a board replays all, as nothing else has run there.
        return BenchedBundle(
            bundle, calibrated, benchmark.measure(bundle, device, given[0], stages)
        )
    with board.reached(options.way) as there:
        task = BoardTask(there, given[0], given, options.benchmark_model)
        measured = benchmark.measure_on_board(bundle, device, task, stages)
        return BenchedBundle(bundle, calibrated, *measured)


def _document(found: BenchedBundle) -> dict[str, Any]:
    about = found.bundle.manifest
    goldens = [one.as_json() for one in found.replayed.agreement] if found.replayed else None
    return {
        "bundle": str(found.bundle.folder),
        "target": about.target,
        "precision": about.precision,
        **asdict(found.measured),
        "goldens": goldens,
    }
