"""Tables of cases in loops: one test per family of cases, not per case."""

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
    """Run all trials. Fail with the name of each failed one."""
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
    table: Mapping[str, Any],
    *,
    rotated: bool = False,
    one_in: int = 1,
    **variants: Mapping[str, Any],
) -> Callable[[Test], Test]:
    """Turn a test of one `case` into one test per family, which loops over the cases of a table.

    The family of a case is its name up to the first dash. Each case runs with all combinations of
    `variants`. With `rotated`, each case runs with only one combination, the next one in turn. The
    others are in an additional slow test. The same holds for cases that `one_in` skips.

    Args:
        table: The cases by name.
        rotated: Whether most combinations are in the slow test.
        one_in: One case of this many per family is not slow.
        variants: Values of further arguments, by display name.
    """
    if not table or not all(variants.values()):
        raise ValueError("no cases")
    quick: dict[str, Trials] = {}
    slow: dict[str, Trials] = {}
    combinations = [
        dict(zip(variants, combination, strict=True)) for combination in product(*variants.values())
    ]
    members: Counter[str] = Counter()
    rotation = 0
    for name, case in table.items():
        family = name.partition("-")[0]
        is_nth = members[family] % one_in == 0
        members[family] += 1
        for number, combination in enumerate(combinations):
            is_quick = is_nth and (not rotated or number == rotation % len(combinations))
            values = {argument: variants[argument][key] for argument, key in combination.items()}
            trials = (quick if is_quick else slow).setdefault(family, {})
            trials[" ".join((name, *map(str, combination.values())))] = {"case": case, **values}
        rotation += is_nth
    parameters = [
        *(pytest.param(trials, id=family) for family, trials in quick.items()),
        *(pytest.param(t, id=f"{f}-rest", marks=pytest.mark.slow) for f, t in slow.items()),
    ]
    return functools.partial(_make_test, parameters=parameters, bound_names={"case", *variants})


def _make_test(case_test: Test, parameters: list[Any], bound_names: set[str]) -> Test:
    """Return the looping test. It uses the fixtures of the test of one case.

    Each case has a separate folder as `tmp_path`.
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
