"""Confidence intervals and tests for figures measured on a limited number of images.

Shares of images (accuracy, sensitivity, specificity) have the exact interval of Clopper and
Pearson (Biometrika 26, 1934). It contains the true share in at least 95 % of all datasets, however
few images there are. Unlike a bootstrap it does not shrink to a point if all images are correct.
The area under a ROC curve has Newcombe's interval (Statistics in Medicine 25, 2006, method 5). It
does not shrink to a point either. Averages over classes have no such formula and use the percentile
bootstrap over images.

The number of images needed to show a sensitivity follows from one-sided Clopper-Pearson bounds. A
sensitivity is shown with 95 % confidence if a network with exactly this sensitivity misses so few
of the images in at most 5 % of all samples. McNemar's test decides whether two networks differ by
more than chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb, erfc, exp, lgamma, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.reference import roc_curve
from tcc.compiler.support.json_records import Record

LEVEL = 0.95
"""Share of datasets with an interval that contains the true figure."""
NORMAL = 1.959963984540054
"""Quantile of the normal distribution at (1 + LEVEL) / 2."""
RESAMPLES = 1000
"""Default number of bootstrap resamples."""
MIN_RESAMPLES = 100
"""Minimum number of resamples for an interval."""
MAX_WORK = 1 << 27
"""Maximum number of values (resamples x images x classes) of a bootstrap; takes seconds."""
CHUNK = 1 << 22
"""Number of values of a bootstrap in memory at a time."""
_STEPS = 40

Truth = NDArray[np.bool_]
Float64 = NDArray[np.float64]
AVERAGES = tuple(f"{how}_{what}" for how in ("macro", "weighted") for what in
                 ("precision", "recall", "f1", "auc"))  # fmt: skip
"""The averages that have intervals."""


class Bounds(Record, frozen=True):
    """A closed interval."""

    low: float
    high: float


def describe_accuracy(correct: int, images: int) -> str:
    """Return the accuracy as text, with its exact 95 % confidence interval."""
    bounds = compute_share_interval(correct, images)
    if bounds is None:
        return "accuracy: no images"
    return (
        f"accuracy {correct / images:.1%} ({correct:,} of {images:,} images), "
        f"95 % confidence interval {bounds.low:.1%} to {bounds.high:.1%}"
    )


@cache
def compute_share_interval(count: float, total: float) -> Bounds | None:
    """Return the exact interval of a share of images; None without images.

    Numbers of images that are not integers are effective sample sizes.
    """
    if not total:
        return None
    tail = (1 - LEVEL) / 2
    # Clopper and Pearson's limits are quantiles of beta distributions (Brown, Cai and DasGupta,
    # Statistical Science 16, 2001, equation 4), which end at 0 and 1.
    low = 0.0 if count == 0 else compute_beta_quantile(tail, count, total - count + 1)
    high = 1.0 if count == total else compute_beta_quantile(1 - tail, count + 1, total - count)
    return Bounds(low, high)


def compute_auc_interval(auc: float | None, positives: int, negatives: int) -> Bounds | None:
    """Return the interval of an area under a ROC curve.

    Args:
        auc: The area; None if undefined.
        positives: Number of images of the class.
        negatives: Number of other images.
    """
    if auc is None or not positives or not negatives:
        return None

    def is_outside(hypothetical_auc: float) -> bool:
        spread = hypothetical_auc * (1 - hypothetical_auc) / (positives * negatives)
        pair_factor = (positives + negatives) / 2 - 1
        # Hanley and McNeil's variance of an area (Radiology 143, 1982) with Q1 = A / (2 - A) and
        # Q2 = 2 A^2 / (1 + A), simplified. It is computed for the hypothetical area and not for the
        # measured one, so that the interval does not shrink to a point.
        spread *= 1 + pair_factor * (
            (1 - hypothetical_auc) / (2 - hypothetical_auc)
            + hypothetical_auc / (1 + hypothetical_auc)
        )
        return abs(auc - hypothetical_auc) > NORMAL * sqrt(max(spread, 0.0))

    return Bounds(_find_boundary(is_outside, auc, 0.0), _find_boundary(is_outside, auc, 1.0))


def estimate_average_intervals(
    odds: Float64, truth: Truth, predicted: Truth, resamples: int, seed: int
) -> dict[str, Bounds | None]:
    """Return the bootstrap interval of each of `AVERAGES`.

    Images are drawn with replacement, with fewer resamples than requested if those would take
    long. None if all resamples are equal or too few can be drawn, because nothing is known then.

    Args:
        odds: Log-odds (images, classes).
        truth: Whether an image is of a class, of the same shape.
        predicted: Whether it was assigned to the class.
        resamples: Number of resamples.
        seed: Seed of the random numbers.
    """
    images, classes = truth.shape
    count = min(resamples, MAX_WORK // max(1, images * classes))
    if count < min(MIN_RESAMPLES, resamples):
        return dict.fromkeys(AVERAGES)
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, images))
    chunks = []
    for start in range(0, count, step):
        # Draw counts per image define a resample, so sums become matrix products.
        draw_counts = rng.multinomial(images, np.full(images, 1 / images), min(step, count - start))
        chunks.append(_compute_averages(odds, truth, predicted, draw_counts.astype(np.float64)))
    averages = np.concatenate(chunks)
    return {
        name: compute_percentile_interval(averages[:, index]) for index, name in enumerate(AVERAGES)
    }


def _compute_averages(
    odds: Float64, truth: Truth, predicted: Truth, draw_counts: Float64
) -> Float64:
    """Return `AVERAGES` of resamples (resamples, averages)."""
    hits, support, predicted_counts = (
        draw_counts @ (truth & predicted),
        draw_counts @ truth,
        draw_counts @ predicted,
    )
    areas = roc_curve.compute_resampled_aucs(odds, truth, draw_counts)
    metrics = [
        _compute_ratios(hits, predicted_counts),
        _compute_ratios(hits, support),
        _compute_ratios(2 * hits, support + predicted_counts),
    ]
    occurs = (support + predicted_counts > 0).astype(np.float64)
    is_finite = np.isfinite(areas)
    columns = []
    for weights, share in ((occurs, is_finite.astype(np.float64)), (support, support * is_finite)):
        columns += [
            _compute_ratios((metric * weights).sum(1), weights.sum(1)) for metric in metrics
        ]
        columns.append(_compute_ratios((np.nan_to_num(areas) * share).sum(1), share.sum(1), np.nan))
    return np.stack(columns, axis=1)


def _compute_ratios(numerators: Float64, denominators: Float64, default: float = 0.0) -> Float64:
    ratios = np.full(numerators.shape, default)
    np.divide(numerators, denominators, out=ratios, where=denominators > 0)
    return ratios


def compute_percentile_interval(figures: Float64) -> Bounds | None:
    """Return the percentile interval of bootstrap figures; None if all are equal.

    NaN marks resamples without a defined figure.
    """
    finite_figures = figures[np.isfinite(figures)]
    if not finite_figures.size or np.ptp(finite_figures) == 0:
        return None
    low, high = np.quantile(finite_figures, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Bounds(float(low), float(high))


def _find_boundary(is_beyond: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the boundary of a condition between a point without it and a point with it."""
    if not is_beyond(outside):
        return outside
    # Doubles have 53 bits, so sixty halvings are enough.
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if is_beyond(middle) else (middle, outside)
    return (inside + outside) / 2


def compute_beta_quantile(probability: float, a: float, b: float) -> float:
    """Return a quantile of the beta distribution."""
    return _find_boundary(
        lambda quantile: compute_incomplete_beta(quantile, a, b) > probability, 0.0, 1.0
    )


def compute_incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function.

    Computed with its continued fraction (Abramowitz and Stegun 26.5.8), on the side where it
    converges fast.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # Approximately the mean of the distribution. Beyond it the fraction converges slowly, and
    # I_x(a, b) = 1 - I_(1-x)(b, a) is used.
    if x > (a + 1) / (a + b + 2):
        return 1 - _expand_incomplete_beta(1 - x, b, a)
    return _expand_incomplete_beta(x, a, b)


def _expand_incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, for x up to about the mean."""
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    return front / _evaluate_fraction(
        [_compute_fraction_term(m, x, a, b) for m in range(1, _STEPS + int(2 * sqrt(a + b)))]
    )


def _compute_fraction_term(m: int, x: float, a: float, b: float) -> float:
    k, odd = divmod(m, 2)
    if odd:
        return -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
    return k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))


def _evaluate_fraction(terms: Sequence[float]) -> float:
    """Return 1 + t1 / (1 + t2 / (1 + ...))."""
    fraction = 1.0
    # From the innermost term outwards; forward recurrences divide growing numbers.
    for term in reversed(terms):
        fraction = 1 + term / fraction
    return fraction


RISK = 0.05
"""Maximum probability that a bound is wrong."""
MAX_IMAGES = 1 << 40
"""Maximum number of images that is searched."""


def compute_lower_bound(detected: int, positives: int) -> float:
    """Return the lower 95 % confidence bound of the sensitivity, from 0 to 1."""
    if detected == 0:
        return 0.0
    return compute_beta_quantile(RISK, detected, positives - detected + 1)


def is_shown(sensitivity: float, detected: int, positives: int) -> bool:
    """Return whether a sensitivity is shown with 95 % confidence."""
    if sensitivity <= 0:
        return True
    # The probability of so few misses if the sensitivity is not larger.
    missed = positives - detected
    return (
        sensitivity < 1 and detected > 0 and _compute_tail(sensitivity, positives, missed) <= RISK
    )


def is_contradicted(sensitivity: float, detected: int, positives: int) -> bool:
    """Return whether so few detected images refute a sensitivity with 95 % confidence."""
    # The probability of at least so many misses if the sensitivity is not smaller.
    missed = positives - detected
    return missed > 0 and 1 - _compute_tail(sensitivity, positives, missed - 1) <= RISK


def count_allowed_misses(sensitivity: float, positives: int, confidence: float) -> int | None:
    """Return how many positive images a threshold may miss so that a sensitivity is certified.

    The largest m with P(Binomial(n, 1 - s) <= m) <= 1 - confidence. If the threshold is at most the
    (m + 1)-th smallest score of n independent positive images, its sensitivity on images of the
    same kind is at least s in a share `confidence` of all draws of these n images. The scores need
    no distribution, and equal scores only increase the sensitivity (Wilks, Determination of Sample
    Sizes for Setting Tolerance Limits, 1941).

    Args:
        sensitivity: From 0 to 1.
        positives: Number of positive images.
        confidence: From 0 to 1.

    Returns:
        The number; None if there are too few images.
    """
    risk = 1 - confidence
    low, high = -1, positives  # the tail grows with the misses, and is 1 if all may be missed
    while high - low > 1:
        middle = (low + high) // 2
        is_allowed = _compute_tail(sensitivity, positives, middle) <= risk
        low, high = (middle, high) if is_allowed else (low, middle)
    return low if low >= 0 else None


def count_images_needed(
    sensitivity: float, missed: int, confidence: float = 1 - RISK
) -> int | None:
    """Return the number of positive images that show a sensitivity with a number of misses.

    Args:
        sensitivity: From 0 to 1.
        missed: Number of images that are not detected.
        confidence: From 0 to 1.

    Returns:
        The smallest number; None if no number is enough.
    """
    if sensitivity <= 0:
        return 0
    if sensitivity >= 1:
        return None
    risk = 1 - confidence
    low, high = missed, missed + 1
    while _compute_tail(sensitivity, high, missed) > risk:
        low, high = high, 2 * high
        if high > MAX_IMAGES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _compute_tail(sensitivity, middle, missed) <= risk else (middle, high)
        )
    return high


def _compute_tail(sensitivity: float, positives: int, missed: int) -> float:
    """Return the probability of at most `missed` misses among the positive images."""
    return compute_incomplete_beta(sensitivity, positives - missed, missed + 1)


MAX_EXACT_IMAGES = 1000
"""Maximum number of discordant images for the exact McNemar test."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """McNemar's test: numbers of images that only one of two networks gets right, and `p`.

    `p` is the probability of a difference at least this large if both are equally accurate.
    """

    first_only: int
    second_only: int
    p: float
    exact: bool


def compute_mcnemar(
    first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]
) -> PairedTest:
    """Return McNemar's test (Psychometrika 12, 1947) for the correct images of two networks.

    Exact, by the binomial distribution, up to `MAX_EXACT_IMAGES` discordant images; above that
    chi-squared with Edwards's correction.
    """
    # Only images that exactly one network gets right distinguish them.
    first_only, second_only = (
        int((first_correct & ~second_correct).sum()),
        int((second_correct & ~first_correct).sum()),
    )
    total = first_only + second_only
    if total <= MAX_EXACT_IMAGES:
        tail = sum(comb(total, k) for k in range(min(first_only, second_only) + 1))
        # Two-sided. Twice the smaller tail may exceed 1 if both numbers are equal.
        return PairedTest(first_only, second_only, float(min(1, 2 * tail / 2**total)), True)
    chi = max(0, abs(first_only - second_only) - 1) / sqrt(total)
    return PairedTest(first_only, second_only, erfc(chi / sqrt(2)), False)
