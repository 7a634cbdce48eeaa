"""The default method: cross-validates several candidates by the model's outputs."""

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
    """Method that cross-validates candidates, among them the `searches` that are `in_best`."""

    searches: tuple[RangeMethod, ...]
    name: str = "best"
    summary: str = "the best of several candidates by cross-validation, one with equalized channels"

    @property
    def max_images(self) -> None:
        """None: any image may have an extreme."""

    def remove_guard(self) -> None:
        """Return None: the method has no guard."""

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Calibrate a model; see `Method.find`."""
        from tcc.compiler.quant.methods import candidate_selection
        from tcc.compiler.quant.methods.cross_fitting import CalibrationSplit, observe_folds

        samples = any(method.samples for method in self.searches if method.in_best)
        fit_set, held_out_images = dataset.split()
        statistics = observe_folds(lowered_model, fit_set, options, samples=samples)
        images = CalibrationSplit(fit_set, statistics, held_out_images)
        selection = candidate_selection.select_best(lowered_model, images, self.searches, options)
        winner, held_out_count = selection.winner, len(images.held_out)
        if search := {method.name: method for method in self.searches}.get(winner.name):
            # A search's ranges end at the observed values, so that it needs all images: without a
            # fourth of them, the loss is on average a tenth larger. No image is then held out.
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
