"""Costs of kernels, fitted to what was counted of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.backends.arm.micro.core_costs import AMOUNTS, LOOP_NAME, get_kind
from tcc.backends.arm.schedule.kernel_candidates import MIN_SAVED_SHARE

COMPETES = 2 / 3
"""Share of a kernel's cost that the cheapest takes where it competes with that."""
WORTH = 0.001
"""What a tile of plain loops has to save in the mean, as a share of what the samples cost."""
Counts = Mapping[str, float]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class CountedKernel:
    """What a kernel cost in each sample that it computes, and how much of what there was of it."""

    name: str
    amounts: Mapping[str, Counts]
    counts: Counts

    def fitted(self, least: Counts) -> Counts:
        """Return its costs; `least` is what the cheapest kernel of each sample costs.

        The nearer a kernel is to being the cheapest, the more its costs are held to a sample.
        """
        keys = AMOUNTS[get_kind(self.name)]
        found = np.array([self.counts[sample] for sample in self.amounts])
        rows = np.array([[a.get(key, 0) for key in keys] for a in self.amounts.values()])
        if missing := [key for key, some in zip(keys, rows.T, strict=True) if not some.any()]:
            raise SystemExit(f"{self.name}: no sample has {', '.join(missing)}")
        shares = np.array([least[sample] for sample in self.amounts]) / found
        costs = positive(rows / found[:, None], shares)
        made = {key: float(f"{cost:.4g}") for key, cost in zip(keys, costs, strict=True)}
        self._tell(self.off(made), shares)
        return made

    def off(self, costs: Counts) -> Numbers:
        """Return by what share its cost is another one than was counted, for each sample."""
        return np.array(
            [
                abs(sum(costs[what] * n for what, n in amounts.items()) / self.counts[sample] - 1)
                for sample, amounts in self.amounts.items()
            ]
        )

    def _tell(self, off: Numbers, shares: Numbers) -> None:
        near = off[shares >= COMPETES]
        worst = list(self.amounts)[int((off * shares).argmax())]
        print(
            f"  {self.name}: {len(off)} samples within {_spread(off)}, the {len(near)} in which it "
            f"competes within {_spread(near)}, {worst} {off[(off * shares).argmax()]:.0%}",
            flush=True,
        )


def _spread(off: Numbers) -> str:
    return f"{_rms(off):.0%}" if len(off) else "nothing"


def _rms(off: Numbers) -> float:
    return float(np.sqrt((off**2).mean()))


def positive(rows: Numbers, shares: Numbers) -> Numbers:
    """Return the weights, none negative, with which each row's sum is nearest to 1.

    What a sum is off counts by the row's share.
    """
    rows = rows * shares[:, None]
    scale = np.abs(rows).max(axis=0)
    used = list(range(rows.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq((rows / scale)[:, used], shares, rcond=None)
        if (found >= 0).all():
            break
        used.remove(used[int(found.argmin())])
    weights = np.zeros(rows.shape[1])
    weights[used] = found
    made: Numbers = weights / scale
    return made


def least(found: Sequence[CountedKernel]) -> Counts:
    """Return what the cheapest kernel of each sample costs."""
    every = {sample: one for one in found for sample in one.amounts}
    return {s: min(one.counts[s] for one in found if s in one.amounts) for s in every}


def worthwhile(found: Sequence[CountedKernel]) -> dict[str, Counts]:
    """Return the costs of kernels, without tiles of plain loops that save nothing, or do harm.

    What compilers make of a tile falls apart in some shapes, where sums no longer fit in registers:
    it costs up to five times as much as amounts say. What counts is the kernels that would be
    called for the samples, with the tile and without.
    """
    cheapest = least(found)
    costs = {one.name: one.fitted(cheapest) for one in found}
    off = {one.name: one.off(costs[one.name]) for one in found}
    while len(tiles := [name for name in costs if LOOP_NAME.fullmatch(name)]) > 1:
        now = chosen(found, costs.keys(), costs)
        saved = {tile: chosen(found, costs.keys() - {tile}, costs) - now for tile in tiles}
        if not (idle := [tile for tile in tiles if saved[tile] < WORTH]):
            break
        # Samples are few: what fits worst may do more harm elsewhere.
        worst = max(idle, key=lambda tile: _rms(off[tile]))
        print(f"  {worst} is left out: it saves {saved[worst]:.2%} of {now:.2%} of the least")
        del costs[worst]
    return costs


def chosen(
    found: Sequence[CountedKernel], names: Collection[str], costs: Mapping[str, Counts]
) -> float:
    """Return what the kernels cost that are called for samples, of the least: the mean share."""
    called: dict[str, tuple[float, float]] = {}
    for one in found:
        if one.name in names:
            saved = MIN_SAVED_SHARE if one.name == "winograd" else 0
            for sample, amounts in one.amounts.items():
                each = sum(costs[one.name][what] * amount for what, amount in amounts.items())
                guess = each / (1 - saved), one.counts[sample]
                called[sample] = min(called.get(sample, guess), guess)
    cheapest = least(found)
    return float(np.mean([count / cheapest[sample] for sample, (_, count) in called.items()]))
