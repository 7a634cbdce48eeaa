"""Free-response ROC curve: sensitivity for lesions by false positives per slide.

As defined by CAMELYON16 (camelyon16.grand-challenge.org/Evaluation, and its `Evaluation_FROC.py`).
With the lesions L of all slides, the highest probability h(l) of a detection in lesion l, and the
detections F outside all lesions, a threshold t gives

- the sensitivity S(t) = |{l in L : h(l) >= t}| / |L|, and
- the false positives per slide R(t) = |{f in F : p(f) >= t}| / slides, of all slides or of those
  without tumor.

The curve starts at (0, 0) and has a point for each probability of a detection, so detections with
equal probability form one point. It is linear between points and constant after the last. One
detection per lesion counts; the others are not false positives. The score is the mean of the
sensitivities at `RATES`. The challenge's program omits the lowest probability if every lesion has a
detection; here it is a point like the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.reference import confidence_intervals
from tcc.compiler.reference.confidence_intervals import Bounds

Float64 = NDArray[np.float64]
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per slide at which sensitivities are reported."""
RESAMPLES = 1000
MAX_WORK = 1 << 28
"""Maximum number of values (resamples x detections) of a bootstrap; takes seconds."""


@dataclass(frozen=True, eq=False)
class FrocSlide:
    """Probabilities of a slide's detections.

    Args:
        lesions: The highest probability for each lesion, NaN if it is not detected.
        false: Probabilities of detections outside lesions.
        counts: Whether false positives count on this slide.
    """

    lesions: Float64
    false: Float64
    counts: bool = True


@dataclass(frozen=True, slots=True)
class FrocFigures:
    """Sensitivity at each of `RATES`, their mean, and its confidence interval."""

    sensitivities: tuple[float, ...]
    score: float
    bounds: Bounds | None


def compute_froc(slides: Sequence[FrocSlide], seed: int = 0) -> FrocFigures | None:
    """Return the figures of the curve of some slides.

    None if there are no lesions, or if false positives count on no slide.

    The interval is the percentile bootstrap over slides; None for fewer than two slides.

    Args:
        slides: Detections on each slide.
        seed: Seed of the bootstrap.
    """
    count = len(slides)
    curve = _Curve(slides)
    sensitivities = curve.compute_sensitivities(np.ones(count))
    if sensitivities is None:
        return None
    score = float(np.mean(sensitivities))
    bounds = None
    resamples = min(RESAMPLES, MAX_WORK // max(1, curve.size))
    if count > 1 and resamples >= confidence_intervals.MIN_RESAMPLES:
        draw_counts = np.random.default_rng(seed).multinomial(
            count, np.full(count, 1 / count), resamples
        )
        resampled = [
            curve.compute_sensitivities(weights.astype(np.float64)) for weights in draw_counts
        ]
        scores = [float(np.mean(resample)) for resample in resampled if resample is not None]
        bounds = confidence_intervals.compute_percentile_interval(np.array(scores, np.float64))
    return FrocFigures(tuple(sensitivities.tolist()), score, bounds)


class _Curve:
    """Detections of all slides, in descending order of probability."""

    def __init__(self, slides: Sequence[FrocSlide]) -> None:
        hits = [slide.lesions[~np.isnan(slide.lesions)] for slide in slides]
        false = [slide.false if slide.counts else slide.false[:0] for slide in slides]
        parts = [probabilities for pair in zip(hits, false, strict=True) for probabilities in pair]
        sizes = [len(part) for part in parts]
        probability = np.concatenate([*parts, np.empty(0)])
        order = np.argsort(-probability, kind="stable")
        self.slide = np.repeat(np.arange(len(sizes)) // 2, sizes)[order]
        self.is_hit = np.repeat(np.arange(len(sizes)) % 2 == 0, sizes)[order]
        ordered = probability[order]
        # Equal probabilities have no order: the point is at the last of them.
        self.last_index = np.flatnonzero(
            np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
        )
        self.lesions = np.array([len(slide.lesions) for slide in slides], np.float64)
        self.counts = np.array([slide.counts for slide in slides], np.float64)
        self.size = len(ordered)

    def compute_sensitivities(self, weights: Float64) -> Float64 | None:
        """Return the sensitivities at `RATES` with weighted slides; None if undefined."""
        lesions, slides = float(self.lesions @ weights), float(self.counts @ weights)
        if not lesions or not slides:
            return None
        detection_weights = weights[self.slide]
        sensitivities = (
            np.cumsum(np.where(self.is_hit, detection_weights, 0))[self.last_index] / lesions
        )
        false_positives = (
            np.cumsum(np.where(self.is_hit, 0, detection_weights))[self.last_index] / slides
        )
        return _sample_curve(np.append(0, false_positives), np.append(0, sensitivities))


def _sample_curve(rates: Float64, sensitivities: Float64) -> Float64:
    """Return a curve at `RATES`; of several points at one rate, the last is used."""
    lower_index = np.searchsorted(rates, RATES, side="right") - 1
    upper_index = np.minimum(lower_index + 1, len(rates) - 1)
    gap = rates[upper_index] - rates[lower_index]
    fraction = np.divide(
        np.array(RATES) - rates[lower_index], gap, out=np.zeros(len(RATES)), where=gap > 0
    )
    return np.asarray(
        sensitivities[lower_index]
        + fraction * (sensitivities[upper_index] - sensitivities[lower_index])
    )
