"""A method for when time is short: the default's own candidate, without a choice among several."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult, RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model


@dataclass(frozen=True, slots=True)
class Fast:
    """The method that learns from every image, and judges by none."""

    name: str = "fast"
    summary: str = "what `best` mostly ends with, compared with nothing: a third of its time"
    holds_out: bool = False

    def unguarded(self) -> None:
        """Return None: its scales are its own already."""

    def find(self, ready: "Model", data: "DataSet", options: RunOptions) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods import candidate_selection
        from tcc.compiler.quant.observe.observer import observe

        seen = observe(ready, data, options.threads, options.batch, options.progress)
        # With no judge there is nothing to choose by: the one that leaves unseen images the most
        # room.
        made = candidate_selection.own_ways(ready, data)[0].made(seen)
        return CalibrationResult(made.calibration, made.traces, made.name)
