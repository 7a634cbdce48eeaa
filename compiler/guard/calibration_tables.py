"""Tables of e-values from the scores of guard images.

Each threshold has an upper bound of the share of normal cases above it, exact by Clopper and
Pearson. All bounds of a guard hold together with the confidence of the promise.
"""

from collections.abc import Mapping, Sequence
from math import floor

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard import stream
from tcc.compiler.guard.guard_document import (
    CONFIDENCE,
    MAX_STEP,
    DriftTable,
    KnownChange,
    ScoreTable,
)
from tcc.compiler.reference.confidence_intervals import compute_beta_quantile

Int64 = NDArray[np.int64]
TAILS = (0.15, 0.02)
"""Shares of the guard images above each threshold of a picture or a layer."""
BET = 0.9
"""Share of the evidence that is bet on each image."""
DRIFT_BET = 0.8
UNUSUAL_SHARE = 0.025
"""Share of normal images above the limit of each of two scores: one in 20 above either."""


def make_table(scores: Int64, tables: int) -> ScoreTable:
    """Return the table of a score.

    Args:
        scores: The scores of guard images, one of each case (cases,).
        tables: Number of tables that hold together with the guard's confidence.
    """
    ordered = np.sort(scores)[::-1]
    risk = (1 - CONFIDENCE) / tables / len(TAILS)
    thresholds = [int(ordered[floor(tail * len(ordered))]) for tail in TAILS]
    bounds = [
        compute_upper_bound(int((ordered > limit).sum()), len(ordered), risk)
        for limit in thresholds
    ]
    # Of n + 1 exchangeable images, the next is above the k-th largest of n in at most k / (n + 1).
    rank = floor(UNUSUAL_SHARE * (len(ordered) + 1))
    unusual = int(ordered[max(rank - 1, 0)])
    return ScoreTable(tuple(thresholds), _make_steps(bounds, BET), unusual)


def make_drift_table(
    directions: Mapping[str, Sequence[int]], deviations: Int64, tables: int
) -> DriftTable:
    """Return the table of drift, whose bounds hold for all known changes together.

    Args:
        directions: The direction of each change, 19 integers.
        deviations: The deviations of guard images, one of each case (cases, 19).
        tables: As for `make_table`.
    """
    count = len(deviations)
    limited = np.clip(deviations, -stream.DRIFT_LIMIT, stream.DRIFT_LIMIT)
    scores = limited @ np.array(list(directions.values()), np.int64).T >> stream.DIRECTION_BITS
    limit = stream.DRIFT_SCORE_LIMIT
    ordered = np.sort(np.clip(scores, -limit, limit), axis=0)[::-1]
    ranks = [floor(tail * count) for tail in TAILS]
    risk = (1 - CONFIDENCE) / tables / len(TAILS) / len(directions)
    # At most `rank` images of each change are above its threshold.
    bounds = [compute_upper_bound(rank, count, risk) for rank in ranks]
    return DriftTable(
        tuple(
            KnownChange(name, tuple(direction), tuple(ordered[ranks, index].tolist()))
            for index, (name, direction) in enumerate(directions.items())
        ),
        _make_steps(bounds, DRIFT_BET),
    )


def compute_upper_bound(above: int, count: int, risk: float) -> float:
    """Return the upper confidence bound of a share, of which `above` of `count` cases were seen."""
    if above >= count:
        return 1.0
    return compute_beta_quantile(1 - risk, above + 1, count - above)


def _make_steps(bounds: Sequence[float], bet: float) -> tuple[int, ...]:
    """Return the e-value in Q8, rounded down, of a score above 0, 1, 2, ... thresholds."""
    return tuple(
        min(
            MAX_STEP,
            floor(
                256
                * sum(
                    1 - bet + (bet / bound if index < above else 0)
                    for index, bound in enumerate(bounds)
                )
                / len(bounds)
            ),
        )
        for above in range(len(bounds) + 1)
    )
