"""The default method: several others and some of its own, judged by the model's own outputs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model


@dataclass(frozen=True, slots=True)
class Best:
    """The method that tries others and takes the best; of `searches`, those that are `in_best`."""

    searches: tuple[RangeMethod, ...]
    name: str = "best"
    summary: str = "the best of several by images that judge in turn, channels brought to one size"

    @property
    def most(self) -> None:
        """None: each image may show an extreme."""

    def unguarded(self) -> None:
        """Return None: it has no scales of its own, but chooses among others'."""

    def find(self, ready: "Model", data: "DataSet", options: RunOptions) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods import candidate_selection
        from tcc.compiler.quant.methods.cross_fitting import CalibrationSplit, seen_in_parts

        samples = any(one.samples for one in self.searches if one.in_best)
        learn, held_out_images = data.split()
        seen = seen_in_parts(ready, learn, options, samples=samples)
        images = CalibrationSplit(learn, seen, held_out_images)
        found = candidate_selection.best(ready, images, self.searches, options)
        won, held_out = found.winner, len(images.held_out)
        if search := {one.name: one for one in self.searches}.get(won.name):
            # Its ranges end at what was seen, so that it needs every image: a fourth less costs it
            # a tenth on the mean, and none is left that it has not learnt from.
            won, held_out = found.way.made(search.seen(ready, data, options)), 0
        return CalibrationResult(
            won.calibration,
            won.traces,
            won.name,
            held_out,
            dict(found.judged),
            expected=found.expected,
        )
