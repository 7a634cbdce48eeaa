"""A method for when time is short: the default's own candidate, without a choice among several."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model

MAX_IMAGES, MAX_HELD_OUT = 192, 32
"""Images that it takes, and that judge, at most: more would take longer than all else."""


@dataclass(frozen=True, slots=True)
class Fast:
    """The method that makes one candidate, once, of three fourths of the images; the rest judge."""

    name: str = "fast"
    summary: str = "what `best` mostly ends with, of 192 images at most: half of its time"

    @property
    def max_images(self) -> int:
        """`MAX_IMAGES`: an estimate of unseen extremes makes up for the images left out."""
        return MAX_IMAGES

    def remove_guard(self) -> None:
        """Return None: its scales are its own already."""

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.methods.candidate_selection import list_equalizing_builders
        from tcc.compiler.quant.methods.cross_fitting import create_evaluator, observe_folds
        from tcc.compiler.reference.expected_loss import estimate_losses

        fit_set, held_out = dataset.split()
        # With no judge there is nothing to choose by: the one that leaves unseen images the most
        # room.
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
