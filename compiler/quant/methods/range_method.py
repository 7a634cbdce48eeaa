"""Methods that find ranges from what was seen of the float model's values."""

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
    """A method by one search for ranges.

    Attributes:
        name: The word after `--method`.
        summary: What it does, in a line.
        search: The search.
        guarded: Whether images held out decide between what it finds and min-max, since it may
            clip so much that the network suffers.
        in_best: Whether the method `best` tries it.
        samples: Whether the search looks at samples of values, not at their extremes alone.
    """

    name: str
    summary: str
    search: Search
    guarded: bool = False
    in_best: bool = False
    samples: bool = True

    @property
    def most(self) -> None:
        """None: each image may show an extreme."""

    def unguarded(self) -> "RangeMethod | None":
        """Return the method with its own scales, as `Method.unguarded` says."""
        return replace(self, guarded=False) if self.guarded else None

    def seen(self, ready: "Model", data: "DataSet", options: RunOptions) -> "Statistics":
        """Return what the search looks at: samples take most of the memory.

        Args:
            ready: The ready model.
            data: Images that it takes.
            options: How to run them.
        """
        from tcc.compiler.quant.observe.observer import observe
        from tcc.compiler.quant.observe.sampling import POSITIONS

        return observe(ready, data, options, POSITIONS if self.samples else 0)

    def find(self, ready: "Model", data: "DataSet", options: RunOptions) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""
        from tcc.compiler.quant.calibration import Calibration
        from tcc.compiler.quant.methods.cross_fitting import CrossFitting
        from tcc.compiler.quant.methods.minmax_guard import guarded
        from tcc.compiler.reference.expected_loss import expected_losses

        if self.guarded:
            return guarded(self.name, self.search, ready, data, options)
        seen = self.seen(ready, data, options)

        def fit(some: "Statistics") -> Calibration:
            part = self.search(ready, some, options.threads)
            return Calibration(part.ranges, part.rounded)

        # Judging in turn costs as many runs again; it chooses nothing here, and gives the statement
        # of what unseen images lose.
        crossed = CrossFitting(ready, data, seen, options.threads)
        expected = (
            expected_losses(ready, crossed.expected, crossed.outputs(fit), clipped=True)
            if crossed.folds
            else {}
        )
        # The result learns from all images: those that judged are lost only to the estimate.
        found = self.search(ready, seen, options.threads)
        return CalibrationResult(
            Calibration(found.ranges, found.rounded), found.traces, self.name, expected=expected
        )
