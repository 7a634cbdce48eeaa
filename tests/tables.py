"""Tables of cases, each tried in a loop: a test for each family of them, not for each case."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

Test = Callable[..., None]
Trials = dict[str, dict[str, Any]]


def run_trials(trials: Mapping[str, Callable[[], object]]) -> None:
    """Try all; fail with each that failed, by its name."""
    failed = []
    for name, trial in trials.items():
        try:
            trial()
        except Exception as error:
            error.add_note(f"in the case {name}")
            failed.append((name, error))
    if failed:
        names = "; ".join(name for name, _ in failed)
        message = f"{len(failed)} of {len(trials)} cases fail: {names}"
        raise ExceptionGroup(message, [error for _, error in failed])


def looped(
    table: Mapping[str, Any], *, rotated: bool = False, one_in: int = 1, **ways: Mapping[str, Any]
) -> Callable[[Test], Test]:
    """Make a test of one `case` one of each family, which loops over its cases in a table.

    A family is what cases are called up to the first dash. Each case is tried in all ways, which
    are arguments of the test by name. Where the ways are `rotated`, each case is tried in the
    next one of them, so that every family meets many, and the rest is a slow test beside. So is
    what `one_in` leaves of each family's cases: those between the first, the n-th after it, ...

    Args:
        table: The cases by name.
        rotated: Whether to leave most ways to the slow test.
        one_in: How many cases of a family there are to each that is no slow one.
        ways: Values of further arguments, by what to call them.
    """
    if not table or not all(ways.values()):
        raise ValueError("no cases")
    quick: dict[str, Trials] = {}
    slow: dict[str, Trials] = {}
    combinations = [
        dict(zip(ways, combination, strict=True)) for combination in product(*ways.values())
    ]
    members: Counter[str] = Counter()
    rotation = 0
    for name, case in table.items():
        family = name.partition("-")[0]
        is_nth = members[family] % one_in == 0
        members[family] += 1
        for number, combination in enumerate(combinations):
            is_quick = is_nth and (not rotated or number == rotation % len(combinations))
            values = {argument: ways[argument][key] for argument, key in combination.items()}
            trials = (quick if is_quick else slow).setdefault(family, {})
            trials[" ".join((name, *map(str, combination.values())))] = {"case": case, **values}
        rotation += is_nth
    parameters = [
        *(pytest.param(trials, id=family) for family, trials in quick.items()),
        *(pytest.param(t, id=f"{f}-rest", marks=pytest.mark.slow) for f, t in slow.items()),
    ]
    return functools.partial(_make_test, parameters=parameters, bound_names={"case", *ways})


def _make_test(case_test: Test, parameters: list[Any], bound_names: set[str]) -> Test:
    """Return the test that loops; fixtures of that of one case are its too.

    Each case has a folder of its own as `tmp_path`.
    """

    def test(trials: Trials, **fixtures: object) -> None:
        def trial(number: int, values: dict[str, Any]) -> None:
            folder = fixtures.get("tmp_path")
            if not isinstance(folder, Path):
                return case_test(**fixtures, **values)
            case_folder = folder / f"{number}"
            case_folder.mkdir()
            return case_test(**{**fixtures, "tmp_path": case_folder}, **values)

        numbered = enumerate(trials.items())
        run_trials({name: functools.partial(trial, n, values) for n, (name, values) in numbered})

    functools.update_wrapper(test, case_test)
    del test.__wrapped__
    fixture_parameters = [
        p for name, p in inspect.signature(case_test).parameters.items() if name not in bound_names
    ]
    trials_parameter = inspect.Parameter("trials", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = inspect.Signature([trials_parameter, *fixture_parameters])
    return pytest.mark.parametrize("trials", parameters)(test)
