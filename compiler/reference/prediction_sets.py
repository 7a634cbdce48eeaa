"""Prediction sets and abstention: rules on raw outputs whose promise needs no distribution.

A class is in the set of an image if the largest output minus its own is at most a gap. An image is
answered if its two largest outputs differ by more than a margin. Both numbers are order statistics
of one number for each image, and a binomial tail says which: so the promise holds for this
calibration with a confidence, not on average over calibrations (Vovk, Conditional Validity of
Inductive Conformal Predictors, 2012, proposition 2).

Each image needs one float32 subtraction and one comparison for each class. IEEE 754 defines both,
so C, Python and JavaScript decide the same: backends/arm/runtime/sets.h and
backends/web/site/prediction_sets.js repeat these.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.operating_point import (
    Abstention,
    AbstentionCheck,
    PredictionSets,
    SetsCheck,
)
from tcc.compiler.reference import confidence_intervals

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
ANSWER_ALL = -1.0
"""The margin with which every image is answered: differences are not negative."""


def compute_gaps(raw: NDArray[np.floating]) -> Float32:
    """Return the largest output minus each output, in float32.

    Args:
        raw: Raw outputs (images, classes), finite.

    Returns:
        float32 (images, classes), from 0 to infinity.
    """
    outputs = raw.astype(np.float32)
    with np.errstate(over="ignore"):  # outputs of opposite sign near the limits of float32
        gaps: Float32 = outputs.max(axis=1, keepdims=True) - outputs
    return gaps


def compute_margins(raw: NDArray[np.floating]) -> Float32:
    """Return the largest output minus the second one, in float32 (images,).

    Args:
        raw: Raw outputs (images, classes), finite, with at least two classes.
    """
    gaps = np.sort(compute_gaps(raw), axis=1)
    margins: Float32 = gaps[:, 1]
    return margins


def find_sets(raw: NDArray[np.floating], gaps: Sequence[float | None]) -> Mask:
    """Return which classes are in the set of each image (images, classes).

    Args:
        raw: Raw outputs (images, classes), finite.
        gaps: One gap for all classes, or one for each; None for a class that is in every set.
    """
    limits = np.array([np.inf if gap is None else gap for gap in gaps], np.float32)
    return np.asarray(compute_gaps(raw) <= limits)


def find_answered(raw: NDArray[np.floating], margin: float) -> Mask:
    """Return which images are answered (images,).

    Args:
        raw: Raw outputs (images, classes), finite.
        margin: The answered images have a larger difference of their two largest outputs.
    """
    return np.asarray(compute_margins(raw) > np.float32(margin))


def fit_gap(true_gaps: Float32, coverage: float, confidence: float) -> tuple[float, int] | None:
    """Return the smallest gap that covers enough images, and how many it may leave out.

    It is the (m + 1)-th largest gap of the images' classes, with the largest m for which the
    coverage is certified.

    Args:
        true_gaps: The gap of the class of each image, float32 (images,).
        coverage: Share of images whose class must be in the set, from 0 to 1.
        confidence: From 0 to 1.

    Returns:
        The gap and m; None if there are too few images.
    """
    allowed = confidence_intervals.count_allowed_misses(coverage, len(true_gaps), confidence)
    if allowed is None:
        return None
    gap = float(np.sort(true_gaps)[len(true_gaps) - 1 - allowed])
    # An overflow: only a set of all classes contains the class of every image.
    return (gap, allowed) if np.isfinite(gap) else None


def fit_margin(
    margins: Float32, wrong: Mask, wrong_share: float, confidence: float
) -> tuple[float, int] | None:
    """Return the smallest margin that answers few enough images wrongly, and how many it may.

    It is that of the (m + 1)-th most confident wrong image, with the largest m for which the share
    of wrong answers among all images is certified.

    Args:
        margins: The difference of the two largest outputs of each image, float32 (images,).
        wrong: Whether the largest output is not the class of the image (images,).
        wrong_share: Largest share of all images that is answered wrongly, from 0 to 1.
        confidence: From 0 to 1.

    Returns:
        The margin and m; None if there are too few images.
    """
    allowed = confidence_intervals.count_allowed_misses(1 - wrong_share, len(margins), confidence)
    if allowed is None:
        return None
    confident = np.sort(margins[wrong])[::-1]
    margin = float(confident[allowed]) if len(confident) > allowed else ANSWER_ALL
    return margin, allowed


def list_refuted_coverages(sets: PredictionSets, check: SetsCheck) -> tuple[int, ...]:
    """Return which coverages held-out images refute with 95 % confidence, by index in `check`."""
    return tuple(
        index
        for index, (covered, counted) in enumerate(zip(check.covered, check.counted, strict=True))
        if confidence_intervals.is_contradicted(sets.coverage, covered, counted)
    )


def is_abstention_refuted(abstention: Abstention, check: AbstentionCheck) -> bool:
    """Return whether held-out images refute the share of wrong answers with 95 % confidence."""
    right = check.counted - check.counted_wrong
    return confidence_intervals.is_contradicted(1 - abstention.wrong_share, right, check.counted)
