"""Decision curves: the net benefit of acting on a network's probability of some classes.

An image is acted on if the probability of the target classes reaches a threshold p. Acting on a
positive image counts 1, and acting on another image costs p / (1 - p): whoever acts from a
probability of p on finds these two of equal weight. The net benefit per image is

    TP / n - FP / n * p / (1 - p)

(Vickers and Elkin, Medical Decision Making 26, 2006). It is compared with that of acting on all
images and on none, 0. It depends on the share of positive images: it holds for new images only if
they have the share of these.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.probability_quality import DecisionCurve
from tcc.compiler.reference import roc_curve
from tcc.compiler.reference.reliability import count_effective, index_cases

Float64 = NDArray[np.float64]
Truth = NDArray[np.bool_]
PERCENTS = tuple(range(1, 100))
"""Thresholds in per cent."""
NORMAL = 2.241402727604947
"""Quantile of the normal distribution at 0.9875: TP/n and FP/n have intervals of 97.5 % each, so
that both contain their shares in 95 % of all datasets."""


def compute_probability(odds: Float64, columns: Sequence[int]) -> Float64:
    """Return the probability of any of some exclusive classes (images,).

    Args:
        odds: Log-odds of each class (images, classes).
        columns: The classes.
    """
    shares: Float64 = roc_curve.to_probability(odds[:, list(columns)]).sum(axis=1)
    return np.minimum(shares, 1.0)


def compute_curve(
    classes: Sequence[str],
    probabilities: Float64,
    positive: Truth,
    cases: Sequence[str] = (),
    percents: Sequence[int] = PERCENTS,
) -> DecisionCurve:
    """Return the net benefit at each threshold.

    Args:
        classes: Names of the target classes.
        probabilities: Their probability in each image (images,); at least one image.
        positive: Whether each image is of one of them (images,).
        cases: The case of each image; empty if unknown.
        percents: The thresholds, in per cent, from 1 to 99.
    """
    images, positives = len(positive), int(positive.sum())
    case_indices = index_cases(cases)
    thresholds = np.array(percents) / 100
    weights = thresholds / (1 - thresholds)
    true_positives = _count_reaching(probabilities[positive], thresholds) / images
    false_positives = _count_reaching(probabilities[~positive], thresholds) / images
    effective = count_effective(case_indices, images)
    low_true, high_true = _bound_shares(true_positives, effective)
    low_false, high_false = _bound_shares(false_positives, effective)
    return DecisionCurve(
        tuple(classes),
        images,
        None if case_indices is None else len(set(cases)),
        positives,
        tuple(thresholds.tolist()),
        tuple((true_positives - weights * false_positives).tolist()),
        tuple((low_true - weights * high_false).tolist()),
        tuple((high_true - weights * low_false).tolist()),
        tuple(((positives - weights * (images - positives)) / images).tolist()),
    )


def _count_reaching(probabilities: Float64, thresholds: Float64) -> Float64:
    """Return the number of probabilities that reach each threshold (thresholds,)."""
    below = np.searchsorted(np.sort(probabilities), thresholds, side="left")
    return (len(probabilities) - below).astype(np.float64)


def _bound_shares(shares: Float64, images: float) -> tuple[Float64, Float64]:
    """Return the ends of Wilson's interval of each share (Journal of the ASA 22, 1927).

    Like Clopper and Pearson's, it does not shrink to a point if a share is 0 or 1. It has a closed
    form.
    """
    z = NORMAL**2 / images
    middle = shares + z / 2
    half = np.sqrt(z * shares * (1 - shares) + z**2 / 4)
    return np.maximum(middle - half, 0) / (1 + z), np.minimum((middle + half) / (1 + z), 1)
