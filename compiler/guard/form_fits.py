"""Fit the quadratic forms of a guard to images, and round them to integers."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard.forms import FRACTION, SIGMA, TREND_LIMIT, compute_deviations
from tcc.compiler.guard.guard_document import MAX_DIRECTIONS, LayerForm, PictureForm
from tcc.compiler.guard.picture_features import FEATURES
from tcc.compiler.guard.plan import GuardPlan

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
SHRINKAGE = 0.02
"""Share of the unit matrix in the correlations of features, at least."""
MIN_FEATURE_SIGMA = 2.0
"""In units of the features, mostly 1/256 of a doubling."""
MIN_SIGMA_SHARE = 0.1
"""Smallest sigma of a channel's sum, as a share of their mean sigma."""
MIN_REST = 0.01
"""Smallest variance of what the directions leave, relative to that of a channel."""
MIN_MOVEMENT = 0.25
"""Smallest length of a movement by a known change, in sigma."""
_INT16 = (1 << 15) - 1
_UINT16 = (1 << 16) - 1


def fit_picture_form(features: Int64) -> PictureForm:
    """Return the form of a picture: the inverse Cholesky factor of the features' covariance.

    Args:
        features: int64 (images, 19).
    """
    center = np.rint(features.mean(axis=0)).astype(np.int64)
    sigma = np.maximum(features.std(axis=0), MIN_FEATURE_SIGMA)
    standardized = (features - center) / sigma
    correlations = standardized.T @ standardized / len(features)
    # The fewer images, the less their correlations are known.
    shrinkage = max(SHRINKAGE, len(FEATURES) / 8 / len(features))
    correlations = (1 - shrinkage) * correlations + shrinkage * np.eye(len(FEATURES))
    rows = np.linalg.inv(np.linalg.cholesky(correlations)) / sigma
    shifts = _find_shifts(np.abs(rows).max(axis=1), _INT16, FRACTION, 22)
    integers = np.rint(rows * np.exp2(shifts)[:, None]).astype(np.int64)
    return PictureForm(
        center=tuple(center.tolist()),
        rows=tuple(integers[np.tril_indices(len(FEATURES))].tolist()),
        shifts=tuple(shifts.tolist()),
    )


def fit_directions(
    form: PictureForm, features: Int64, changed: Mapping[str, Int64]
) -> Mapping[str, tuple[int, ...]]:
    """Return how each known change moves the deviations: a vector of length 32,767.

    Changes that move them little, such as those of colour in grey images, are left out.

    Args:
        form: The form of the picture.
        features: int64 (images, 19) of unchanged images.
        changed: The features of the first of them after each change.
    """
    before = _limit_deviations(form, features)
    directions = {}
    for name, changed_features in changed.items():
        after = _limit_deviations(form, changed_features)
        movement = (after - before[: len(after)]).mean(axis=0)
        length = float(np.linalg.norm(movement))
        if length >= MIN_MOVEMENT * SIGMA:
            integers = np.rint(_INT16 * movement / length).astype(np.int64)
            directions[name] = tuple(integers.tolist())
    return directions


def _limit_deviations(form: PictureForm, features: Int64) -> Int64:
    deviations = compute_deviations(form, features)
    return np.asarray(np.clip(deviations, -TREND_LIMIT, TREND_LIMIT))


def fit_layer_form(guard_plan: GuardPlan, channel_sums: Int64) -> LayerForm:
    """Return the form of a layer: principal directions of its channels, and the rest.

    Args:
        guard_plan: What the guard reads.
        channel_sums: int64 (images, counted channels).
    """
    assert guard_plan.tap is not None
    images, channels = channel_sums.shape
    # More directions than a quarter of the channels would leave no rest, and a constant score.
    count = max(1, min(MAX_DIRECTIONS, channels // 4, images // 8))
    center = np.rint(channel_sums.mean(axis=0)).astype(np.int64)
    sigma = channel_sums.std(axis=0)
    sigma = np.maximum(sigma, max(MIN_SIGMA_SHARE * float(sigma.mean()), 1.0))
    scale = SIGMA / sigma
    (factor_shift,) = _find_shifts(scale.max(keepdims=True), _UINT16, 0, 30)
    factors = np.rint(scale * 2.0 ** float(factor_shift)).astype(np.int64)
    standardized = (channel_sums - center) / sigma
    variances, vectors = np.linalg.eigh(standardized.T @ standardized / images)
    variances, axes = variances[::-1], vectors[:, ::-1][:, :count].T
    rest = max(float(variances[count:].sum()) / max(1, channels - count), MIN_REST)
    axis_scale = _INT16 / np.abs(axes).max(axis=1)
    # The squares of z, and of projections shifted right by 8 twice, in the units of the score.
    units = np.concatenate([[1.0], 256 * (256 / axis_scale) ** 2])
    inverse = np.concatenate([[1 / rest], 1 / np.maximum(variances[:count], rest / 16) - 1 / rest])
    weights = inverse * units
    weight_shifts = _find_shifts(np.maximum(np.abs(weights), 1e-30), _INT16, 0, 30)
    return LayerForm(
        tap=guard_plan.tap,
        shape=guard_plan.tap_shape,
        stride=guard_plan.stride,
        center=tuple(center.tolist()),
        factors=tuple(factors.tolist()),
        factor_shift=int(factor_shift),
        directions=tuple(np.rint(axes * axis_scale[:, None]).astype(np.int64).reshape(-1).tolist()),
        weights=tuple(np.rint(weights * np.exp2(weight_shifts)).astype(np.int64).tolist()),
        weight_shifts=tuple(weight_shifts.tolist()),
    )


def _find_shifts(largest: Float64, limit: int, low: int, high: int) -> Int64:
    """Return how far numbers can be shifted left so that their largest stays within a limit."""
    return np.clip(np.floor(np.log2(limit / largest)), low, high).astype(np.int64)
