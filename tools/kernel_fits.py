"""Fit the costs of kernels to their counts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.backends.arm.micro.core_costs import AMOUNTS, LOOP_NAME, get_kind
from tcc.backends.arm.schedule.kernel_candidates import MIN_SAVED_SHARE

COMPETES = 2 / 3
"""A kernel competes in a sample if the cheapest kernel costs at least this share of its cost."""
WORTH = 0.001
"""The least mean saving of a useful tile of plain loops, as a share of the samples' costs."""
Counts = Mapping[str, float]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class CountedKernel:
    """The cost of a kernel and its amounts of work, for each sample that it computes."""

    name: str
    amounts: Mapping[str, Counts]
    counts: Counts

    def fit_costs(self, cheapest: Counts) -> Counts:
        """Return the kernel's costs; `cheapest` is the cost of each sample's cheapest kernel.

        A sample weighs more if the kernel's cost is near to the cheapest one.
        """
        keys = AMOUNTS[get_kind(self.name)]
        measured = np.array([self.counts[sample] for sample in self.amounts])
        rows = np.array([[a.get(key, 0) for key in keys] for a in self.amounts.values()])
        if missing := [key for key, column in zip(keys, rows.T, strict=True) if not column.any()]:
            raise SystemExit(
                f"{self.name}: no sample has the amounts {', '.join(missing)}: "
                "add one to kernel_samples.py"
            )
        shares = np.array([cheapest[sample] for sample in self.amounts]) / measured
        costs = fit_nonnegative(rows / measured[:, None], shares)
        fitted_costs = {key: float(f"{cost:.4g}") for key, cost in zip(keys, costs, strict=True)}
        self._print_fit(self.compute_errors(fitted_costs), shares)
        return fitted_costs

    def compute_errors(self, costs: Counts) -> Numbers:
        """Return the relative error of the fitted cost for each sample."""
        return np.array(
            [
                abs(
                    sum(costs[amount_name] * n for amount_name, n in amounts.items())
                    / self.counts[sample]
                    - 1
                )
                for sample, amounts in self.amounts.items()
            ]
        )

    def _print_fit(self, errors: Numbers, shares: Numbers) -> None:
        competing_errors = errors[shares >= COMPETES]
        worst = list(self.amounts)[int((errors * shares).argmax())]
        print(
            f"  {self.name}: RMS error {_format_rms(errors)} over {len(errors)} samples, "
            f"{_format_rms(competing_errors)} over the {len(competing_errors)} "
            f"in which it competes; worst: {worst}, "
            f"{errors[(errors * shares).argmax()]:.0%}",
            flush=True,
        )


def _format_rms(errors: Numbers) -> str:
    return f"{_compute_rms(errors):.0%}" if len(errors) else "nothing"


def _compute_rms(errors: Numbers) -> float:
    return float(np.sqrt((errors**2).mean()))


def fit_nonnegative(rows: Numbers, shares: Numbers) -> Numbers:
    """Return the non-negative weights that bring each row's sum nearest to 1.

    `shares` weights the error of each row.
    """
    rows = rows * shares[:, None]
    scale = np.abs(rows).max(axis=0)
    used = list(range(rows.shape[1]))
    while True:
        solution, *_ = np.linalg.lstsq((rows / scale)[:, used], shares, rcond=None)
        if (solution >= 0).all():
            break
        used.remove(used[int(solution.argmin())])
    weights = np.zeros(rows.shape[1])
    weights[used] = solution
    unscaled: Numbers = weights / scale
    return unscaled


def compute_cheapest(kernels: Sequence[CountedKernel]) -> Counts:
    """Return the cost of each sample's cheapest kernel."""
    kernel_by_sample = {sample: kernel for kernel in kernels for sample in kernel.amounts}
    return {
        s: min(kernel.counts[s] for kernel in kernels if s in kernel.amounts)
        for s in kernel_by_sample
    }


def fit_worthwhile(kernels: Sequence[CountedKernel]) -> dict[str, Counts]:
    """Return the costs of kernels, without the tiles of plain loops that save nothing or cost more.

    Compilers generate slow code for a tile in some shapes, where sums no longer fit in registers.
    Such a tile costs up to five times as much as its amounts predict. So the comparison uses the
    kernels that would be selected for the samples, with and without the tile.
    """
    cheapest = compute_cheapest(kernels)
    costs = {kernel.name: kernel.fit_costs(cheapest) for kernel in kernels}
    errors = {kernel.name: kernel.compute_errors(costs[kernel.name]) for kernel in kernels}
    while len(tiles := [name for name in costs if LOOP_NAME.fullmatch(name)]) > 1:
        current_cost = compute_choice_cost(kernels, costs.keys(), costs)
        saved = {
            tile: compute_choice_cost(kernels, costs.keys() - {tile}, costs) - current_cost
            for tile in tiles
        }
        if not (idle := [tile for tile in tiles if saved[tile] < WORTH]):
            break
        # There are few samples: the tile with the worst fit may cost more in other shapes.
        worst = max(idle, key=lambda tile: _compute_rms(errors[tile]))
        print(
            f"  {worst} is removed: it saves {saved[worst]:.2%} of {current_cost:.2%} of the least"
        )
        del costs[worst]
    return costs


def compute_choice_cost(
    kernels: Sequence[CountedKernel], names: Collection[str], costs: Mapping[str, Counts]
) -> float:
    """Return the mean cost of the selected kernels, relative to each sample's least cost."""
    called: dict[str, tuple[float, float]] = {}
    for kernel in kernels:
        if kernel.name in names:
            saved = MIN_SAVED_SHARE if kernel.name == "winograd" else 0
            for sample, amounts in kernel.amounts.items():
                estimate = sum(
                    costs[kernel.name][amount_name] * amount
                    for amount_name, amount in amounts.items()
                )
                guess = estimate / (1 - saved), kernel.counts[sample]
                called[sample] = min(called.get(sample, guess), guess)
    cheapest = compute_cheapest(kernels)
    return float(np.mean([count / cheapest[sample] for sample, (_, count) in called.items()]))
