"""Operating points: temperatures and thresholds for raw outputs, fitted after training."""

from math import exp
from typing import Annotated

from msgspec import Meta

from tcc.compiler.support.json_records import OmitDefault, Record

MAX_TEMPERATURE = 1000.0
"""The largest temperature; its reciprocal is the smallest."""


class FittingData(Record, frozen=True):
    """The data of a fit: the number of images, the digest of their set, and the program that ran.

    `likelihood` is the mean negative log-likelihood of the true classes, at temperature 1 and at
    the fitted one; None if the output has no probabilities.
    """

    digest: str
    images: int
    program: str
    likelihood: tuple[float, float] | None


class ThresholdCertificate(Record, frozen=True):
    """What a threshold of class `label` promises on images like those that it was fitted to.

    In a share `confidence` of all draws of such images, the sensitivity is at least the target. Of
    `positives` images of the class, one of each of `cases` counts (None: the cases are unknown, so
    each image counts), and the threshold may miss `allowed_misses` of those. Of `negatives` other
    images, `rejected` are below the threshold: the specificity that the sensitivity costs.
    """

    label: str
    confidence: float
    positives: int
    cases: int | None
    allowed_misses: int
    negatives: int
    rejected: int


class ThresholdCheck(Record, frozen=True):
    """How the threshold of class `label` performs on images that it was not fitted on.

    Of `positives` images of the class, `detected` are assigned to it; of `negatives` others,
    `rejected` are not. `default_detected` and `default_rejected` are the counts without a
    threshold: the largest output, or a probability of 0.5. `target` is the requested sensitivity,
    None with another criterion. `at_least` is the exact lower confidence bound of the sensitivity
    at 95 %, and `reached` whether it is the target or more.
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
    """How an operating point performs on images that it was not fitted on.

    `digest` is that of their set, `likelihood` is as in `FittingData`, and `notice` is a warning
    for users of the point.
    """

    digest: str
    images: int
    likelihood: tuple[float, float] | None
    thresholds: tuple[ThresholdCheck, ...]
    notice: str


class OperatingPoint(Record, frozen=True):
    """The fitted temperature and thresholds of one output.

    `thresholds` are log-odds, compared after the temperature; a value that reaches its threshold is
    positive. For exclusive classes there is one: class `positive` is chosen if its log-odds reach
    it, otherwise the best of the others. For decisions there is one each. Without thresholds, only
    the temperature applies. `criterion` is how they were chosen, and `target` the requested
    sensitivity, which `certificates` promise, if there are any. `judged` is None in bundles of
    older versions.
    """

    output: str
    temperature: Annotated[float, Meta(ge=1 / MAX_TEMPERATURE, le=MAX_TEMPERATURE)]
    positive: int | None
    thresholds: tuple[float, ...]
    criterion: str
    fitted: FittingData
    target: OmitDefault[float | None] = None
    judged: OmitDefault[HeldOutCheck | None] = None
    certificates: OmitDefault[tuple[ThresholdCertificate, ...]] = ()

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The thresholds as probabilities."""
        # Two forms of the logistic function, neither of which takes `exp` of a positive number:
        # doubles overflow above 709, and log-odds may be larger.
        return tuple(
            1 / (1 + exp(-threshold)) if threshold > 0 else exp(threshold) / (1 + exp(threshold))
            for threshold in self.thresholds
        )
