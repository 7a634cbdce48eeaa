"""Decisions from raw outputs: a temperature, and thresholds on log-odds.

Both are fitted to images that are not used for evaluation. The temperature maximizes the likelihood
of their classes (Guo et al., On Calibration of Modern Neural Networks, 2017). It does not change
the order of classes within an image. A threshold is midway between two values that occur.
"""

from math import exp, log

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.operating_point import MAX_TEMPERATURE, OperatingPoint, ThresholdCheck
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.reference import confidence_intervals, decision_odds, roc_curve

Raw = NDArray[np.floating]
Truth = NDArray[np.bool_]
Float64 = NDArray[np.float64]
CHANCE = 1e-12
"""Largest sensitivity + specificity - 1 that counts as no gain: its float64 rounding error."""
_HALVINGS = 50


def predict_classes(
    activation: OutputActivation, raw: Raw, operating_point: OperatingPoint | None
) -> NDArray[np.int64]:
    """Return the predicted class of each image, from raw outputs (images, classes).

    The class with the largest output, or the first of several. With a threshold, the positive
    class is predicted at or above it.

    Args:
        activation: Function from raw outputs to probabilities.
        raw: Raw outputs (images, classes).
        operating_point: The fitted temperature and threshold, if any.

    Returns:
        int64 (images,).
    """
    # The temperature divides all classes by one positive number, so it does not change the order.
    best: NDArray[np.int64] = raw.argmax(axis=1)
    if operating_point is None or operating_point.positive is None:
        return best
    odds = decision_odds.compute_class_odds(
        activation, raw, operating_point.temperature, operating_point.positive
    )
    other_logits = raw.astype(np.float64)
    other_logits[:, operating_point.positive] = -np.inf
    predictions: NDArray[np.int64] = np.where(
        odds >= operating_point.thresholds[0], operating_point.positive, other_logits.argmax(axis=1)
    )
    return predictions


def predict_decisions(raw: Raw, operating_point: OperatingPoint | None) -> Truth:
    """Return which decisions are yes, from raw outputs (images, decisions): default 0.5 or more."""
    if operating_point is None or not operating_point.thresholds:
        # A probability of 0.5 is a log-odds of 0 at any temperature.
        return np.asarray(raw >= 0)
    return np.asarray(
        raw.astype(np.float64) / operating_point.temperature >= np.array(operating_point.thresholds)
    )


def is_target_missed(point: OperatingPoint, check: ThresholdCheck) -> bool:
    """Return whether images that a threshold was not fitted to speak against its target.

    Without a certificate, they do not confirm it. With one, they contradict it.
    """
    if point.rate_certificates:
        return bool(list_contradicted_rates(point, check))
    if check.target is None or not point.certificates:
        return check.reached is False
    return confidence_intervals.is_contradicted(check.target, check.detected, check.positives)


def list_contradicted_rates(
    point: OperatingPoint, check: ThresholdCheck
) -> tuple[tuple[str, float, int, int], ...]:
    """Return the certified rates that images refute: name, bound, correct images, images."""
    rates = [
        (name, rate.at_least, correct, total)
        for certificate in point.rate_certificates
        if certificate.label == check.label
        for name, rate, correct, total in (
            ("sensitivity", certificate.sensitivity, check.detected, check.positives),
            ("specificity", certificate.specificity, check.rejected, check.negatives),
        )
        if rate is not None
    ]
    return tuple(rate for rate in rates if confidence_intervals.is_contradicted(*rate[1:]))


def compute_negative_log_likelihood(
    activation: OutputActivation, raw: Raw, truth: Truth, temperature: float
) -> float:
    """Return the mean negative log-likelihood of the true classes, in nats per image.

    Args:
        activation: Function from raw outputs to probabilities.
        raw: Raw outputs (images, classes).
        truth: Whether each image is of each class, of the same shape.
        temperature: Divisor of the raw outputs.
    """
    odds = roc_curve.compute_log_odds(activation, raw, temperature)
    losses = np.logaddexp(0, np.where(truth, -odds, odds))
    if activation == "softmax":
        losses = np.where(truth, losses, 0)
    return float(losses.sum(axis=1).mean())


def fit_temperature(activation: OutputActivation, raw: Raw, truth: Truth) -> float | None:
    """Return the temperature of maximum likelihood; None if the likelihood has no maximum.

    That is so if all images are correct or there are too few: the likelihood then grows without
    limit. It is convex in the inverse temperature, and the root of its slope is found by
    bisection.

    Args:
        activation: Function from raw outputs to probabilities.
        raw: Raw outputs (images, classes).
        truth: Whether each image is of each class, of the same shape.
    """
    # Bisected in logarithms, so that small temperatures are as precise as large ones.
    low, high = -log(MAX_TEMPERATURE), log(MAX_TEMPERATURE)  # of the inverse temperature
    if (
        not _compute_slope(activation, raw, truth, exp(low))
        < 0
        < _compute_slope(activation, raw, truth, exp(high))
    ):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_falling = _compute_slope(activation, raw, truth, exp(middle)) < 0
        low, high = (middle, high) if is_falling else (low, middle)
    return exp(-(low + high) / 2)


def _compute_slope(activation: OutputActivation, raw: Raw, truth: Truth, sharpness: float) -> float:
    """Return the slope of `compute_negative_log_likelihood` in the inverse temperature."""
    logits = raw.astype(np.float64)
    odds = roc_curve.compute_log_odds(activation, raw, 1 / sharpness)
    return float(((roc_curve.to_probability(odds) - truth) * logits).sum())


def fit_youden_threshold(odds: Float64, truth: Truth) -> float | None:
    """Return the threshold with the largest sensitivity + specificity - 1; the lowest of several.

    None if no threshold is better than chance.
    """
    thresholds, sensitivity, specificity = _compute_curve(odds, truth)
    gain = sensitivity + specificity - 1
    best = int(np.flatnonzero(gain == gain.max())[0])
    return float(thresholds[best]) if gain[best] > CHANCE else None


def fit_sensitivity_threshold(odds: Float64, truth: Truth, min_sensitivity: float) -> float:
    """Return the highest threshold with a sensitivity of at least `min_sensitivity`.

    Args:
        odds: Score of the class in each image, float64 (images,); larger means more likely.
        truth: Whether each image is of the class (images,).
        min_sensitivity: The sensitivity, from 0 to 1.
    """
    thresholds, sensitivity, _ = _compute_curve(odds, truth)
    return float(thresholds[np.flatnonzero(sensitivity >= min_sensitivity)[-1]])


def fit_specificity_threshold(odds: Float64, truth: Truth, min_specificity: float) -> float:
    """Return the lowest threshold with a specificity of at least `min_specificity`.

    Args:
        odds: Score of the class in each image, float64 (images,); larger means more likely.
        truth: Whether each image is of the class (images,).
        min_specificity: The specificity, from 0 to 1.
    """
    thresholds, _, specificity = _compute_curve(odds, truth)
    return float(thresholds[np.flatnonzero(specificity >= min_specificity)[0]])


def widen_threshold(threshold: float, odds: Float64) -> float:
    """Return a threshold midway between the two values around it, with the same decisions."""
    below, above = odds[odds < threshold], odds[odds >= threshold]
    if not below.size or not above.size:
        return threshold
    low, high = float(below.max()), float(above.min())
    midpoint = (low + high) / 2
    return midpoint if midpoint > low else high


def compute_youden(predicted: Truth, truth: Truth) -> float:
    """Return sensitivity + specificity - 1 of predictions for one class."""
    return float(predicted[truth].mean() + (~predicted[~truth]).mean()) - 1


def _compute_curve(odds: Float64, truth: Truth) -> tuple[Float64, Float64, Float64]:
    """Return thresholds in ascending order, with sensitivity and specificity at each."""
    # Only thresholds between different values give different decisions.
    distinct_odds, index = np.unique(odds, return_inverse=True)
    positives = np.bincount(index[truth], minlength=len(distinct_odds))
    negatives = np.bincount(index[~truth], minlength=len(distinct_odds))
    midpoints = (distinct_odds[1:] + distinct_odds[:-1]) / 2
    midpoints = np.where(
        midpoints > distinct_odds[:-1], midpoints, distinct_odds[1:]
    )  # for adjacent floats without a midpoint
    thresholds = np.r_[distinct_odds[0] - 1, midpoints, distinct_odds[-1] + 1]
    true_positives = positives.sum() - np.r_[0, positives.cumsum()]
    return (
        thresholds,
        true_positives / positives.sum(),
        np.r_[0, negatives.cumsum()] / negatives.sum(),
    )
