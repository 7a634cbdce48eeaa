"""Many streams of images through a guard at once; bit-exact to compiler/guard/stream.py."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard import forms, stream
from tcc.compiler.guard.guard_document import Guard, ScoreTable
from tcc.compiler.guard.picture_features import FEATURES

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a set of images.

    Deviations (images, 19), drift scores of each known change (images, changes), picture and layer
    scores (images,).
    """

    deviations: Int64
    drift: Int64
    picture: Int64
    layer: Int64 | None

    def count(self) -> int:
        """Return the number of images."""
        return len(self.picture)


def compute_scores(guard: Guard, features: Int64, channel_sums: Int64 | None) -> Scores:
    """Return the scores of images."""
    deviations = forms.compute_deviations(guard.picture, features)
    directions = np.array([change.direction for change in guard.drift.changes], np.int64)
    limited = np.clip(deviations, -stream.DRIFT_LIMIT, stream.DRIFT_LIMIT)
    limit = stream.DRIFT_SCORE_LIMIT
    drift = np.clip(limited @ directions.T >> stream.DIRECTION_BITS, -limit, limit)
    layer = None
    if guard.layer is not None and channel_sums is not None:
        layer = forms.compute_layer_scores(guard.layer, channel_sums)
    return Scores(deviations, drift, forms.compute_picture_scores(deviations), layer)


def _find_steps(table: ScoreTable, scores: Int64) -> Int64:
    above = (scores[..., None] > np.array(table.thresholds)).sum(axis=-1)
    steps: Int64 = np.array(table.steps, np.int64)[above]
    return steps


class Streams:
    """The states of some streams.

    `alarms` is the number of cases until each stream's first alarm, 0 if none; `networks` says
    whether the alarm was "the network sees something else". `products` are means of e by score.
    """

    def __init__(self, guard: Guard, count: int) -> None:
        self.guard, self.tables = guard, guard.scores
        self.evidences = np.zeros((count, self.tables), np.int64)
        self.trends = np.zeros((count, len(FEATURES)), np.int64)
        self.alarms = np.zeros(count, np.int64)
        self.networks = np.zeros(count, bool)
        self.cases = 0
        self.products = np.zeros(self.tables)
        changes = guard.drift.changes
        self._directions = np.array([change.direction for change in changes], np.int64)
        self._thresholds = np.array([change.thresholds for change in changes], np.int64)

    def add_case(self, scores: Scores, indices: Int64) -> None:
        """Add one case to each stream: images `indices` (streams, images of the case)."""
        deviations = scores.deviations[indices]
        changes = (self.trends @ self._directions.T).argmax(axis=1)
        drift = np.take_along_axis(scores.drift[indices], changes[:, None, None], 2)[..., 0]
        guard, steps = self.guard, []
        steps.append(_find_steps(guard.picture_table, scores.picture[indices]))
        above = (drift[..., None] > self._thresholds[changes][:, None]).sum(axis=2)
        steps.append(np.array(guard.drift.steps)[above])
        if guard.layer_table is not None and scores.layer is not None:
            steps.append(_find_steps(guard.layer_table, scores.layer[indices]))
        images = indices.shape[1]
        for position, image_steps in enumerate(steps):
            e = image_steps.sum(axis=1) // images
            evidence = ((self.evidences[:, position] + 256) * e) >> 8
            self.evidences[:, position] = np.minimum(evidence, stream.EVIDENCE_LIMIT)
            self.products[position] += e.mean() / 256
        limited = np.clip(deviations, -forms.TREND_LIMIT, forms.TREND_LIMIT).sum(axis=1) // images
        self.trends += (16 * limited - self.trends) >> stream.TREND_SHIFT
        self.cases += 1
        is_new = (self.alarms == 0) & (
            self.evidences.sum(axis=1) >= stream.ALARM_LEVEL * self.tables
        )
        self.alarms[is_new] = self.cases
        if self.tables == 3:
            self.networks |= (self.alarms > 0) & (
                self.evidences[:, stream.LAYER] >= stream.ALARM_LEVEL
            )


def run_independent(
    guard: Guard, scores: Scores, length: int, count: int, random: np.random.Generator
) -> Streams:
    """Return streams of images that are drawn independently."""
    streams = Streams(guard, count)
    for _ in range(length):
        streams.add_case(scores, random.integers(0, scores.count(), (count, 1)))
    return streams
