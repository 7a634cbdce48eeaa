"""The default method: several others and some of its own, judged by the model's own outputs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult, RunOptions
from tcc.compiler.quant.methods.range_method import RangeMethod

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model


@dataclass(frozen=True, slots=True)
class Best:
    """The method that tries others and takes the best; of `searches`, those that are `in_best`."""

    searches: tuple[RangeMethod, ...]
    name: str = "best"
    summary: str = "the best of several by images that judge in turn, channels brought to one size"
    holds_out: bool = True

    def unguarded(self) -> None:
        """Return None: it has no scales of its own, but chooses among others'."""

    def find(self, ready: "Model", data: "DataSet", options: RunOptions) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods import candidate_selection
        from tcc.compiler.quant.methods.calibration_split import split

        images = split(ready, data, options)
        found = candidate_selection.best(ready, images, self.searches, options)
        won = found.winner
        return CalibrationResult(
            won.calibration,
            won.traces,
            won.name,
            len(images.held_out),
            dict(found.judged),
            expected=found.expected,
        )
