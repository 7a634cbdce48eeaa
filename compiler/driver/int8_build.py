"""What `tcc build` is asked of integers, and what it works with."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.driver.weights_and_images import take_images
from tcc.compiler.support.console import Report, Stages

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.driver.stored_stages import StoredStages


FloorOptions = tuple[float | None, float | None, float | None, float | None]
"""The values of `--min-cosine`, `--max-drop`, `--min-correlation` and `--max-error`."""


@dataclass(frozen=True, slots=True)
class Int8Options:
    """What the command line says of integers."""

    calibration: Path | None = None
    data: Path | None = None
    method: str | None = None
    guard: bool = True
    bounds: FloorOptions = (None, None, None, None)
    mixed: bool = False
    split: str | None = None
    min_images: int = 1
    agree: int = 0
    probes: bool = False
    images: bool = False
    allow_few: bool = False


@dataclass(frozen=True)
class Int8Build:
    """What a build works with: what was asked, whom to tell, and how models go through passes.

    `weights` is the file of the weights, if they are of one; `stored` are the stages' results that
    are known already.
    """

    report: Report
    stages: Stages
    chosen: ChosenSpec
    given: "WeightSource"
    asked: Int8Options
    passing: PassOptions
    weights: Path | None
    stored: "StoredStages"

    def agreeing(self) -> "DataSet | None":
        """Return the images that targets are compared over, if any are asked for.

        Raises:
            UserError: As for `images`.
        """
        from tcc.compiler.data.dataset import check

        if not self.asked.agree:
            return None
        (source,) = self.chosen.spec.graph.inputs
        return check(self.images.first(self.asked.agree), source)

    @cached_property
    def images(self) -> "DataSet":
        """Return the images to calibrate with.

        Raises:
            UserError: As for `take_images`.
        """
        split = run_splits.of_weights(self.asked.split, self.weights)
        return take_images(self.report, self.chosen, self.asked.data, split)
