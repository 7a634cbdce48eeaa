"""`tcc passes`: the passes, and the pipelines made of them; and how commands choose and check."""

from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    pass


def _names(incomplete: str) -> list[str]:
    from tcc.compiler.passes import PASSES, PIPELINES

    # Shells complete whole words: what is before the last comma is repeated.
    before, comma, last = incomplete.rpartition(",")
    names = [*PIPELINES, *(one.name for one in PASSES)]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


PassesOption = Annotated[
    str | None,
    typer.Option(
        "--passes",
        metavar="P[,P...]",
        show_default=False,
        autocompletion=_names,
        help="Run these passes or pipelines instead of the usual ones (see `tcc passes`).",
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify-passes",
        help="Run the graph before and after each pass on a random input, and compare.",
    ),
]


def passes(json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """List the passes and the pipelines that `--passes` takes."""
    from tcc.compiler.passes import PASSES, PIPELINES, spell

    report = Report(json, quiet, verbose)
    if quiet:
        report.text("\n".join(one.name for one in PASSES))
    else:
        rows = [(one.name, f"{one.bound:g}" if one.bound else "exact", one.doc) for one in PASSES]
        report.table(("pass", "bound", "what"), rows)
        for name, pipeline in PIPELINES.items():
            report.text(f"\n{name}: {spell(pipeline)}")
    report.document(
        {
            "passes": [{"name": p.name, "bound": p.bound, "what": p.doc} for p in PASSES],
            "pipelines": {name: spell(pipeline) for name, pipeline in PIPELINES.items()},
        }
    )
