"""Passes from the command line, in place of the default ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import make_command_span

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model, Pass


@dataclass(frozen=True)
class PassOptions:
    """The passes for models, and whether to verify them, as the command line sets them."""

    text: str | None = None
    verified: bool = False
    report: Report = field(default=Report(), compare=False)

    def __call__(self, model: "Model", default_passes: "Sequence[Pass]") -> "Model":
        """Return the model after the chosen passes, or the default ones.

        Raises:
            UserError: A pass is unknown (E0614).
            PassError: A verified pass changes what the model computes.
        """
        from tcc.compiler import passes
        from tcc.compiler.passes import validate

        pass_list = self.choose_passes(default_passes)
        # Verification runs the network after each pass, which takes far longer than the passes.
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
        """Return the passes from the command line, or the default ones.

        Raises:
            UserError: A pass is unknown (E0614).
        """
        if self.text is None:
            return tuple(default_passes)
        from tcc.compiler import passes

        return passes.parse(self.text, make_command_span(f"--passes {self.text}"))
