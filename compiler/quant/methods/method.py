"""Interface and result of calibration methods."""

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
    """A calibration and how it was found.

    Attributes:
        calibration: The calibration.
        traces: Trace of each value's scale.
        used: The chosen candidate.
        held_out: Number of held-out images, which influenced nothing.
        qualities_by_candidate: Quality of each candidate on images that it was not fitted to.
        notices: Notices for the user.
        expected: Expected loss on unseen images, by output.
        repeats: Digests of ignored images: other files have the same pixels.
        saturation: Shares of saturated values; None before they are counted.
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
    """A calibration method of `--method`.

    Modules of methods import no heavy packages before `find`, because `--help` lists the methods.
    """

    @property
    def name(self) -> str:
        """The method's name after `--method`."""
        ...

    @property
    def summary(self) -> str:
        """What the method does, for the command's help."""
        ...

    @property
    def max_images(self) -> int | None:
        """Maximum number of images, the first by digest; None for all."""
        ...

    def remove_guard(self) -> "Method | None":
        """Return the method without its guard; None if it has none.

        A guard can replace a method's scales by min-max's.
        """
        ...

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Calibrate a model.

        The result does not depend on `options`, nor on the names or the order of the images.

        Args:
            lowered_model: A model after the passes before calibration.
            dataset: Images for the model.
            options: How to run the images.

        Raises:
            UserError: An image is damaged, or a value is not finite (E0720).
        """
        ...
