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


class CertifiedRate(Record, frozen=True):
    """A lower bound of a sensitivity or specificity on images like those of the fit.

    It is `at_least` in a share `confidence` of all draws of such images. Of `images`, one of each
    of `cases` counts (None: the cases are unknown, so each image counts). `misses` of those are on
    the wrong side of the threshold, or may be if the threshold was chosen for this rate.
    """

    at_least: float
    confidence: float
    images: int
    cases: int | None
    misses: int

    @property
    def counted(self) -> int:
        """Number of images that count."""
        return self.images if self.cases is None else self.cases


class RateCertificate(Record, frozen=True):
    """What a threshold of class `label` promises for one rate or for several at the same time.

    In a share `confidence` of all draws of the images of the fit, all of its bounds hold. `ppv` and
    `npv` are lower bounds of the predictive values at `prevalence`, which follow from both rates.
    `candidates` is the number of thresholds of which one was chosen by these images. On the images
    of the fit, `detected` of `positives` images of the class reach the threshold, and `rejected` of
    `negatives` others do not.
    """

    label: str
    confidence: float
    sensitivity: CertifiedRate | None
    specificity: CertifiedRate | None
    positives: int
    detected: int
    negatives: int
    rejected: int
    prevalence: float | None = None
    ppv: float | None = None
    npv: float | None = None
    candidates: int = 1


class PredictionSets(Record, frozen=True):
    """Sets of classes that contain the true one: all whose output is near the largest.

    A class is in the set of an image if the largest output minus its own, in float32, is at most
    its gap. `gaps` is one number for all classes, or with `by_class` one for each; None if too few
    images have the class, which then is in every set. In a share `confidence` of all draws of the
    images of the fit, a share `coverage` or more of such images (of each class) have their class in
    the set. `counted` images, or cases if `cases`, give each gap, and `allowed_misses` of them may
    lack their class (None: too few). `mean_size` is that of the sets of the images of the fit.
    """

    coverage: float
    confidence: float
    by_class: bool
    gaps: tuple[float | None, ...]
    counted: tuple[int, ...]
    cases: bool
    allowed_misses: tuple[int | None, ...]
    mean_size: float


class Abstention(Record, frozen=True):
    """Which images get no answer: those whose two largest outputs are at most `margin` apart.

    The difference is in float32; a margin of -1 answers all images. In a share `confidence` of all
    draws of the images of the fit, at most a share `wrong_share` of all such images is answered
    wrongly. `counted` images, or cases if `cases`, give the margin, and `allowed_wrong` of them may
    be answered wrongly. Of `images` of the fit, `answered` get an answer, `wrong` a wrong one.
    """

    wrong_share: float
    confidence: float
    margin: float
    counted: int
    cases: bool
    allowed_wrong: int
    images: int
    answered: int
    wrong: int


class SetsCheck(Record, frozen=True):
    """How prediction sets perform on images that they were not fitted on.

    For all classes, or with `by_class` for each: `covered` of `counted` images (or cases) have
    their class in the set. `mean_size` is that of the sets of all images.
    """

    counted: tuple[int, ...]
    covered: tuple[int, ...]
    mean_size: float


class AbstentionCheck(Record, frozen=True):
    """How abstention performs on images that it was not fitted on.

    Of `images`, `answered` get an answer and `wrong` a wrong one. Of `counted` images (or cases),
    `counted_wrong` are answered wrongly.
    """

    images: int
    answered: int
    wrong: int
    counted: int
    counted_wrong: int


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
    sets: OmitDefault[SetsCheck | None] = None
    abstention: OmitDefault[AbstentionCheck | None] = None


class OperatingPoint(Record, frozen=True):
    """The fitted temperature and thresholds of one output.

    `thresholds` are log-odds, compared after the temperature; a value that reaches its threshold is
    positive. For exclusive classes there is one: class `positive` is chosen if its log-odds reach
    it, otherwise the best of the others. For decisions there is one each. Without thresholds, only
    the temperature applies. `criterion` is how they were chosen, and `target` the requested
    sensitivity, which `certificates` promise, if there are any; `rate_certificates` promise a
    specificity, or several rates. `sets` and `abstention` use the raw outputs, without temperature
    and thresholds. `judged` is None in bundles of older versions.
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
    rate_certificates: OmitDefault[tuple[RateCertificate, ...]] = ()
    sets: OmitDefault[PredictionSets | None] = None
    abstention: OmitDefault[Abstention | None] = None

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The thresholds as probabilities."""
        # Two forms of the logistic function, neither of which takes `exp` of a positive number:
        # doubles overflow above 709, and log-odds may be larger.
        return tuple(
            1 / (1 + exp(-threshold)) if threshold > 0 else exp(threshold) / (1 + exp(threshold))
            for threshold in self.thresholds
        )
