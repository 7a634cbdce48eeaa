"""How raw outputs are read: divided by a temperature, decided by thresholds on log-odds.

Both are fitted to images that nothing is judged by. The temperature makes the likelihood of their
classes largest (Guo et al., On Calibration of Modern Neural Networks, 2017); it changes no order
within an image. A threshold lies midway between two values that occur.
"""

from math import exp, log

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.operating_point import MAX_TEMPERATURE, OperatingPoint
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.reference import decision_odds, roc_curve

Raw = NDArray[np.floating]
Truth = NDArray[np.bool_]
Float64 = NDArray[np.float64]
CHANCE = 1e-12
"""A sum of sensitivity + specificity - 1 that is no gain: the error of its float64."""
_HALVINGS = 50


def predict_classes(
    activation: OutputActivation, raw: Raw, operating_point: OperatingPoint | None
) -> NDArray[np.int64]:
    """Return the class that each image is taken for, of raw outputs (images, classes).

    The largest, of equal ones the first; by a threshold where there is one.

    Args:
        activation: What makes probabilities of raw outputs.
        raw: Raw outputs (images, classes).
        operating_point: What was fitted, if anything.

    Returns:
        int64 (images,).
    """
    # The temperature divides all classes by one positive number, and changes no order.
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
    """Return which decisions are yes, of raw outputs (images, decisions): from one half on."""
    if operating_point is None or not operating_point.thresholds:
        # A probability of one half is a log-odds of 0, whatever the temperature.
        return np.asarray(raw >= 0)
    return np.asarray(
        raw.astype(np.float64) / operating_point.temperature >= np.array(operating_point.thresholds)
    )


def compute_negative_log_likelihood(
    activation: OutputActivation, raw: Raw, truth: Truth, temperature: float
) -> float:
    """Return the mean negative log-likelihood of what holds, in nats an image.

    Args:
        activation: What makes probabilities of raw outputs.
        raw: Raw outputs (images, classes).
        truth: Whether each image is of each class, of the same shape.
        temperature: What raw outputs are divided by.
    """
    odds = roc_curve.compute_log_odds(activation, raw, temperature)
    losses = np.logaddexp(0, np.where(truth, -odds, odds))
    if activation == "softmax":
        losses = np.where(truth, losses, 0)
    return float(losses.sum(axis=1).mean())


def fit_temperature(activation: OutputActivation, raw: Raw, truth: Truth) -> float | None:
    """Return the temperature of greatest likelihood; None where none is: every image fits better.

    So it is where all are right, or too few tell: the likelihood grows without end. It is convex in
    one over the temperature, whose slope is halved in on.

    Args:
        activation: What makes probabilities of raw outputs.
        raw: Raw outputs (images, classes).
        truth: Whether each image is of each class, of the same shape.
    """
    # Halved in logarithms, so that the result is as exact for small temperatures as for large ones.
    low, high = -log(MAX_TEMPERATURE), log(MAX_TEMPERATURE)  # of one over the temperature
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
    """Return the slope of `compute_negative_log_likelihood` in one over the temperature."""
    logits = raw.astype(np.float64)
    odds = roc_curve.compute_log_odds(activation, raw, 1 / sharpness)
    return float(((roc_curve.to_probability(odds) - truth) * logits).sum())


def fit_youden_threshold(odds: Float64, truth: Truth) -> float | None:
    """Return the threshold of largest sensitivity + specificity - 1, of equal ones the lowest.

    None where nothing is better than chance.
    """
    thresholds, sensitivity, specificity = _compute_curve(odds, truth)
    gain = sensitivity + specificity - 1
    best = int(np.flatnonzero(gain == gain.max())[0])
    return float(thresholds[best]) if gain[best] > CHANCE else None


def fit_sensitivity_threshold(odds: Float64, truth: Truth, min_sensitivity: float) -> float:
    """Return the highest threshold whose sensitivity is `min_sensitivity` or more.

    Args:
        odds: What stands for the class in each image, float64 (images,): larger where it is
            likelier.
        truth: Whether each image is of the class (images,).
        min_sensitivity: The sensitivity, from 0 to 1.
    """
    thresholds, sensitivity, _ = _compute_curve(odds, truth)
    return float(thresholds[np.flatnonzero(sensitivity >= min_sensitivity)[-1]])


def compute_youden(predicted: Truth, truth: Truth) -> float:
    """Return sensitivity + specificity - 1 of images that are taken for a class, or hold it."""
    return float(predicted[truth].mean() + (~predicted[~truth]).mean()) - 1


def _compute_curve(odds: Float64, truth: Truth) -> tuple[Float64, Float64, Float64]:
    """Return thresholds, the lowest first, with sensitivity and specificity at each."""
    # Only between different values does a threshold decide otherwise.
    distinct_odds, index = np.unique(odds, return_inverse=True)
    positives = np.bincount(index[truth], minlength=len(distinct_odds))
    negatives = np.bincount(index[~truth], minlength=len(distinct_odds))
    midpoints = (distinct_odds[1:] + distinct_odds[:-1]) / 2
    midpoints = np.where(
        midpoints > distinct_odds[:-1], midpoints, distinct_odds[1:]
    )  # neighbours, of which none is
    thresholds = np.r_[distinct_odds[0] - 1, midpoints, distinct_odds[-1] + 1]
    true_positives = positives.sum() - np.r_[0, positives.cumsum()]
    return (
        thresholds,
        true_positives / positives.sum(),
        np.r_[0, negatives.cumsum()] / negatives.sum(),
    )
