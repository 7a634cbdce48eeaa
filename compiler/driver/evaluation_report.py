"""What `tcc eval` finds of one network: figures with intervals, and the document of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.saturation import Saturation
    from tcc.compiler.ir.operating_point import OperatingPoint
    from tcc.compiler.reference.classification_metrics import Scores
    from tcc.compiler.reference.confidence_intervals import Bounds
    from tcc.compiler.reference.judged_classes import JudgedClasses
    from tcc.compiler.support.diagnostics import Diagnostic


@dataclass(frozen=True)
class Resampling:
    """How many resamples are asked for, if any are, and the seed of their draw."""

    count: int | None
    seed: int


@dataclass(frozen=True)
class EvaluationReport:
    """How a network did on labelled images; `about` says what ran, for the document.

    `stored` is the bundle that the operating point was just stored in; `saturation` how often
    integers are saturated, where that is asked for. `warnings` say what of the
    operating point does not hold on these images.
    """

    about: dict[str, Any]
    found: "Evaluated"
    point: "OperatingPoint | None" = None
    stored: str | None = None
    saturation: "Saturation | None" = None
    warnings: "tuple[Diagnostic, ...]" = ()

    @property
    def name(self) -> str:
        """What ran, in one word."""
        return str(self.about.get("bundle") or self.about["spec"])

    @cached_property
    def scores(self) -> "Scores":
        """The figures of the counts."""
        return self.found.scores

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, or their indices."""
        return self.found.given.labels

    @cached_property
    def judged(self) -> "JudgedClasses":
        """What the images were taken for."""
        from tcc.compiler.reference.judged_classes import JudgedClasses

        found = self.found
        odds = found.odds(self.point.temperature if self.point else 1.0)
        return JudgedClasses(self.labels, found.given.holds, found.taken, odds, self.scores)

    def averages(self, drawn: Resampling) -> "dict[str, Bounds | None]":
        """Return the intervals of averages over classes, by a bootstrap."""
        return self.judged.averages(drawn.count, drawn.seed)

    @property
    def log_loss(self) -> float | None:
        """The mean negative log-likelihood of the images' classes; None without probabilities."""
        from tcc.compiler.reference import decision_rule

        given, raw = self.found.given, self.found.raw
        if raw is None or given.output.activation == "none":
            return None
        # One value tells two classes apart: its likelihood is that of the second.
        holds = given.holds[:, 1:] if given.single else given.holds
        temperature = self.point.temperature if self.point else 1.0
        return decision_rule.likelihood(given.output.activation, raw, holds, temperature)


@dataclass(frozen=True)
class SaturationReport:
    """What was counted on images whose accuracy cannot be measured.

    `about` says what ran, `refusal` refusal nothing is known of their classes.
    """

    about: dict[str, Any]
    data: "DataSet"
    path: Path
    counts: "Saturation"
    refusal: "Diagnostic"
