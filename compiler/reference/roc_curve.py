"""ROC curves: how well a score separates images with a property from others, at any threshold."""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import OutputActivation

Float64 = NDArray[np.float64]
Truth = NDArray[np.bool_]


def compute_log_odds(
    activation: OutputActivation, raw: "NDArray[np.floating]", temperature: float
) -> Float64:
    """Return the score of each class: log(p / (1 - p)), of raw outputs (images, classes).

    It grows with the probability and separates values that round to probabilities 0 and 1. Without
    activation it is the raw output.

    Args:
        activation: Function from raw outputs to probabilities.
        raw: Raw outputs (images, classes), or (images, 1) of a single decision.
        temperature: Divisor of the raw outputs.

    Returns:
        float64 of the same shape.
    """
    logits: Float64 = raw.astype(np.float64) / temperature
    if activation != "softmax":
        return logits
    rows, best = np.arange(len(logits)), logits.argmax(axis=1)
    top = logits[rows, best]
    # log(p / (1 - p)) = x - log(sum of the others' exponentials), all minus the largest, so that
    # none overflows.
    odds: Float64 = logits - top[:, None] - np.log(_sum_others(np.exp(logits - top[:, None])))
    logits[rows, best] = -np.inf  # others may underflow: use the second best for it
    second = logits.max(axis=1)
    odds[rows, best] = top - second - np.log(np.exp(logits - second[:, None]).sum(axis=1))
    return odds


def _sum_others(powers: Float64) -> Float64:
    """Return the sum of all other columns for each column, without cancellation."""
    sums = np.zeros_like(powers)
    # Sums from the left and from the right: subtracting a column from the total would cancel if the
    # column is nearly all of it.
    sums[:, 1:] = powers[:, :-1].cumsum(axis=1)
    sums[:, :-1] += powers[:, :0:-1].cumsum(axis=1)[:, ::-1]
    return np.maximum(sums, np.finfo(np.float64).tiny)


def to_probability(odds: Float64 | float) -> Float64:
    """Return the probabilities of log-odds."""
    small = np.exp(-np.abs(odds))
    return np.asarray(np.where(np.asarray(odds) >= 0, 1.0, small) / (1.0 + small))


def compute_auc(scores: Float64, truth: Truth) -> float | None:
    """Return the area under the ROC curve: how often a positive image has the higher score.

    Over all pairs of a positive and a negative image. Equal scores count one half, so any monotone
    transformation of the score gives the same area. None without positive or negative images.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, rank_indices, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Mann and Whitney's statistic by ranks (1947): sorting instead of all pairs; ties have their
    # mean rank.
    doubled_ranks = (
        2 * np.cumsum(counts) - counts + 1
    )  # twice the mean rank of each score, an integer
    total = int(doubled_ranks[rank_indices[truth]].sum()) - positives * (positives + 1)
    return total / (2 * positives * negatives)


def compute_aucs(scores: Float64, truth: Truth) -> tuple[float | None, ...]:
    """Return the area of each class against all others, of (images, classes)."""
    return tuple(compute_auc(scores[:, k], truth[:, k]) for k in range(scores.shape[1]))


def compute_resampled_aucs(scores: Float64, truth: Truth, weights: Float64) -> Float64:
    """Return the areas of resamples (resamples, classes); NaN without both kinds of images.

    Args:
        scores: Images by classes.
        truth: Same shape.
        weights: How often each resample (a row) contains each image.
    """
    aucs = np.full((len(weights), scores.shape[1]), np.nan)
    for index in range(scores.shape[1]):
        order = np.argsort(scores[:, index], kind="stable")
        ranked = scores[order, index]
        # Equal scores are one step of the curve: they have no order.
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        ordered_weights, ordered_truth = weights[:, order], truth[order, index]
        up = np.add.reduceat(ordered_weights * ordered_truth, starts, axis=1)
        down = np.add.reduceat(ordered_weights * ~ordered_truth, starts, axis=1)
        below = np.cumsum(down, axis=1) - down / 2
        pairs = up.sum(axis=1) * down.sum(axis=1)
        np.divide((up * below).sum(axis=1), pairs, out=aucs[:, index], where=pairs > 0)
    return aucs
