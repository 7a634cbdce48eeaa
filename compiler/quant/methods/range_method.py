"""Methods that search ranges from statistics of the fp32 model's values."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.methods.range_search import Search
from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.observe.statistics import Statistics


@dataclass(frozen=True, slots=True)
class RangeMethod:
    """A method with a single search for ranges.

    Attributes:
        name: The method's name after `--method`.
        summary: What it does, for the command's help.
        search: The search.
        guarded: Whether held-out images decide between the search and min-max, because the search
            can clip too much.
        in_best: Whether the method `best` tries it.
        samples: Whether the search needs samples of values, not only their extremes.
    """

    name: str
    summary: str
    search: Search
    guarded: bool = False
    in_best: bool = False
    samples: bool = True

    @property
    def max_images(self) -> None:
        """None: any image may have an extreme."""

    def remove_guard(self) -> "RangeMethod | None":
        """Return the method without its guard; see `Method.remove_guard`."""
        return replace(self, guarded=False) if self.guarded else None

    def collect_statistics(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> "Statistics":
        """Return the statistics that the search needs; samples take most of the memory.

        Args:
            lowered_model: The lowered model.
            dataset: Images for the model.
            options: How to run them.
        """
        from tcc.compiler.quant.observe.observer import observe
        from tcc.compiler.quant.observe.sampling import POSITIONS

        return observe(lowered_model, dataset, options, POSITIONS if self.samples else 0)

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Calibrate a model; see `Method.find`."""
        from tcc.compiler.quant.calibration import Calibration
        from tcc.compiler.quant.methods.cross_fitting import CrossFitting
        from tcc.compiler.quant.methods.minmax_guard import calibrate_guarded
        from tcc.compiler.reference.expected_loss import estimate_losses

        if self.guarded:
            return calibrate_guarded(self.name, self.search, lowered_model, dataset, options)
        statistics = self.collect_statistics(lowered_model, dataset, options)

        def fit(part_statistics: "Statistics") -> Calibration:
            part_ranges = self.search(lowered_model, part_statistics, options.threads)
            return Calibration(part_ranges.ranges, part_ranges.rounded)

        # Cross-fitting doubles the number of runs. It chooses nothing here; it estimates the loss
        # on unseen images.
        cross_fitting = CrossFitting(lowered_model, dataset, statistics, options.threads)
        expected = (
            estimate_losses(
                lowered_model,
                cross_fitting.expected,
                cross_fitting.compute_outputs(fit),
                clipped=True,
            )
            if cross_fitting.folds
            else {}
        )
        # The result is fitted to all images.
        searched_ranges = self.search(lowered_model, statistics, options.threads)
        return CalibrationResult(
            Calibration(searched_ranges.ranges, searched_ranges.rounded),
            searched_ranges.traces,
            self.name,
            expected=expected,
        )
