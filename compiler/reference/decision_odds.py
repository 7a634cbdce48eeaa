"""Log-odds for class decisions: the same float64 results in Python, C and JavaScript.

exp and log of numpy, C libraries and browsers differ in the last bit, so an image at a threshold
could be decided differently. Here they are sums and products of float64 in a fixed order.
backends/arm/runtime/decision.h and backends/web/site/decision.js repeat these. Each operation is
rounded by IEEE 754 and none is fused. The relative error is about 1e-15.
"""

from math import factorial

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import OutputActivation

Float64 = NDArray[np.float64]
_MIN_EXPONENT = -700.0
"""exp of smaller numbers is 0."""
_BITS = 1.4426950408889634
_LN2 = 0.6931471805599453
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""ln 2 in two parts; the first has few bits, so that its multiples are exact."""
_TERMS = 14


def compute_class_odds(
    activation: OutputActivation, raw: NDArray[np.floating], temperature: float, column: int
) -> Float64:
    """Return the log-odds of one class, log(p / (1 - p)), of raw outputs (images, classes).

    Args:
        activation: Function from raw outputs to probabilities. Except for softmax over several
            classes, the log-odds are the raw outputs divided by the temperature.
        raw: Raw outputs, finite.
        temperature: Divisor of the raw outputs.
        column: The class.

    Returns:
        float64 (images,).
    """
    logits: Float64 = raw.astype(np.float64) / temperature
    class_logit = logits[:, column]
    other_logits = [logits[:, i] for i in range(logits.shape[1]) if i != column]
    if activation != "softmax" or not other_logits:
        return class_logit
    top = np.max(other_logits, axis=0)
    total = np.zeros_like(class_logit)
    for other_logit in other_logits:  # in sequence: numpy sums an axis in another order
        total = total + portable_exp(other_logit - top)
    return np.asarray(class_logit - top - portable_log(total))


def portable_exp(x: Float64) -> Float64:
    """Return exp of non-positive numbers; 0 below -700."""
    inside = np.maximum(x, _MIN_EXPONENT)
    halvings = np.floor(0.5 - inside * _BITS)
    remainder = inside + halvings * _LN2_HIGH + halvings * _LN2_LOW
    power = np.full_like(remainder, 1.0 / factorial(_TERMS - 1))
    for n in reversed(range(_TERMS - 1)):
        power = power * remainder + 1.0 / factorial(n)
    scaled = np.ldexp(power, -halvings.astype(np.int64))
    return np.where(x < _MIN_EXPONENT, 0.0, scaled)


def portable_log(x: Float64) -> Float64:
    """Return the natural logarithm of numbers of at least 1."""
    scaled, doublings = x.copy(), np.zeros_like(x)
    while (large := scaled >= 1.5).any():
        scaled = np.where(large, scaled * 0.5, scaled)
        doublings = doublings + large
    ratio = (scaled - 1.0) / (scaled + 1.0)
    square = ratio * ratio
    total = np.zeros_like(x)
    for n in reversed(range(_TERMS - 1)):
        total = total * square + 1.0 / (2 * n + 1)
    return np.asarray(doublings * _LN2 + 2.0 * ratio * total)
