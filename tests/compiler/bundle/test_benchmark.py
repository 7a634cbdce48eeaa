"""Benchmark comparison: differences below 15 % or within the spread give no verdict."""

import pytest

from tcc.compiler.bundle.benchmark import CostComparison, CostVerdict, compare_costs
from tcc.compiler.ir.measurement import RunCost, RunTimes, summarize_times

LOWER, HIGHER, UNDECIDED = CostVerdict.LOWER, CostVerdict.HIGHER, CostVerdict.UNDECIDED


def create_cost(median: float, spread: float = 0.0) -> RunCost:
    return RunCost(times=RunTimes(median, median - spread, median + spread, median, 9))


PAIRS = {
    "cycles decide": (RunCost(90, 100), RunCost(200, 80), ("cycles", 0.8, LOWER)),
    "not by 15 %": (RunCost(90, 100), RunCost(90, 86), ("cycles", 0.86, UNDECIDED)),
    "nor the other way": (RunCost(90, 86), RunCost(90, 100), ("cycles", 100 / 86, UNDECIDED)),
    "but by more": (RunCost(90, 80), RunCost(90, 100), ("cycles", 1.25, HIGHER)),
    "instructions where there are no cycles": (RunCost(100), RunCost(300, 1), ("instructions", 3, HIGHER)),
    "times": (create_cost(4), create_cost(2), ("time", 0.5, LOWER)),
    "times that overlap": (create_cost(4, 1.5), create_cost(2, 0.5), ("time", 0.5, UNDECIDED)),
    "times that just do not": (create_cost(4, 1.4), create_cost(2, 0.5), ("time", 0.5, LOWER)),
    "the same": (create_cost(4), create_cost(4), ("time", 1, UNDECIDED)),
}  # fmt: skip


@pytest.mark.parametrize(("first_cost", "second_cost", "expected"), PAIRS.values(), ids=PAIRS)
def test_comparison_gives_the_verdict(
    first_cost: RunCost, second_cost: RunCost, expected: tuple[str, float, CostVerdict]
) -> None:
    assert compare_costs(first_cost, second_cost) == CostComparison(*expected)


def test_times_and_counts_are_not_compared() -> None:
    assert compare_costs(RunCost(100, 100), create_cost(1)) is None
    assert compare_costs(RunCost(), RunCost(1)) is None


def test_quartiles() -> None:
    assert summarize_times([4.0, 1.0, 2.0, 3.0], 9.0) == RunTimes(3.0, 2.0, 4.0, 9.0, 4)
    assert summarize_times([5.0], 5.0) == RunTimes(5.0, 5.0, 5.0, 5.0, 1)
