"""`tcc passes`: the passes, and the pipelines made of them; and how commands choose and check."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.common_options import typed
from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.cli.report import Report

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model, Pass


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


@dataclass(frozen=True)
class PassOptions:
    """How the command line wants models to go through passes."""

    text: str | None = None
    verified: bool = False
    report: Report = field(default=Report(), compare=False)

    def __call__(self, model: "Model", usual: "Sequence[Pass]") -> "Model":
        """Return the model after the chosen passes, or else the usual ones.

        Raises:
            UserError: What is chosen is not known (E0614).
            PassError: A pass changes what the model computes.
        """
        from tcc.compiler import passes
        from tcc.compiler.passes import validate

        chosen = self.chosen(usual)
        # Running a network after each pass takes far longer than the passes.
        if not self.verified:
            return passes.run(model, chosen)
        return validate.run(model, chosen, report=self._verified)

    def _verified(self, one: "Pass", moved: float) -> None:
        found = f"within {moved:.1e}, bound {one.bound:g}" if one.bound else "exact"
        self.report.note(f"verified {one.name}: {found}")

    def chosen(self, usual: "Sequence[Pass]" = ()) -> "tuple[Pass, ...]":
        """Return the passes that the command line names, or else the usual ones.

        Raises:
            UserError: One is not known (E0614).
        """
        if self.text is None:
            return tuple(usual)
        from tcc.compiler import passes

        return passes.parse(self.text, typed(f"--passes {self.text}"))


def passes(*, report: ReportOptions) -> None:
    """List the passes and the pipelines that `--passes` takes."""
    from tcc.compiler.passes import PASSES, PIPELINES, spell

    if report.quiet:
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
