"""How raw outputs are read: divided by a temperature, decided by thresholds on log-odds.

Both are fitted to images that nothing is judged by. The temperature makes the likelihood of their
classes largest (Guo et al., On Calibration of Modern Neural Networks, 2017); it changes no order
within an image. A threshold lies midway between two values that occur.
"""

from math import exp, log

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.operating_point import LARGEST, OperatingPoint
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.reference import decision_odds, roc_curve

Raw = NDArray[np.floating]
Truth = NDArray[np.bool_]
Values = NDArray[np.float64]
CHANCE = 1e-12
"""A sum of sensitivity + specificity - 1 that is no gain: the error of its float64."""
_HALVINGS = 50


def class_taken(
    activation: OutputActivation, raw: Raw, point: OperatingPoint | None
) -> NDArray[np.int64]:
    """Return the class that each image is taken for, of raw outputs (images, classes).

    The largest, of equal ones the first; by a threshold where there is one.

    Args:
        activation: What makes probabilities of raw outputs.
        raw: Raw outputs (images, classes).
        point: What was fitted, if anything.

    Returns:
        int64 (images,).
    """
    # The temperature divides all classes by one positive number, and changes no order.
    best: NDArray[np.int64] = raw.argmax(axis=1)
    if point is None or point.positive is None:
        return best
    odds = decision_odds.class_odds(activation, raw, point.temperature, point.positive)
    others = raw.astype(np.float64)
    others[:, point.positive] = -np.inf
    found: NDArray[np.int64] = np.where(
        odds >= point.thresholds[0], point.positive, others.argmax(axis=1)
    )
    return found


def decided(raw: Raw, point: OperatingPoint | None) -> Truth:
    """Return which decisions are yes, of raw outputs (images, decisions): from one half on."""
    if point is None or not point.thresholds:
        # A probability of one half is a log-odds of 0, whatever the temperature.
        return np.asarray(raw >= 0)
    return np.asarray(raw.astype(np.float64) / point.temperature >= np.array(point.thresholds))


def likelihood(activation: OutputActivation, raw: Raw, holds: Truth, temperature: float) -> float:
    """Return the mean negative log-likelihood of what holds, in nats an image.

    Args:
        activation: What makes probabilities of raw outputs.
        raw: Raw outputs (images, classes).
        holds: Whether each image is of each class, of the same shape.
        temperature: What raw outputs are divided by.
    """
    odds = roc_curve.log_odds(activation, raw, temperature)
    losses = np.logaddexp(0, np.where(holds, -odds, odds))
    if activation == "softmax":
        losses = np.where(holds, losses, 0)
    return float(losses.sum(axis=1).mean())


def best_temperature(activation: OutputActivation, raw: Raw, holds: Truth) -> float | None:
    """Return the temperature of greatest likelihood; None where none is: every image fits better.

    So it is where all are right, or too few tell: the likelihood grows without end. It is convex in
    one over the temperature, whose slope is halved in on.

    Args:
        activation: What makes probabilities of raw outputs.
        raw: Raw outputs (images, classes).
        holds: Whether each image is of each class, of the same shape.
    """
    # Halved in logarithms, so that the result is as exact for small temperatures as for large ones.
    low, high = -log(LARGEST), log(LARGEST)  # of one over the temperature
    if not _slope(activation, raw, holds, exp(low)) < 0 < _slope(activation, raw, holds, exp(high)):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        down = _slope(activation, raw, holds, exp(middle)) < 0
        low, high = (middle, high) if down else (low, middle)
    return exp(-(low + high) / 2)


def _slope(activation: OutputActivation, raw: Raw, holds: Truth, sharpness: float) -> float:
    """Return the slope of `likelihood` in one over the temperature."""
    values = raw.astype(np.float64)
    odds = roc_curve.log_odds(activation, raw, 1 / sharpness)
    return float(((roc_curve.probability(odds) - holds) * values).sum())


def by_youden(odds: Values, holds: Truth) -> float | None:
    """Return the threshold of largest sensitivity + specificity - 1, of equal ones the lowest.

    None where nothing is better than chance.
    """
    places, sensitivity, specificity = _curve(odds, holds)
    gain = sensitivity + specificity - 1
    best = int(np.flatnonzero(gain == gain.max())[0])
    return float(places[best]) if gain[best] > CHANCE else None


def by_sensitivity(odds: Values, holds: Truth, least: float) -> float:
    """Return the highest threshold whose sensitivity is `least` or more.

    Args:
        odds: What stands for the class in each image, float64 (images,): larger where it is
            likelier.
        holds: Whether each image is of the class (images,).
        least: The sensitivity, from 0 to 1.
    """
    places, sensitivity, _ = _curve(odds, holds)
    return float(places[np.flatnonzero(sensitivity >= least)[-1]])


def youden(taken: Truth, holds: Truth) -> float:
    """Return sensitivity + specificity - 1 of images that are taken for a class, or hold it."""
    return float(taken[holds].mean() + (~taken[~holds]).mean()) - 1


def _curve(odds: Values, holds: Truth) -> tuple[Values, Values, Values]:
    """Return thresholds, the lowest first, with sensitivity and specificity at each."""
    # Only between different values does a threshold decide otherwise.
    values, index = np.unique(odds, return_inverse=True)
    positives = np.bincount(index[holds], minlength=len(values))
    negatives = np.bincount(index[~holds], minlength=len(values))
    between = (values[1:] + values[:-1]) / 2
    between = np.where(between > values[:-1], between, values[1:])  # neighbours, of which none is
    places = np.r_[values[0] - 1, between, values[-1] + 1]
    found = positives.sum() - np.r_[0, positives.cumsum()]
    return places, found / positives.sum(), np.r_[0, negatives.cumsum()] / negatives.sum()
