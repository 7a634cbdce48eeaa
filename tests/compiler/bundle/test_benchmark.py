"""What is nearer than 15 %, or overlaps, decides nothing."""

import pytest

from tcc.compiler.bundle.benchmark import CostComparison, CostVerdict, compare_costs
from tcc.compiler.ir.measurement import RunCost, RunTimes, summarize_times

LESS, MORE, UNDECIDED = CostVerdict.LOWER, CostVerdict.HIGHER, CostVerdict.UNDECIDED


def create_cost(median: float, spread: float = 0.0) -> RunCost:
    return RunCost(times=RunTimes(median, median - spread, median + spread, median, 9))


PAIRS = {
    "cycles decide": (RunCost(90, 100), RunCost(200, 80), ("cycles", 0.8, LESS)),
    "not by 15 %": (RunCost(90, 100), RunCost(90, 86), ("cycles", 0.86, UNDECIDED)),
    "nor the other way": (RunCost(90, 86), RunCost(90, 100), ("cycles", 100 / 86, UNDECIDED)),
    "but by more": (RunCost(90, 80), RunCost(90, 100), ("cycles", 1.25, MORE)),
    "instructions where there are no cycles": (RunCost(100), RunCost(300, 1), ("instructions", 3, MORE)),
    "times": (create_cost(4), create_cost(2), ("time", 0.5, LESS)),
    "times that overlap": (create_cost(4, 1.5), create_cost(2, 0.5), ("time", 0.5, UNDECIDED)),
    "times that just do not": (create_cost(4, 1.4), create_cost(2, 0.5), ("time", 0.5, LESS)),
    "the same": (create_cost(4), create_cost(4), ("time", 1, UNDECIDED)),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS.values(), ids=PAIRS)
def test_pairs(first: RunCost, second: RunCost, expected: tuple[str, float, CostVerdict]) -> None:
    assert compare_costs(first, second) == CostComparison(*expected)


def test_what_was_timed_does_not_compare_with_what_was_counted() -> None:
    assert compare_costs(RunCost(100, 100), create_cost(1)) is None
    assert compare_costs(RunCost(), RunCost(1)) is None


def test_quartiles() -> None:
    assert summarize_times([4.0, 1.0, 2.0, 3.0], 9.0) == RunTimes(3.0, 2.0, 4.0, 9.0, 4)
    assert summarize_times([5.0], 5.0) == RunTimes(5.0, 5.0, 5.0, 5.0, 1)
