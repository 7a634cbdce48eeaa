"""Tables of e-values from the scores of guard images.

Each threshold has an upper bound of the share of normal cases above it, exact by Clopper and
Pearson. All bounds of a guard hold together with the confidence of the promise.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from math import comb, floor

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard.guard_document import CONFIDENCE, MAX_STEP, ScoreTable
from tcc.compiler.guard.picture_features import FEATURES, TONE
from tcc.compiler.guard.stream import DIRECTION_SIZE, DRIFT_LIMIT
from tcc.compiler.reference.confidence_intervals import compute_beta_quantile

Int64 = NDArray[np.int64]
TAILS = (0.3, 0.1, 0.03)
"""Shares of the guard images above each threshold of a picture or a layer."""
DRIFT_TAILS = (0.3, 0.1)
"""The same for drift, in the direction with the most images above it."""
BET = 0.9
"""Share of the evidence that is bet on each image."""
DRIFT_BET = 0.8
UNUSUAL_SHARE = 0.025
"""Share of normal images above the limit of each of two scores: one in 20 above either."""
DIRECTIONS = comb(len(FEATURES) - TONE, DIRECTION_SIZE) * 2**DIRECTION_SIZE
_CHUNK = 512


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


def make_drift_table(deviations: Int64, tables: int) -> ScoreTable:
    """Return the table of drift, whose bounds hold for all directions together.

    Args:
        deviations: The deviations of guard images, one of each case (cases, 19).
        tables: As for `make_table`.
    """
    count = len(deviations)
    risk = (1 - CONFIDENCE) / tables / len(DRIFT_TAILS) / DIRECTIONS
    ranks = [floor(tail * count) for tail in DRIFT_TAILS]
    thresholds = [-(1 << 31)] * len(ranks)
    for scores in iterate_direction_scores(deviations):
        ordered = np.sort(scores, axis=0)[::-1]
        thresholds = [
            max(limit, int(ordered[rank].max()))
            for limit, rank in zip(thresholds, ranks, strict=True)
        ]
    # At most `rank` images of each direction are above its threshold.
    bounds = [compute_upper_bound(rank, count, risk) for rank in ranks]
    return ScoreTable(tuple(thresholds), _make_steps(bounds, DRIFT_BET))


def iterate_direction_scores(deviations: Int64) -> Iterator[Int64]:
    """Yield the drift scores (images, directions) of every direction, some directions at a time."""
    tone = np.clip(deviations[:, TONE:], -DRIFT_LIMIT, DRIFT_LIMIT)
    signs = np.array(list(product((-1, 1), repeat=DIRECTION_SIZE)))
    groups = list(combinations(range(tone.shape[1]), DIRECTION_SIZE))
    for start in range(0, len(groups), _CHUNK):
        group_deviations = tone[:, np.array(groups[start : start + _CHUNK])]
        yield (group_deviations @ signs.T).reshape(len(tone), -1) >> 1


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
