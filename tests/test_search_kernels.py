"""The kernel cost search: samples, fits, the file text, and evaluation of choices."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from float_kernels import A53
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.micro.core_costs import AMOUNTS, load_costs, parse_costs

FILE = Path(core_costs.__file__).with_name(core_costs.COSTS_FILE)


@pytest.fixture(scope="module")
def search(request: pytest.FixtureRequest):
    """The tool, with its folder on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "tools")
        import search_kernels

        yield search_kernels


def test_the_costs_file_is_the_output_of_the_tool(search) -> None:
    assert search.format_costs(load_costs()) == FILE.read_text("utf-8")


@given(
    st.dictionaries(
        st.sampled_from([m.core for m in MACHINES]),
        st.dictionaries(st.sampled_from(sorted(AMOUNTS)), st.floats(1e-9, 1e9), min_size=1),
    )
)
def test_written_costs_read_back(search, kernel_costs) -> None:
    costs = {
        core: core_costs.CoreCosts(
            "cycles",
            (4, 8),
            {
                (f"{name}_4x8" if "loops" in name else name): dict.fromkeys(AMOUNTS[name], cost)
                for name, cost in {**kernels, "loops": 1.0, "level_loops": 2.0}.items()
            },
        )
        for core, kernels in kernel_costs.items()
    }
    assert parse_costs(search.format_costs(costs)) == costs


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.target.name)
def test_every_cost_term_occurs_in_a_sample(search, machine: Machine) -> None:
    """A term without a sample would cost nothing, and its kernel would be chosen."""
    for levels in (False, True):
        for name in search.list_kernels(levels=levels):
            sampled_amounts = search.list_sample_amounts(machine, name, levels=levels)
            if core_costs.LOOP_NAME.fullmatch(name):
                assert sampled_amounts  # some tiles may be omitted
            else:
                assert bool(sampled_amounts) == (name in machine.costs.kernels), name
            for amount_name in AMOUNTS[core_costs.get_kind(name)] if sampled_amounts else ():
                assert any(amounts.get(amount_name) for amounts in sampled_amounts.values()), (
                    name,
                    amount_name,
                )


SIZES = [(1, 9), (2, 7), (3, 5), (9, 1), (7, 2), (5, 4)]
"""Products of samples, and other cost terms of plain loops."""


def make_tile_kernel(search, tile_name: str, product: float, other_cost: float, *offsets: int):
    """Return the loops of a tile. Bad samples cost five times as much."""
    first_amount, *other_amounts = AMOUNTS["level_loops"]
    amounts = {
        str(n): {first_amount: a, **dict.fromkeys(other_amounts, b)}
        for n, (a, b) in enumerate(SIZES)
    }
    counts = {
        str(n): (a * product + b * other_cost) * (5 if n in offsets else 1)
        for n, (a, b) in enumerate(SIZES)
    }
    return search.CountedKernel(f"level_loops_{tile_name}", amounts, counts)


@pytest.mark.parametrize(
    ("second", "kept_tiles"),
    [
        ((0.97, 0.97, 4), {"4x8"}),  # better, except for one shape where it is much worse
        ((0.9, 0.9), {"8x8"}),
        ((1, 1), {"8x8"}),  # equal: only one is kept
        ((3, 0.2), {"4x8", "8x8"}),  # each is better on other shapes
        ((0.3, 0.3, 4), {"8x8"}),  # it is used in any case, also where it is worse
    ],
)
def test_tiles_that_save_nothing_or_are_slow_on_some_shapes_are_omitted(
    search, second, kept_tiles
) -> None:
    tile_kernels = [make_tile_kernel(search, "4x8", 1, 1), make_tile_kernel(search, "8x8", *second)]
    costs = search.kernel_fits.fit_worthwhile(tile_kernels)
    assert {name.removeprefix("level_loops_") for name in costs} == kept_tiles
    single_costs = search.kernel_fits.fit_worthwhile(tile_kernels[1:])
    assert list(single_costs) == [tile_kernels[1].name]


def test_a_cost_term_without_samples_is_reported(search) -> None:
    kernel = search.CountedKernel("vector", {"one": {"products": 9}}, {"one": 3.0})
    with pytest.raises(SystemExit, match="vector: no sample has the amounts outputs"):
        kernel.fit_costs({"one": 3.0})


@settings(max_examples=40)
@given(st.lists(st.floats(0, 100), min_size=3, max_size=3).filter(any), st.integers(0, 999))
def test_exact_costs_are_recovered(search, costs: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    amounts = random.integers(1, 1000, (12, 3)).astype(float)
    counts = amounts @ np.array(costs)
    fitted_costs = search.kernel_fits.fit_nonnegative(
        amounts / counts[:, None], random.uniform(0.1, 1, 12)
    )
    assert (fitted_costs >= 0).all()
    np.testing.assert_allclose(amounts @ fitted_costs, counts, rtol=1e-6)


def test_costs_are_never_negative(search) -> None:
    """A term with a negative fitted weight gets zero cost."""
    fitted_costs = search.kernel_fits.fit_nonnegative(
        np.array([[1.0, 1.0], [1.0, 0.1], [1.1, 2.0]]), np.ones(3)
    )
    assert (fitted_costs >= 0).all()
    assert fitted_costs.any()


@pytest.mark.slow
def test_choices_are_evaluated_by_reproducible_counts(search, monkeypatch) -> None:
    if shutil.which(A53.qemu) is None:
        pytest.skip(f"needs {A53.qemu}: apt-get install qemu-user")
    samples = {
        name: search.kernel_samples.EVERY[name] for name in ("three_24_12_14", "few_pixels_8_32_1")
    }
    model = search.kernel_samples.build_sample_network(list(samples), levels=False)
    candidate_costs = search.measure_candidates(A53, model, levels=False)
    assert candidate_costs == search.measure_candidates(A53, model, levels=False)
    assert candidate_costs.keys() == samples.keys()
    evaluation = search.evaluate_choice(A53, "samples", model, levels=False)
    assert evaluation.layers == 2
    assert evaluation.least == sum(min(costs.values()) for costs in candidate_costs.values())
    assert (
        evaluation.least
        <= evaluation.chosen
        <= sum(max(costs.values()) for costs in candidate_costs.values())
    )
