"""A faster method: the equalizing candidate of `best`, without a selection."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model

MAX_IMAGES, MAX_HELD_OUT = 192, 32
"""Maximum images for the fit and for evaluation: more would dominate the time."""


@dataclass(frozen=True, slots=True)
class Fast:
    """Method with a single candidate, fitted to three fourths of the images."""

    name: str = "fast"
    summary: str = "the usual choice of `best`, from at most 192 images, in half of the time"

    @property
    def max_images(self) -> int:
        """`MAX_IMAGES`: the estimate of unseen extremes compensates for fewer images."""
        return MAX_IMAGES

    def remove_guard(self) -> None:
        """Return None: the method has no guard."""

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Calibrate a model; see `Method.find`."""
        from tcc.compiler.quant.methods.candidate_selection import list_equalizing_builders
        from tcc.compiler.quant.methods.cross_fitting import create_evaluator, observe_folds
        from tcc.compiler.reference.expected_loss import estimate_losses

        fit_set, held_out = dataset.split()
        # Without a selection: the candidate with the largest headroom.
        builder, *_ = list_equalizing_builders(lowered_model, fit_set, options.threads)
        candidate = builder.build_candidate(observe_folds(lowered_model, fit_set, options))
        calibration_result = CalibrationResult(
            candidate.calibration, candidate.traces, candidate.name
        )
        if fit_set is dataset:  # too few images to hold any out
            return calibration_result
        evaluator = create_evaluator(
            lowered_model, held_out.select_first(MAX_HELD_OUT), options.threads
        )
        expected = estimate_losses(
            lowered_model, evaluator.expected, evaluator.compute_outputs(candidate.calibration)
        )
        return replace(calibration_result, held_out=len(held_out), expected=expected)
