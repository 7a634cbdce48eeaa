"""The promise of a guard, counted over many draws, and the state of a stream."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from guard_sets import draw_set, fit

from tcc.compiler.guard import calibration_tables, stream
from tcc.compiler.guard.fit import refit_tables
from tcc.compiler.guard.guard_document import MIN_CASES
from tcc.compiler.guard.stream import Alarm, StreamState

# The benchmark's streams, which a test below compares with the guard's.
sys.path.append(str(Path(__file__).parents[3] / "tools" / "bench"))
guard_streams = importlib.import_module("guard_streams")
Streams, compute_scores = guard_streams.Streams, guard_streams.compute_scores
run_independent = guard_streams.run_independent
NO_IMAGES = StreamState()
ROOM = 2.33
"""Standard deviations of a count's binomial noise, 99 % on one side."""


def run(guard, measurements, state=NO_IMAGES):
    alarms = []
    for reading in stream.read_measurements(
        guard, measurements.features, measurements.channel_sums
    ):
        state = stream.end_case(stream.add_image(guard, state, reading))
        alarms.append(stream.get_alarm(guard, state))
    return state, alarms


def test_a_shift_is_called_and_named_and_normal_images_are_not():
    random = np.random.default_rng(0)
    guard = fit(random, draw_set(random, 200))
    state, alarms = run(guard, draw_set(random, 300))
    assert set(alarms) == {Alarm.NONE}
    assert stream.describe_alarm(guard, state) == ""
    shift = np.zeros(19)
    shift[1] = 4
    shifted, alarms = run(guard, draw_set(random, 40, shift=shift), state)
    assert alarms[-1] is Alarm.PICTURES
    assert "as if change 1" in stream.describe_alarm(guard, shifted)
    assert "pictures differ" in stream.describe_alarm(guard, shifted)
    network, alarms = run(guard, draw_set(random, 40, layer_shift=8), state)
    assert alarms[-1] is Alarm.NETWORK
    assert "its accuracy here is not known" in stream.describe_alarm(guard, network)


def test_at_most_one_in_20_normal_images_is_unusual():
    shares = []
    for draw in range(40):
        random = np.random.default_rng(draw)
        guard = fit(random, draw_set(random, 60), forms=200)
        new = draw_set(random, 500)
        readings = stream.read_measurements(guard, new.features, new.channel_sums)
        shares.append(np.mean([reading.is_unusual for reading in readings]))
    # On average over the guard images, not for each set of them.
    assert np.mean(shares) <= 0.05 + ROOM * np.std(shares) / np.sqrt(len(shares))


@pytest.mark.parametrize("count", [50, 200])
def test_the_bounds_hold_with_their_confidence(count):
    """Each e has an expectation above 1 in at most 1 % of the draws of guard images."""
    draws, broken = 150, 0
    for draw in range(draws):
        random = np.random.default_rng(1000 + draw)
        guard = fit(random, draw_set(random, count), forms=100)
        new = draw_set(random, 20_000)
        scores = compute_scores(guard, new.features, new.channel_sums)
        e = [
            mean_step(guard.picture_table.thresholds, guard.picture_table.steps, scores.picture),
            mean_step(guard.layer_table.thresholds, guard.layer_table.steps, scores.layer),
            *(
                mean_step(change.thresholds, guard.drift.steps, scores.drift[:, index])
                for index, change in enumerate(guard.drift.changes)
            ),
        ]
        broken += max(e) > 1
    assert broken <= 0.01 * draws + ROOM * np.sqrt(draws * 0.01 * 0.99)


def mean_step(thresholds, steps, scores):
    return np.array(steps)[(scores[:, None] > np.array(thresholds)).sum(axis=1)].mean() / 256


def test_a_bound_that_ignores_the_sample_would_be_broken_often(monkeypatch):
    """The count above can fail: with the shares of the sample as bounds it does."""
    monkeypatch.setattr(
        calibration_tables, "compute_upper_bound", lambda above, count, risk: (above + 1) / count
    )
    broken = 0
    for draw in range(30):
        random = np.random.default_rng(draw)
        guard = fit(random, draw_set(random, 100), forms=100)
        new = draw_set(random, 5000)
        scores = compute_scores(guard, new.features, new.channel_sums)
        table = guard.picture_table
        broken += mean_step(table.thresholds, table.steps, scores.picture) > 1
    assert broken > 3


def test_false_alarms_within_n_cases_are_at_most_n_of_100_000():
    alarms = streams_run = 0
    for draw in range(6):
        random = np.random.default_rng(draw)
        guard = fit(random, draw_set(random, 100), forms=100)
        new = draw_set(random, 5000)
        streams = run_independent(
            guard, compute_scores(guard, new.features, new.channel_sums), 1000, 100, random
        )
        alarms += int((streams.alarms > 0).sum())
        streams_run += 100
    assert alarms <= 0.01 * streams_run + ROOM * np.sqrt(streams_run * 0.01)


@pytest.mark.parametrize("size", [5, 40])
def test_cases_keep_the_promise_where_counted_images_break_it(size):
    """Images of a case are alike: a case ended after each image raises false alarms."""
    cases = np.repeat(np.arange(100), size)
    false = {True: 0, False: 0}
    for draw in range(4):
        random = np.random.default_rng(draw)
        guard_images = draw_set(random, len(cases), cases=cases, spread=3)
        guard = fit(random, guard_images, forms=300)
        assert guard.calibrated.cases == 100
        stream_cases = np.repeat(np.arange(400), size)
        new = draw_set(random, len(stream_cases), cases=stream_cases, spread=3)
        scores = compute_scores(guard, new.features, new.channel_sums)
        by_case, by_image = Streams(guard, 20), Streams(guard, 20)
        for _ in range(200):
            drawn_cases = random.integers(0, 400, 20)
            images = drawn_cases[:, None] * size + np.arange(size)
            by_case.add_case(scores, images)
            for column in images.T:
                by_image.add_case(scores, column[:, None])
        false[True] += int((by_case.alarms > 0).sum())
        false[False] += int((by_image.alarms > 0).sum())
    assert false[True] <= 1
    assert size == 5 or false[False] > 10


def test_one_repeated_image_in_a_case_counts_once():
    random = np.random.default_rng(3)
    guard = fit(random, draw_set(random, 100))
    new = draw_set(random, 1)
    (reading,) = stream.read_measurements(guard, new.features, new.channel_sums)
    once = stream.end_case(stream.add_image(guard, StreamState(), reading))
    state = StreamState()
    for _ in range(100):
        state = stream.add_image(guard, state, reading)
    assert stream.end_case(state) == once
    assert stream.end_case(once) == once


def test_many_streams_at_once_equal_one_stream_in_exact_integers():
    random = np.random.default_rng(4)
    guard = fit(random, draw_set(random, 60))
    new = draw_set(random, 120, shift=np.linspace(-2, 2, 19))
    scores = compute_scores(guard, new.features, new.channel_sums)
    readings = stream.read_measurements(guard, new.features, new.channel_sums)
    assert [reading.picture for reading in readings] == scores.picture.tolist()
    streams, states = Streams(guard, 2), [StreamState(), StreamState()]
    for case in range(60):
        indices = np.array([[2 * case, 2 * case + 1], [case, 0]])
        streams.add_case(scores, indices)
        for position, row in enumerate(indices.tolist()):
            for index in row:
                states[position] = stream.add_image(guard, states[position], readings[index])
            states[position] = stream.end_case(states[position])
    assert [state.evidences for state in states] == [
        tuple(row) for row in streams.evidences.tolist()
    ]
    assert [state.trends for state in states] == [tuple(row) for row in streams.trends.tolist()]


def test_a_site_makes_the_tables_again():
    random = np.random.default_rng(5)
    guard = fit(random, draw_set(random, 200))
    shift = np.full(19, 1.5)
    _, alarms = run(guard, draw_set(random, 100, shift=shift))
    assert alarms[-1] is not Alarm.NONE
    site = refit_tables(guard, draw_set(random, 200, shift=shift))
    assert (site.picture, site.layer) == (guard.picture, guard.layer)
    _, alarms = run(site, draw_set(random, 300, shift=shift))
    assert set(alarms) == {Alarm.NONE}


def test_evidence_has_a_limit_and_a_case_without_images_changes_nothing():
    random = np.random.default_rng(6)
    guard = fit(random, draw_set(random, MIN_CASES))
    state, _ = run(guard, draw_set(random, 200, shift=50))
    assert max(state.evidences) <= stream.EVIDENCE_LIMIT
    assert stream.end_case(state) == state
