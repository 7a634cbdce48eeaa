"""Loops over cases run every combination and report which ones failed."""

import pytest
from tables import looped, run_trials

TABLE = {f"{family}-{number}": (family, number) for family in "ab" for number in range(5)}
VARIANTS = {"first": 1, "second": 2, "third": 3}


def run_looped(rotated):
    calls = {"quick": [], "slow": []}

    @looped(TABLE, rotated=rotated, argument=VARIANTS)
    def test(case, argument):
        calls[kind].append((*case, argument))

    (mark,) = test.pytestmark
    for parameter in mark.args[1]:
        kind = "slow" if parameter.marks else "quick"
        test(*parameter.values)
    return calls


@pytest.mark.parametrize("rotated", [False, True])
def test_every_case_runs_once_with_every_argument(rotated):
    calls = run_looped(rotated)
    expected = [(*case, variant) for case in TABLE.values() for variant in VARIANTS.values()]
    assert sorted(calls["quick"] + calls["slow"]) == sorted(expected)
    assert len(calls["quick"]) == (len(TABLE) if rotated else len(expected))
    for family in "ab":  # each family meets every argument, not always the same one
        assert {variant for name, _, variant in calls["quick"] if name == family} == set(
            VARIANTS.values()
        )


def test_one_case_in_n_is_not_slow():
    @looped({**TABLE, "c": ("c", 0)}, one_in=3)
    def test(case):
        pass

    parameters = {parameter.id: parameter for parameter in test.pytestmark[0].args[1]}
    assert {name: len(p.values[0]) for name, p in parameters.items()} == {
        "a": 2, "b": 2, "c": 1, "a-rest": 3, "b-rest": 3,
    }  # fmt: skip
    assert {name for name, p in parameters.items() if p.marks} == {"a-rest", "b-rest"}


def test_all_failing_cases_are_named():
    reached = []

    @looped({"a-1": 1, "a-2": 2, "a-3": 3})
    def test(case):
        reached.append(case)
        assert case == 2

    (parameter,) = test.pytestmark[0].args[1]
    with pytest.raises(ExceptionGroup, match="2 of 3 cases fail: a-1; a-3") as caught:
        test(*parameter.values)
    assert reached == [1, 2, 3]
    assert [error.__notes__ for error in caught.value.exceptions] == [
        ["in the case a-1"],
        ["in the case a-3"],
    ]


def test_an_empty_table_is_an_error():
    with pytest.raises(ValueError, match="no cases"):
        looped({})


def test_a_skip_ends_the_loop():
    with pytest.raises(pytest.skip.Exception):
        run_trials({"a": lambda: pytest.skip("not here"), "b": lambda: None})


@looped({"a-1": "one", "a-2": "two"})
def test_each_case_has_its_own_folder(case, tmp_path):
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text(case)
