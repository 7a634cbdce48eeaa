"""`tcc plot cosines`: how near integers came to floats, networks and data sets side by side."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.ir.tool_report import LEAST
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.driver.stored_cosines import StoredCosine
    from tcc.compiler.figures.bar_chart import Bar

KINDS = (".png", ".svg")
"""Suffixes of pictures."""

Stored = Annotated[
    list[str],
    typer.Argument(
        metavar="[DATA=]FILE",
        show_default=False,
        help="Calibration files and bundles; DATA is what the bar calls its images.",
    ),
]
Picture = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="The picture to write: .png or .svg."),
]


def cosines(
    stored: Stored,
    output: Picture = Path("cosines.png"),
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw how near integers came to floats: a bar for each network and data set.

    What is drawn is what `tcc calibrate` and `tcc build` measured, against the least cosine that
    is good.
    """
    report = Report(json, quiet, verbose)
    if output.suffix not in KINDS:
        at = typed(f"--output {output}")
        raise fail(
            "E0601", "a picture is a .png or a .svg", at, help=f"such as `-o cosines{KINDS[0]}`"
        )

    from tcc.compiler.driver import calibration, stored_cosines
    from tcc.compiler.report import cosine_bars
    from tcc.compiler.support import atomic_files
    from tcc.compiler.targets import devices

    # A picture may be drawn over again, whatever made the one that is there.
    atomic_files.check_target(output, atomic_files.anything)
    named, policy = [_named(each) for each in stored], devices.signature_policy()
    found = [
        (data, one)
        for data, path in named
        for one in stored_cosines.read(Path(path), devices.precision, policy)
    ]
    bars = _bars(found)
    drawn = calibration.draw_bars(output, "cosine of integers and floats", bars)
    atomic_files.write_file(output, drawn)
    report.text(str(output))
    if not quiet:
        cosine_bars.report_bars(report, bars)
    listed = [{"name": each.name, "cosine": each.value} for each in bars]
    report.document({"picture": str(output), "threshold": LEAST, "cosines": listed})


def _named(word: str) -> tuple[str, str]:
    """Return the name of the data and the path; a path that there is needs no name."""
    name, mark, path = word.partition("=")
    # A file's name may hold a `=`.
    return ("", word) if not mark or Path(word).exists() else (name, path)


def _bars(found: "Sequence[tuple[str, StoredCosine]]") -> "tuple[Bar, ...]":
    """Return a bar each, called by what tells it from the others."""
    from tcc.compiler.figures.bar_chart import Bar

    # Only what differs is named: a bar of one network on one data set needs its name alone.
    sets = Counter(network for network, _ in {(one.network, one.data) for _, one in found})
    outputs = Counter(network for network, _ in {(one.network, one.output) for _, one in found})
    targets = Counter(network for network, _ in {(one.network, one.target) for _, one in found})
    bars = []
    for data, one in found:
        words = [one.network, data or (one.data[:8] if sets[one.network] > 1 else "")]
        words += [one.target] if targets[one.network] > 1 else []
        words += [one.output] if outputs[one.network] > 1 else []
        bars.append(Bar(", ".join(filter(None, words)), one.cosine))
    return tuple(bars)
