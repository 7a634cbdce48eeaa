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
    def max_images(self) -> None:
        """None: each image may show an extreme."""

    def remove_guard(self) -> None:
        """Return None: it has no scales of its own, but chooses among others'."""

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods import candidate_selection
        from tcc.compiler.quant.methods.cross_fitting import CalibrationSplit, observe_folds

        samples = any(method.samples for method in self.searches if method.in_best)
        fit_set, held_out_images = dataset.split()
        statistics = observe_folds(lowered_model, fit_set, options, samples=samples)
        images = CalibrationSplit(fit_set, statistics, held_out_images)
        selection = candidate_selection.select_best(lowered_model, images, self.searches, options)
        winner, held_out_count = selection.winner, len(images.held_out)
        if search := {method.name: method for method in self.searches}.get(winner.name):
            # Its ranges end at what was seen, so that it needs every image: a fourth less costs it
            # a tenth on the mean, and none is left that it has not learnt from.
            winner, held_out_count = (
                selection.builder.build_candidate(
                    search.collect_statistics(lowered_model, dataset, options)
                ),
                0,
            )
        return CalibrationResult(
            winner.calibration,
            winner.traces,
            winner.name,
            held_out_count,
            dict(selection.candidate_qualities),
            expected=selection.expected,
        )
