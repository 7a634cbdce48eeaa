"""The passes that a command line names in place of the usual ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import typed

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model, Pass


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
