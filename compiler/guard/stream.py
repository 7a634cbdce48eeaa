"""The state of a stream of images, and its alarms: steps 5 and 6 of the definition."""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.guard import forms
from tcc.compiler.guard.guard_document import RATE, Guard, KnownChange
from tcc.compiler.guard.picture_features import FEATURES, compute_features
from tcc.compiler.guard.pixel_sums import Pixels, compute_sums

Int64 = NDArray[np.int64]
Integers = tuple[int, ...]
PICTURE, DRIFT, LAYER = range(3)
"""Positions of the scores in tables and evidences."""
DRIFT_LIMIT = 1 << 16
DRIFT_SCORE_LIMIT = 32767
DIRECTION_BITS = 15
TREND_SHIFT = 3
EVIDENCE_LIMIT = 1 << 40
ALARM_LEVEL = RATE << 8


class Alarm(IntEnum):
    """What a stream reports."""

    NONE = 0
    PICTURES = 1
    """The pictures differ from those of calibration."""
    NETWORK = 2
    """The network sees something else: its accuracy here is not known."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the guard reads from one image.

    `deviations` are 19 integers, `picture` and `layer` the scores; `layer` is None without a
    layer. `is_unusual` says whether a score is above what at most one in 20 normal images has.
    """

    deviations: Integers
    picture: int
    layer: int | None
    is_unusual: bool

    @property
    def feature(self) -> str:
        """The feature with the largest deviation, in words; of equal ones the first."""
        return FEATURES[_find_largest(self.deviations)]


@dataclass(frozen=True, slots=True)
class StreamState:
    """State of a stream: 3 evidences in Q8, 19 trends in Q8, and the running case.

    Attributes:
        evidences: One for each score.
        trends: Moving averages of the deviations, in 1/256 sigma.
        images: Images of the running case.
        steps: Sums of the running case's e-values, one for each score.
        deviations: Sums of the running case's limited deviations.
    """

    evidences: Integers = (0, 0, 0)
    trends: Integers = (0,) * len(FEATURES)
    images: int = 0
    steps: Integers = (0, 0, 0)
    deviations: Integers = (0,) * len(FEATURES)


def read_image(guard: Guard, pixels: Pixels, channel_sums: Int64 | None) -> Reading:
    """Return the reading of one image.

    Args:
        guard: The guard.
        pixels: uint8 (height, width, channels), as `pixel_sums.compute_sums` takes them.
        channel_sums: Sums of the tapped layer's channels (`forms.compute_channel_sums`); None for
            a guard without a layer.
    """
    _, height, width = guard.shape
    sums = compute_sums(pixels, guard.row_step)[None]
    features = compute_features(sums, height, width, guard.row_step)
    return read_measurements(guard, features, None if channel_sums is None else channel_sums[None])[
        0
    ]


def read_measurements(
    guard: Guard, features: Int64, channel_sums: Int64 | None
) -> tuple[Reading, ...]:
    """Return the readings of images with features (images, 19) and sums (images, channels)."""
    deviations = forms.compute_deviations(guard.picture, features)
    pictures = forms.compute_picture_scores(deviations).tolist()
    layers: list[int | None] = [None] * len(pictures)
    if guard.layer is not None:
        assert channel_sums is not None
        layers = forms.compute_layer_scores(guard.layer, channel_sums).tolist()
    rows: list[list[int]] = deviations.tolist()
    return tuple(
        Reading(tuple(row), picture, layer, _is_unusual(guard, picture, layer))
        for row, picture, layer in zip(rows, pictures, layers, strict=True)
    )


def add_image(guard: Guard, state: StreamState, reading: Reading) -> StreamState:
    """Return the state after one more image of the running case."""
    change = guard.drift.changes[find_change(guard, state)]
    drift = compute_drift_score(change, reading.deviations)
    steps = (
        _find_step(guard.picture_table.thresholds, guard.picture_table.steps, reading.picture),
        _find_step(change.thresholds, guard.drift.steps, drift),
        0
        if guard.layer_table is None or reading.layer is None
        else _find_step(guard.layer_table.thresholds, guard.layer_table.steps, reading.layer),
    )
    deviations = tuple(
        total + _limit(deviation, forms.TREND_LIMIT)
        for total, deviation in zip(state.deviations, reading.deviations, strict=True)
    )
    return replace(
        state,
        images=state.images + 1,
        steps=tuple(total + step for total, step in zip(state.steps, steps, strict=True)),
        deviations=deviations,
    )


def end_case(state: StreamState) -> StreamState:
    """Return the state after the running case, a patient or a slide; unchanged without images."""
    if not state.images:
        return state
    evidences = tuple(
        min(((evidence + 256) * (total // state.images)) >> 8, EVIDENCE_LIMIT)
        for evidence, total in zip(state.evidences, state.steps, strict=True)
    )
    trends = tuple(
        trend + ((16 * (total // state.images) - trend) >> TREND_SHIFT)
        for trend, total in zip(state.trends, state.deviations, strict=True)
    )
    return StreamState(evidences, trends)


def get_alarm(guard: Guard, state: StreamState) -> Alarm:
    """Return the alarm of a stream."""
    if sum(state.evidences) < ALARM_LEVEL * guard.scores:
        return Alarm.NONE
    return Alarm.NETWORK if state.evidences[LAYER] >= ALARM_LEVEL else Alarm.PICTURES


def find_feature(state: StreamState) -> int:
    """Return the index of the feature with the largest trend; see `FEATURES`."""
    return _find_largest(state.trends)


def find_change(guard: Guard, state: StreamState) -> int:
    """Return the index of the suspected change: the known change that the trends are most like."""
    likeness = [
        sum(weight * trend for weight, trend in zip(change.direction, state.trends, strict=True))
        for change in guard.drift.changes
    ]
    return max(range(len(likeness)), key=lambda index: (likeness[index], -index))


def describe_alarm(guard: Guard, state: StreamState) -> str:
    """Return the alarm of a stream in words; empty without an alarm."""
    feature = f"most of all in {FEATURES[find_feature(state)]}"
    if state.evidences[DRIFT] >= ALARM_LEVEL:
        feature += f", as if {guard.drift.changes[find_change(guard, state)].name}"
    match get_alarm(guard, state):
        case Alarm.NONE:
            return ""
        case Alarm.NETWORK:
            return (
                "the network sees something else: its accuracy here is not known; the pictures"
                f" differ {feature}"
            )
        case Alarm.PICTURES:
            return f"the pictures differ from those of calibration, {feature}"
        case alarm:
            assert_never(alarm)


def compute_drift_score(change: KnownChange, deviations: Integers) -> int:
    """Return the drift score of an image for a suspected change, in 1/16 sigma."""
    total = sum(
        weight * _limit(deviation, DRIFT_LIMIT)
        for weight, deviation in zip(change.direction, deviations, strict=True)
    )
    return _limit(total >> DIRECTION_BITS, DRIFT_SCORE_LIMIT)


def _find_step(thresholds: Integers, steps: Integers, score: int) -> int:
    return steps[sum(score > threshold for threshold in thresholds)]


def _is_unusual(guard: Guard, picture: int, layer: int | None) -> bool:
    if picture > guard.picture_table.unusual:
        return True
    return guard.layer_table is not None and layer is not None and layer > guard.layer_table.unusual


def _find_largest(values: Integers) -> int:
    return max(range(len(values)), key=lambda index: (abs(values[index]), -index))


def _limit(value: int, limit: int) -> int:
    return max(-limit, min(value, limit))
