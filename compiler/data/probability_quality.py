"""Records of how good a network's probabilities are: calibration error and decision curves.

`compiler/reference/reliability.py` and `compiler/reference/decision_curve.py` compute them. A
training writes them into its report.
"""

from math import isfinite
from typing import Annotated

from msgspec import Meta

from tcc.compiler.support.json_records import Record
from tcc.compiler.support.value_views import count

MAX_BINS, MAX_THRESHOLDS = 100, 1000
"""Most bins and thresholds of a stored record."""
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Numbers = Annotated[tuple[float, ...], Meta(max_length=MAX_THRESHOLDS)]


class ConfidenceBin(Record, frozen=True):
    """The images with a confidence in one bin: their number, mean confidence and accuracy.

    `low` to `high` is the 95 % confidence interval of the accuracy.
    """

    images: Annotated[int, Meta(ge=1)]
    confidence: Share
    accuracy: Share
    low: Share
    high: Share


class Reliability(Record, frozen=True):
    """The expected calibration error (ECE), and what chance alone explains of it.

    The confidence is the probability of the predicted class. `error` is the mean over the images of
    |accuracy - mean confidence| of their bin, and `bins` has the bins with images. A calibrated
    network has an error too, because a bin has few images: `expected` is its mean, and it exceeds
    `limit` in at most a share 1 - `level` of draws. Images of one of `cases` (None: unknown) may be
    alike, so that a case counts once in these two. `label` is the name of a decision, or empty for
    exclusive classes.
    """

    label: str
    images: Annotated[int, Meta(ge=1)]
    cases: Annotated[int, Meta(ge=1)] | None
    error: Share
    expected: Share
    limit: Share
    level: Share
    draws: Count
    bins: Annotated[tuple[ConfidenceBin, ...], Meta(min_length=1, max_length=MAX_BINS)]

    @property
    def is_miscalibrated(self) -> bool:
        """Whether the error is larger than chance explains."""
        return self.error > self.limit

    @property
    def confidence(self) -> float:
        """The mean confidence of all images."""
        return sum(b.images * b.confidence for b in self.bins) / self.images

    @property
    def accuracy(self) -> float:
        """The share of images with the correct class, or the correct decision."""
        return sum(b.images * b.accuracy for b in self.bins) / self.images

    def describe(self) -> str:
        """Return the error, its limit by chance, and what follows, as one sentence."""
        images = _count_images(self.images, self.cases)
        subject = f"`{self.label}`: " if self.label else ""
        text = (
            f"{subject}ECE {self.error:.4f} on {images}; on such images, a calibrated network has "
            f"{self.expected:.4f} on average, and at most {self.limit:.4f} in "
            f"{100 * self.level:.4g} % of draws: "
        )
        if self.is_miscalibrated:
            return (
                f"{text}miscalibrated (mean confidence {self.confidence:.4f}, "
                f"accuracy {self.accuracy:.4f})"
            )
        return (
            f"{text}no error beyond chance is shown; these images cannot show one below that limit"
        )


def _count_images(images: int, cases: int | None) -> str:
    """Return the number of images and, if they are known, of their cases."""
    return count(images, "image") + ("" if cases is None else f" of {count(cases, 'case')}")


class DecisionCurve(Record, frozen=True):
    """The net benefit of acting on images of some classes, by probability threshold.

    An image is acted on if the probability of `classes` reaches the threshold p. The net benefit is
    TP/n - FP/n * p/(1 - p) for n images; `low` to `high` is its 95 % confidence interval, with
    images of one of `cases` (None: unknown) counting once. `treat_all` is the net benefit of acting
    on every image; that of acting on none is 0. `positives` images are of `classes`.
    """

    classes: Annotated[tuple[str, ...], Meta(min_length=1)]
    images: Annotated[int, Meta(ge=1)]
    cases: Annotated[int, Meta(ge=1)] | None
    positives: Count
    thresholds: Numbers
    net_benefit: Numbers
    low: Numbers
    high: Numbers
    treat_all: Numbers

    @property
    def name(self) -> str:
        """The classes, joined with `+` as in a label."""
        return "+".join(self.classes)

    @property
    def is_consistent(self) -> bool:
        """Whether every list has a finite number for each threshold, and the counts match."""
        columns = (self.thresholds, self.net_benefit, self.low, self.high, self.treat_all)
        are_complete = {len(column) for column in columns} == {len(self.thresholds)}
        are_finite = all(isfinite(number) for column in columns for number in column)
        return are_complete and are_finite and self.positives <= self.images

    def describe(self) -> str:
        """Return what the curve is about: the classes, and their share of the images."""
        images = _count_images(self.images, self.cases)
        return (
            f"net benefit of acting on `{self.name}`, on {images}, "
            f"{self.positives / self.images:.2%} of them positive"
        )
