"""Concurrent writers of one folder in many orders: all succeed, and a broken protocol is detected."""

from contextlib import nullcontext
from importlib import import_module

import pytest

from tcc.compiler.support import atomic_files
from tcc.compiler.support.atomic_files import check_target


@pytest.fixture
def interleave(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "tools")
    return import_module("interleave")


def find_errors(interleave, play, every: int) -> list[str]:
    orders = list(interleave.list_orders(play))[::every]
    assert len(orders) > 10
    return [reason for order in orders if (reason := interleave.run_order(play, order)[0])]


@pytest.mark.parametrize("number", range(5))
def test_all_writers_succeed_in_every_order(interleave, number):
    assert len(interleave.PLAYS) == 5
    play = interleave.PLAYS[number]
    assert find_errors(interleave, play, 29 if number > 2 else 211) == []


def test_a_killed_writer_is_detected(interleave):
    """The third scenario also kills between the two renames, when no folder is in place."""
    play = interleave.PLAYS[2]
    moments = {tuple(interleave.run_order(play, (-step, 0))[1]) for step in range(1, 40)}
    assert len(moments) == 39


@pytest.mark.parametrize(
    ("change", "number", "expected_error"),
    [
        ((atomic_files, "_lock_folder", lambda _: nullcontext()), 1, "E0602"),
        ((atomic_files, "check_folder", check_target), 1, "E0602"),
        ((atomic_files, "is_same_file", lambda path, descriptor: True), 3, "E0603"),
    ],
    ids=("swap without the lock", "look without the lock", "claim without a look"),
)
def test_a_broken_protocol_is_detected(interleave, monkeypatch, change, number, expected_error):
    monkeypatch.setattr(*change)
    errors = find_errors(interleave, interleave.PLAYS[number], 5 if number == 3 else 31)
    assert any(expected_error in reason for reason in errors)
