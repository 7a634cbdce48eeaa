"""A method for when time is short: the default's own candidate, without a choice among several."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model

MOST, JUDGES = 192, 32
"""Images that it takes, and that judge, at most: more would take longer than all else."""


@dataclass(frozen=True, slots=True)
class Fast:
    """The method that makes one candidate, once, of three fourths of the images; the rest judge."""

    name: str = "fast"
    summary: str = "what `best` mostly ends with, of 192 images at most: half of its time"

    @property
    def most(self) -> int:
        """`MOST`: an estimate of what unseen images need makes up for those that are not seen."""
        return MOST

    def unguarded(self) -> None:
        """Return None: its scales are its own already."""

    def find(self, ready: "Model", data: "DataSet", options: RunOptions) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods.candidate_selection import own_ways
        from tcc.compiler.quant.methods.cross_fitting import held_out_judge, seen_in_parts
        from tcc.compiler.reference.expected_loss import expected_losses

        learn, held_out = data.split()
        # With no judge there is nothing to choose by: the one that leaves unseen images the most
        # room.
        way, *_ = own_ways(ready, learn, options.threads)
        made = way.made(seen_in_parts(ready, learn, options))
        result = CalibrationResult(made.calibration, made.traces, made.name)
        if learn is data:  # too few images to hold any out
            return result
        judge = held_out_judge(ready, held_out.first(JUDGES), options.threads)
        expected = expected_losses(ready, judge.expected, judge.outputs(made.calibration))
        return replace(result, held_out=len(held_out), expected=expected)
