"""The passes that a command line names in place of the usual ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import make_command_span

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model, Pass


@dataclass(frozen=True)
class PassOptions:
    """How the command line wants models to go through passes."""

    text: str | None = None
    verified: bool = False
    report: Report = field(default=Report(), compare=False)

    def __call__(self, model: "Model", default_passes: "Sequence[Pass]") -> "Model":
        """Return the model after the chosen passes, or else the usual ones.

        Raises:
            UserError: What is chosen is not known (E0614).
            PassError: A pass changes what the model computes.
        """
        from tcc.compiler import passes
        from tcc.compiler.passes import validate

        pass_list = self.choose_passes(default_passes)
        # Running a network after each pass takes far longer than the passes.
        if not self.verified:
            return passes.run(model, pass_list)
        return validate.run(model, pass_list, report=self._report_verified)

    def _report_verified(self, checked_pass: "Pass", difference: float) -> None:
        verdict = (
            f"within {difference:.1e}, bound {checked_pass.bound:g}"
            if checked_pass.bound
            else "exact"
        )
        self.report.print_note(f"verified {checked_pass.name}: {verdict}")

    def choose_passes(self, default_passes: "Sequence[Pass]" = ()) -> "tuple[Pass, ...]":
        """Return the passes that the command line names, or else the usual ones.

        Raises:
            UserError: One is not known (E0614).
        """
        if self.text is None:
            return tuple(default_passes)
        from tcc.compiler import passes

        return passes.parse(self.text, make_command_span(f"--passes {self.text}"))
