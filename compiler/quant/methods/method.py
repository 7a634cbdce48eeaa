"""What a calibration method is, what it is told, and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.calibration import Calibration
    from tcc.compiler.quant.methods.searched_ranges import ScaleTrace
    from tcc.compiler.quant.program.saturated_values import CalibrationSaturation
    from tcc.compiler.reference.accuracy_floor import Qualities
    from tcc.compiler.reference.expected_loss import ExpectedLoss


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A calibration and how it came about.

    `used` is the candidate that won; `qualities_by_candidate` says how each did on images which it
    had not learnt from. `held_out` images had no part in all that. `expected` says what is lost on
    images that nobody has seen. `notices` are what the user must know. `repeats` are the digests of
    images that were left out, since others show the same. `saturation` says how many values
    saturate on images of the set; None before they are counted.
    """

    calibration: "Calibration"
    traces: "Mapping[str, ScaleTrace]"
    used: str
    held_out: int = 0
    qualities_by_candidate: "Mapping[str, Qualities]" = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    expected: "Mapping[str, ExpectedLoss]" = field(default_factory=dict)
    repeats: tuple[str, ...] = ()
    saturation: "CalibrationSaturation | None" = None


class Method(Protocol):
    """One way to calibrate: what `--method` may name.

    The command's help lists methods, so that their modules load nothing heavy before `find`.
    """

    @property
    def name(self) -> str:
        """The word after `--method`."""
        ...

    @property
    def summary(self) -> str:
        """What it does, in a line of the command's help."""
        ...

    @property
    def max_images(self) -> int | None:
        """How many images it takes at most, the first by digest; None is all."""
        ...

    def remove_guard(self) -> "Method | None":
        """Return the method with its own scales, whatever they lose; None where nothing guards it.

        A guard may replace what a method finds by what min-max finds.
        """
        ...

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Return the calibration of a model.

        Args:
            lowered_model: A model after the passes that go before calibration.
            dataset: Images that the model takes.
            options: How to run them; neither these nor the images' names or order change a bit.

        Raises:
            UserError: An image is damaged, or a value is not finite (E0720).
        """
        ...
