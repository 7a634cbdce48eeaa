"""`tcc bench`: what a bundle's artifact costs, and how two of them compare."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli import bench_tables
from tcc.compiler.cli.common_options import Json, Quiet, Verbose, typed
from tcc.compiler.cli.report import Report
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.measurement import Measurement

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


def bench(
    bundles: BundlesArgument,
    runs: Runs = 50,
    threads: Threads = 1,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure what bundles cost: time, or instructions and modelled cycles, and memory.

    What runs on this machine is timed. What QEMU runs is counted: guest instructions, and for
    arm-a7 cycles by a model. It runs the programs in the bundles: take only those that you trust.
    """
    report = Report(json, quiet, verbose)
    if len(bundles) > 2:
        raise fail("E0601", "one bundle is measured, or two", typed(str(bundles[2])))

    from tcc.compiler.bundle import benchmark
    from tcc.compiler.cli import devices

    found = []
    with report.stages() as stages:
        for folder in bundles:
            bundle, device = devices.load(folder)
            given = benchmark.workload(bundle, runs, threads)
            measured = benchmark.measure(bundle, device, given, stages)
            found.append((folder, bundle, measured))
        stages.end()
    for folder, _, measured in found:
        bench_tables.show(report, str(folder), measured)
    compared = None
    if len(found) == 2:
        compared = benchmark.compared(found[0][2].network, found[1][2].network)
        bench_tables.show_comparison(report, [str(folder) for folder in bundles], compared)
    report.document(
        {
            "bundles": [_document(*each) for each in found],
            "comparison": asdict(compared) if compared else None,
            "seconds": stages.seconds,
        }
    )


def _document(folder: Path, bundle: "Bundle", measured: "Measurement") -> dict[str, Any]:
    about = bundle.manifest
    said = {"bundle": str(folder), "target": about.target, "precision": about.precision}
    return {**said, **asdict(measured)}
