"""How many images show a sensitivity: exact one-sided bounds, by Clopper and Pearson (1934).

A sensitivity s is shown with 95 % confidence where a network of that sensitivity misses as few of
as many images in at most 5 % of all draws.
"""

from tcc.compiler.reference import confidence_intervals

RISK = 0.05
"""How often a bound may be wrong."""
MOST = 1 << 40
"""Beyond so many images no number is named."""


def lower_bound(detected: int, positives: int) -> float:
    """Return the sensitivity that is reached with 95 % confidence, from 0 to 1."""
    if detected == 0:
        return 0.0
    return confidence_intervals.beta_quantile(RISK, detected, positives - detected + 1)


def is_shown(sensitivity: float, detected: int, positives: int) -> bool:
    """Return whether a sensitivity is reached with 95 % confidence."""
    if sensitivity <= 0:
        return True
    # The chance to miss so few of so many where the sensitivity is no larger.
    missed = positives - detected
    return sensitivity < 1 and detected > 0 and _tail(sensitivity, positives, missed) <= RISK


def images_needed(sensitivity: float, missed: int) -> int | None:
    """Return how many positive images show a sensitivity where so many are missed.

    Args:
        sensitivity: From 0 to 1.
        missed: How many of the images are not detected.

    Returns:
        The smallest such number; None where no number does.
    """
    if sensitivity <= 0:
        return 0
    if sensitivity >= 1:
        return None
    low, high = missed, missed + 1
    while _tail(sensitivity, high, missed) > RISK:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _tail(sensitivity, middle, missed) <= RISK else (middle, high)
    return high


def _tail(sensitivity: float, positives: int, missed: int) -> float:
    """Return the chance that at most so many of so many images are missed."""
    return confidence_intervals.incomplete_beta(sensitivity, positives - missed, missed + 1)
