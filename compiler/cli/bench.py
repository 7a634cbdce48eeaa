"""`tcc bench`: measure the cost of a bundle's artifact, and compare two bundles."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli import failures
from tcc.compiler.cli.options import ProgramOptions, ReportOptions
from tcc.compiler.report import bench_tables
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Stages
from tcc.compiler.support.diagnostics import fail, make_command_span
from tcc.compiler.support.option_requirements import BOARD_RUNNER, TIMED_BUNDLE
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcc.compiler.bundle.benchmark import CostComparison
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.replay import GoldenReplay
    from tcc.compiler.ir.device import Device
    from tcc.compiler.ir.measurement import Measurement
    from tcc.compiler.support.board import BoardLink

BundlesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="BUNDLE", help="A folder that `tcc build` wrote. Give a second one to compare them."
    ),
]
Runs = Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="Number of timed runs.")]
Threads = Annotated[
    int, typer.Option(metavar="N", min=1, max=16, help="Number of threads of a timed run.")
]
SshOption = Annotated[
    str | None,
    typer.Option(
        "--ssh",
        metavar="HOST",
        show_default=False,
        help="Copy the artifact to a board and time it there: HOST as for `ssh`.",
    ),
]
AdbOption = Annotated[
    bool,
    typer.Option(
        "--adb",
        help="Time it on a board over `adb`: the only device, or the one in ANDROID_SERIAL.",
    ),
]
BenchmarkModel = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="LiteRT's benchmark_model for the board. It runs TFLite bundles there.",
    ),
]


@dataclass(frozen=True)
class BenchOptions:
    """The number of runs, and where they run; `board_link` is None for this machine."""

    runs: int
    threads: int
    board_link: "BoardLink | None"
    benchmark_model: Path | None


@dataclass(frozen=True)
class BenchedBundle:
    """A bundle, its measured cost, and how its outputs on a board agree with its goldens.

    `calibrated` is true if it is an int8 model.
    """

    bundle: "Bundle"
    calibrated: bool
    measured: "Measurement"
    replayed: "GoldenReplay | None" = None

    @property
    def is_correct(self) -> bool:
        """Whether the outputs that a board returned, if any, are right."""
        return not self.replayed or all(agreement.holds for agreement in self.replayed.agreement)


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
    """Measure the cost of bundles: time, or instructions and modelled cycles, and memory.

    Artifacts that run on this machine or on a board are timed. A board replays the goldens too;
    exit code 4 means that one disagrees. For artifacts that run in QEMU, guest instructions are
    counted, and for arm-a7 cycles are computed by a model. A program that was not built on this
    machine runs only with --trust.
    """
    if len(bundles) > 2:
        raise fail(
            "E0601",
            f"`tcc bench` takes one or two bundles, not {len(bundles)}",
            make_command_span(str(bundles[2])),
            help="compare two bundles at a time",
        )

    from tcc.compiler.bundle import benchmark
    from tcc.compiler.support import board

    board_link = board.select_link(ssh, adb)
    with report.track_stages() as stages:
        options = BenchOptions(runs, threads, board_link, benchmark_model)
        loaded = [
            trusted_bundle.load(folder, trust=program.trust, isa=program.isa) for folder in bundles
        ]
        _require_uses([device for _, device in loaded], options)
        benched = [_measure_bundle(bundle, device, options, stages) for bundle, device in loaded]
        stages.finish_stage()
    for bundle in benched:
        bench_tables.show(report, str(bundle.bundle.folder), bundle.measured)
        if bundle.replayed:
            bench_tables.show_goldens(report, bundle.replayed.agreement)
    compared = None
    if len(benched) == 2:
        compared = benchmark.compare_costs(benched[0].measured.network, benched[1].measured.network)
        bench_tables.show_comparison(report, [str(folder) for folder in bundles], compared)
        if compared and _is_int8_slower(benched, compared):
            report.warn_text(
                "the int8 model is slower here than the fp32 model: if only speed matters, "
                "build at fp32"
            )
    code = 0 if all(bundle.is_correct for bundle in benched) else failures.BELOW_FLOOR
    report.print_document(
        {
            "bundles": [_build_document(bundle) for bundle in benched],
            "comparison": asdict(compared) if compared else None,
            "seconds": stages.seconds,
            "exit": code,
        }
    )
    if code:
        raise typer.Exit(code)


def _require_uses(devices: "Sequence[Device]", options: BenchOptions) -> None:
    """Refuse typed options that have no effect for these bundles (E0601)."""
    timed = options.board_link is not None or not all(device.is_counted for device in devices)
    has_runner = any(device.needs_board_runner for device in devices)
    option_requirements.report_facts({TIMED_BUNDLE: timed, BOARD_RUNNER: has_runner})


def _is_int8_slower(benched: "Sequence[BenchedBundle]", compared: "CostComparison") -> bool:
    """Whether two bundles of one network and target are int8 and fp32, and int8 is slower."""
    first_bundle, second_bundle = benched
    first_manifest, second_manifest = first_bundle.bundle.manifest, second_bundle.bundle.manifest
    is_comparable = (
        first_manifest.target == second_manifest.target
        and first_manifest.model == second_manifest.model
    )
    slower = second_bundle if compared.verdict == "more" else first_bundle
    decided = (
        compared.verdict != "undecided" and first_bundle.calibrated != second_bundle.calibrated
    )
    return is_comparable and decided and slower.calibrated


def _measure_bundle(
    bundle: "Bundle", device: "Device", options: BenchOptions, stages: Stages
) -> BenchedBundle:
    from tcc.compiler.bundle import benchmark
    from tcc.compiler.ir.measurement import BoardTask
    from tcc.compiler.support import board

    built = device.target.find_precision(bundle.manifest.precision)
    calibrated = built is not None and built.calibrated
    workloads = benchmark.build_workloads(bundle, options.runs, options.threads)
    if options.board_link is None:
        # One golden is enough for timing. A board replays all of them, because nothing else ran
        # there.
        return BenchedBundle(
            bundle, calibrated, benchmark.measure_bundle(bundle, device, workloads[0], stages)
        )
    with board.open_board(options.board_link) as remote:
        task = BoardTask(remote, workloads[0], workloads, options.benchmark_model)
        measured = benchmark.measure_on_board(bundle, device, task, stages)
        return BenchedBundle(bundle, calibrated, *measured)


def _build_document(benched: BenchedBundle) -> dict[str, Any]:
    manifest = benched.bundle.manifest
    goldens = (
        [agreement.to_json() for agreement in benched.replayed.agreement]
        if benched.replayed
        else None
    )
    return {
        "bundle": str(benched.bundle.folder),
        "target": manifest.target,
        "precision": manifest.precision,
        **asdict(benched.measured),
        "goldens": goldens,
    }
