"""How a network's raw outputs are read, where that was fitted after training."""

from math import exp
from typing import Annotated

from msgspec import Meta

from tcc.compiler.support.json_records import OmitDefault, Record

MAX_TEMPERATURE = 1000.0
"""The largest temperature, and one over the least."""


class FittingData(Record, frozen=True):
    """What values were fitted on: images, by the digest of their set, and the program that ran.

    `likelihood` is the mean negative logarithm of their classes' probabilities, at temperature 1
    and at the one fitted; None where the output has no probabilities.
    """

    digest: str
    images: int
    program: str
    likelihood: tuple[float, float] | None


class ThresholdCheck(Record, frozen=True):
    """How the threshold of class `label` does on images that it was not fitted to.

    Of `positives` images of the class, `detected` are taken for it; of `negatives` others,
    `rejected` are not. `default_detected` and `default_rejected` are those of the rule without a
    threshold: the largest output, or a probability of 0.5. `target` is the sensitivity that was
    asked for, and None with another criterion. `at_least` is the exact lower bound of the
    sensitivity with 95 % confidence, and `reached` whether it is the target or more.
    """

    label: str
    target: float | None
    positives: int
    detected: int
    negatives: int
    rejected: int
    default_detected: int
    default_rejected: int
    at_least: float
    reached: bool | None


class HeldOutCheck(Record, frozen=True):
    """How an operating point does on images that it was not fitted to, by the digest of their set.

    `likelihood` is as in `FittingData`, and `notice` what a user of the point must know.
    """

    digest: str
    images: int
    likelihood: tuple[float, float] | None
    thresholds: tuple[ThresholdCheck, ...]
    notice: str


class OperatingPoint(Record, frozen=True):
    """What is fitted of one output.

    `thresholds` are log-odds, compared after the temperature: what reaches one is yes. Of a row of
    classes there is one, that of class `positive`, which is taken where its log-odds reach it, and
    else the best of the others; of decisions one each; or none, where the temperature alone holds.
    `criterion` says how they were chosen, and `target` the sensitivity that was asked for. `judged`
    is None in bundles of older versions.
    """

    output: str
    temperature: Annotated[float, Meta(ge=1 / MAX_TEMPERATURE, le=MAX_TEMPERATURE)]
    positive: int | None
    thresholds: tuple[float, ...]
    criterion: str
    fitted: FittingData
    target: OmitDefault[float | None] = None
    judged: OmitDefault[HeldOutCheck | None] = None

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The thresholds as probabilities."""
        # Two forms of the logistic function, each with an exponential of no positive number: `exp`
        # ends at 709 for doubles, log-odds may be beyond.
        return tuple(
            1 / (1 + exp(-threshold)) if threshold > 0 else exp(threshold) / (1 + exp(threshold))
            for threshold in self.thresholds
        )
