"""A method for when time is short: the default's own candidate, without a choice among several."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult, RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model


@dataclass(frozen=True, slots=True)
class Fast:
    """The method that learns from every image, and chooses nothing."""

    name: str = "fast"
    summary: str = "what `best` mostly ends with, compared with nothing: a third of its time"
    holds_out: bool = False

    def unguarded(self) -> None:
        """Return None: its scales are its own already."""

    def find(self, ready: "Model", data: "DataSet", options: RunOptions) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods.candidate_ways import own_ways
        from tcc.compiler.quant.methods.cross_fitting import CrossFitting, seen_in_parts
        from tcc.compiler.reference.expected_loss import expected_losses

        seen = seen_in_parts(ready, data, options)
        # With no judge there is nothing to choose by: the one that leaves unseen images the most
        # room.
        way, *_ = own_ways(ready, data, options.threads)
        # One part judges what the others teach: enough for a mean, where nothing is to be chosen.
        crossed = CrossFitting(ready, data, seen, options.threads, parts=1)
        expected = (
            expected_losses(ready, crossed.expected, crossed.outputs(way.fit))
            if crossed.folds
            else {}
        )
        made = way.made(seen)
        return CalibrationResult(made.calibration, made.traces, made.name, expected=expected)
