"""Expected calibration error (ECE), and how much of it chance explains.

The confidence is the probability of the predicted class. Images are binned by confidence, into
`BINS` bins of equal width over 0 to 1; a bin contains its lower end. The ECE is the mean over the
images of |accuracy - mean confidence| of their bin (Guo et al., On Calibration of Modern Neural
Networks, 2017).

A bin with few images has an accuracy other than its mean confidence even if all probabilities are
right, so the ECE of a calibrated network is above 0. Its distribution follows from the confidences
alone: each image is correct with the probability of its confidence (Bröcker and Smith, Increasing
the Reliability of Reliability Diagrams, 2007). A network is called miscalibrated only if its ECE is
in the upper tail of that distribution. For any number of images, this is wrong for at most one
calibrated network in twenty.

Images of one case (patient, lesion, slide) are drawn as alike as they can be: one random number
decides whether each is correct. No other dependence gives bins whose accuracy varies more.
"""

from collections.abc import Sequence
from math import floor

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.probability_quality import ConfidenceBin, Reliability
from tcc.compiler.reference import roc_curve
from tcc.compiler.reference.confidence_intervals import compute_share_interval

Float64 = NDArray[np.float64]
Truth = NDArray[np.bool_]
BINS = 15
"""Number of bins of equal width."""
LEVEL = 0.95
"""Share of calibrated networks that are not called miscalibrated, over all decisions together."""
DRAWS = 999
"""Number of calibrated networks that are drawn, unless there are many decisions."""
CHUNK = 1 << 22
"""Number of drawn values in memory at a time."""
ROUNDING = 1e-12
"""Larger than the float64 rounding error of an ECE."""


def measure_reliability(
    labels: Sequence[str],
    odds: Float64,
    truth: Truth,
    predicted: Truth,
    exclusive: bool,
    cases: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Reliability, ...]:
    """Return the reliability of exclusive classes, or of each decision; empty without images.

    Args:
        labels: The classes or decisions.
        odds: Log-odds of each class (images, classes).
        truth: Whether an image is of a class, of the same shape.
        predicted: Whether it was assigned to the class, of the same shape.
        exclusive: Whether each image has exactly one class.
        cases: The case of each image; empty if unknown.
        seed: Seed of the random numbers.
    """
    if not len(truth):
        return ()
    case_indices = index_cases(cases)
    if exclusive:
        rows, columns = np.arange(len(truth)), predicted.argmax(axis=1)
        confidences = roc_curve.to_probability(odds[rows, columns])
        correct = truth[rows, columns]
        return (compute_reliability("", confidences, correct, case_indices, LEVEL, seed),)
    # A chance error for any of the decisions would be called a miscalibrated network.
    level = 1 - (1 - LEVEL) / len(labels)
    return tuple(
        compute_reliability(
            label,
            roc_curve.to_probability(np.where(predicted[:, k], odds[:, k], -odds[:, k])),
            predicted[:, k] == truth[:, k],
            case_indices,
            level,
            seed,
        )
        for k, label in enumerate(labels)
    )


def index_cases(cases: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the index of each image's case, from 0; None if cases are unknown."""
    if not cases:
        return None
    indices: NDArray[np.int64] = np.unique(np.array(cases), return_inverse=True)[1]
    return indices


def count_effective(case_indices: NDArray[np.int64] | None, images: int) -> float:
    """Return the number of independent images that images of cases are worth, if alike in a case.

    Kish's effective sample size, (sum m)^2 / sum m^2 for cases of m images: the number of cases if
    all have equally many images.
    """
    if case_indices is None:
        return float(images)
    sizes = np.bincount(case_indices).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def compute_reliability(
    label: str,
    confidences: Float64,
    correct: Truth,
    case_indices: NDArray[np.int64] | None,
    level: float,
    seed: int,
) -> Reliability:
    """Return the calibration error of confidences.

    Args:
        label: Name of the decision; empty for exclusive classes.
        confidences: Probability of the predicted class (images,); at least one image.
        correct: Whether the prediction is correct (images,).
        case_indices: Index of each image's case, from 0; None if cases are unknown.
        level: Share of calibrated networks with an error of at most the limit.
        seed: Seed of the random numbers.
    """
    bin_indices = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    order = np.argsort(bin_indices, kind="stable")
    starts = np.flatnonzero(np.diff(bin_indices[order], prepend=-1))
    ordered, is_correct = confidences[order], correct[order]
    units = np.arange(len(order)) if case_indices is None else case_indices[order]
    draws = max(DRAWS, 20 * round(1 / (1 - level)))
    errors = np.sort(_draw_errors(ordered, units, starts, draws, np.random.default_rng(seed)))
    # A calibrated network's error is equally likely to have any rank among its own draws.
    exceeding = floor((1 - level) * (draws + 1) + ROUNDING)
    limit = float(errors[draws - exceeding]) + ROUNDING
    bins = tuple(
        _summarize_bin(
            ordered[part], is_correct[part], None if case_indices is None else units[part]
        )
        for part in map(slice, starts.tolist(), [*starts[1:].tolist(), len(order)])
    )
    return Reliability(
        label,
        len(order),
        None if case_indices is None else len(np.unique(case_indices)),
        float(_compute_errors(is_correct[None] - ordered, starts)[0]),
        float(errors.mean()),
        min(limit, 1.0),
        level,
        draws,
        bins,
    )


def _draw_errors(
    confidences: Float64,
    units: NDArray[np.int64],
    starts: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
) -> Float64:
    """Return the errors of calibrated networks with these confidences (draws,)."""
    step = max(1, CHUNK // len(confidences))
    unit_count = int(units.max()) + 1
    chunks = []
    for start in range(0, draws, step):
        numbers = rng.random((min(step, draws - start), unit_count))[:, units]
        chunks.append(_compute_errors((numbers < confidences) - confidences, starts))
    return np.concatenate(chunks)


def _compute_errors(gaps: Float64, starts: NDArray[np.int64]) -> Float64:
    """Return the ECE of each row of correctness minus confidence (rows, images), by bin."""
    errors: Float64 = np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(axis=1) / gaps.shape[1]
    return errors


def _summarize_bin(
    confidences: Float64, correct: Truth, units: NDArray[np.int64] | None
) -> ConfidenceBin:
    images, accuracy = len(correct), float(correct.mean())
    if units is None:
        effective: float = images
    else:
        effective = count_effective(np.unique(units, return_inverse=True)[1], images)
    # Korn and Graubard's interval: Clopper and Pearson's for the effective number (Survey
    # Methodology 24, 1998).
    bounds = compute_share_interval(accuracy * effective, effective)
    assert bounds
    mean = min(float(confidences.mean()), 1.0)
    return ConfidenceBin(images, mean, accuracy, bounds.low, bounds.high)
