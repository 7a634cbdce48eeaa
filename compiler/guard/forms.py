"""Scores of images from their features and channel sums: steps 3 and 4 of the definition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard.guard_document import LayerForm, PictureForm
from tcc.compiler.guard.integer_log import compute_log2q8
from tcc.compiler.guard.picture_features import FEATURES

Int64 = NDArray[np.int64]
FEATURE_LIMIT = 32767
DEVIATION_LIMIT = 1 << 22
SIGMA = 16
"""A deviation of one standard deviation."""
FRACTION = 4
"""Bits of the fraction of a deviation."""
TREND_LIMIT = 4 * SIGMA
"""Largest deviation that counts for a trend."""
CHANNEL_LIMIT = 2047
SCORE_FLOOR = 16


def compute_deviations(form: PictureForm, features: Int64) -> Int64:
    """Return the deviations (images, 19) of features (images, 19), in 1/16 of their sigma."""
    rows = np.zeros((len(FEATURES), len(FEATURES)), np.int64)
    rows[np.tril_indices(len(FEATURES))] = form.rows
    distances = np.clip(features - np.array(form.center), -FEATURE_LIMIT, FEATURE_LIMIT)
    shifted = (distances @ rows.T) >> (np.array(form.shifts) - FRACTION)
    deviations: Int64 = np.clip(shifted, -DEVIATION_LIMIT, DEVIATION_LIMIT)
    return deviations


def compute_picture_scores(deviations: Int64) -> Int64:
    """Return the score (images,) of deviations (images, 19)."""
    return compute_log2q8(SCORE_FLOOR + (deviations**2).sum(axis=1))


def compute_channel_sums(codes: NDArray[Any], stride: int) -> Int64:
    """Return the sums of every `stride`-th channel of a layer's 8-bit codes.

    Args:
        codes: int8 or uint8 (channels, height, width) or (features,).
        stride: Distance of the channels that count.
    """
    counted = codes[::stride]
    sums: Int64 = counted.reshape(len(counted), -1).sum(axis=1, dtype=np.int64)
    return sums


def compute_layer_scores(form: LayerForm, channel_sums: Int64) -> Int64:
    """Return the score (images,) of channel sums (images, counted channels)."""
    distances = (channel_sums - np.array(form.center)) * np.array(form.factors)
    z = np.clip(distances >> form.factor_shift, -CHANNEL_LIMIT, CHANNEL_LIMIT)
    directions = np.array(form.directions, np.int64).reshape(-1, len(form.center))
    projections = np.clip((z @ directions.T) >> 8, -DEVIATION_LIMIT, DEVIATION_LIMIT)
    energies = np.column_stack([(z * z).sum(axis=1), (projections * projections) >> 8])
    # Rounded term by term, as on a device.
    terms = (energies * np.array(form.weights)) >> np.array(form.weight_shifts)
    return compute_log2q8(SCORE_FLOOR + np.maximum(terms.sum(axis=1), 0))
