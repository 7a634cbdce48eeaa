"""What kernels cost on each core: writes `backends/arm/micro/kernel_costs.toml`.

    python tools/search_kernels.py search [TARGET ...] [--kernels NAME ...]
    python tools/search_kernels.py judge TARGET NETWORK ...      on networks that were not searched

`search` builds small convolutions with each kernel that computes them, and counts them under qemu:
modelled cycles where a core has a model, else instructions; this machine's are timed. A kernel's
costs are fitted to its counts. `judge` builds whole networks once with each kernel wherever it can
be, so that the best of each layer is known, and says how the choice by costs compares.
"""

import argparse
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

import kernel_fits
import kernel_samples
from kernel_counts import (
    TILES,
    Counts,
    blank,
    counted_in,
    counts,
    favouring,
    kernels,
    names,
)
from kernel_fits import CountedKernel

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro.core_costs import COSTS_FILE, CoreCosts, load_costs
from tcc.backends.arm.schedule import kernel_candidates
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import Pair

OUT = Path(__file__).resolve().parents[1] / "backends/arm/micro" / COSTS_FILE


def searched(machine: Machine, only: Collection[str] = ()) -> CoreCosts:
    """Return what is known of a core after it was searched, or `only` some of its kernels."""
    costs: dict[str, Counts] = {}
    for levels in (False, True):
        found = sampled(machine, only, levels=levels)
        if only:
            least = kernel_fits.least(found)
            known_costs = machine.costs.kernels
            costs |= {
                one.name: one.fitted(least) if one.name in only else known_costs[one.name]
                for one in found
            }
        else:
            costs |= kernel_fits.worthwhile(found)
    tile = machine.costs.tile if only else best_tile(machine)
    return CoreCosts(counted_in(machine), tile, costs)


def sampled(
    machine: Machine, only: Collection[str] = (), *, levels: bool
) -> Sequence[CountedKernel]:
    """Return what each kernel that a core has costs in the samples; as known but for `only`."""
    amounts = {
        name: found
        for name in names(levels=levels)
        if (not only or name in {*only, *machine.costs.kernels})
        and (found := sampled_amounts(machine, name, levels=levels))
    }
    counted = {name: found for name, found in amounts.items() if not only or name in only}
    models = {
        name: kernel_samples.convolutions(list(found), levels=levels)
        for name, found in counted.items()
    }
    found = dict(counts(models, {name: favouring(blank(machine), name) for name in counted}))
    for name in amounts.keys() - counted.keys():
        each = machine.costs.kernels[name]
        found[name] = {
            sample: sum(each[what] * amount for what, amount in own.items())
            for sample, own in amounts[name].items()
        }
    return [CountedKernel(name, amounts[name], found[name]) for name in amounts]


def sampled_amounts(machine: Machine, name: str, *, levels: bool) -> Mapping[str, Counts]:
    """Return how much of what costs there is of a kernel in the samples that it computes."""
    every = kernel_samples.convolutions(list(kernel_samples.EVERY), levels=levels)
    forced = kernels(every, favouring(blank(machine), name))
    named = {sample: kernel_candidates.count_amounts(kernel) for sample, kernel in forced.items()}
    return {sample: amounts for sample, (called, amounts) in named.items() if called == name}


def best_tile(machine: Machine) -> Pair:
    """Return the tile of plain loops with which those that have no other kernel cost least."""
    tried = {f"{rows}x{pixels}": (rows, pixels) for rows, pixels in TILES}
    found = counts(
        dict.fromkeys(tried, kernel_samples.loops()),
        {name: blank(machine, tile) for name, tile in tried.items()},
    )
    totals = {name: sum(found[name].values()) for name in tried}
    print("  " + ", ".join(f"loops of {name}: {total:.0f}" for name, total in totals.items()))
    return tried[min(tried, key=lambda name: (totals[name], tried[name]))]


def text(costs: Mapping[str, CoreCosts]) -> str:
    """Return the file's text."""
    lines = ["# Written by tools/search_kernels.py: see it for what is measured."]
    for core, found in sorted(costs.items()):
        lines += ["", f"[{core}]", f'counted = "{found.unit}"', f"tile = {list(found.tile)}"]
        for name, each in sorted(found.kernels.items()):
            lines += ["", f"[{core}.{name}]", *(f"{key} = {cost}" for key, cost in each.items())]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Choice:
    """How kernels that were chosen by costs compare with the best that there are.

    `best` layers of `layers` have the best kernel; `worst` is what the least fortunate one costs
    more, as a share of itself.
    """

    network: str
    form: str
    layers: int
    best: int
    chosen: float
    least: float
    worst: float
    layer: str


def judged(machine: Machine, network: str, model: Model, *, levels: bool) -> Choice:
    """Return how a core's choice fares on a network."""
    found = {
        layer: kernel_candidates.count_amounts(k)[0] for layer, k in kernels(model, machine).items()
    }
    known_counts = candidates(machine, model, levels=levels)
    least = {layer: min(known_counts[layer].values()) for layer in found}
    taken = {layer: known_counts[layer][name] for layer, name in found.items()}
    more = {layer: taken[layer] / least[layer] - 1 for layer in found}
    layer = max(more, key=lambda layer: more[layer])
    best = sum(share < NEAR for share in more.values())
    return Choice(
        network, "int8" if levels else "fp32", len(found), best, sum(taken.values()),
        sum(least.values()), more[layer], layer,
    )  # fmt: skip


NEAR = 0.005
"""Share by which kernels of the same cost may differ."""


def candidates(machine: Machine, model: Model, *, levels: bool) -> Mapping[str, Counts]:
    """Return what each layer costs with each kernel that computes it."""
    forced = {name: favouring(blank(machine), name) for name in names(levels=levels)}
    used = {
        name: [
            s
            for s, k in kernels(model, one).items()
            if kernel_candidates.count_amounts(k)[0] == name
        ]
        for name, one in forced.items()
    }
    used = {name: layers for name, layers in used.items() if layers}
    found = counts(dict.fromkeys(used, model), forced)
    table: dict[str, dict[str, float]] = {}
    for name, layers in used.items():
        for layer in layers:
            table.setdefault(layer, {})[name] = found[name][layer]
    return table


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    machines = {machine.target.name: machine for machine in MACHINES}
    search = commands.add_parser("search")
    search.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(machines))
    every = [*names(levels=False), *names(levels=True)]
    search.add_argument("--kernels", nargs="+", choices=every, default=(), help="these alone")
    judge = commands.add_parser("judge")
    judge.add_argument("target", choices=machines)
    judge.add_argument("networks", nargs="+")
    judge.add_argument("--form", choices=("fp32", "int8"), nargs="+", default=("fp32", "int8"))
    judge.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.command == "search":
        if unknown := sorted(set(given.targets) - machines.keys()):
            parser.error(f"no targets: {', '.join(unknown)}; there are {', '.join(machines)}")
        write([machines[name] for name in given.targets or machines], given.kernels)
    else:
        _judge(machines[given.target], given.networks, given.form, as_json=given.json)


def write(machines: Sequence[Machine], only: Collection[str]) -> None:
    """Search cores, and write what is known of all after each."""
    costs = dict(load_costs()) if OUT.exists() else {}
    for machine in machines:
        print(machine.target.name, flush=True)
        start = process_time() + children_time()
        costs[machine.core] = searched(machine, only)
        OUT.write_text(text(costs), "utf-8")
        print(f"  {process_time() + children_time() - start:.0f} s of processor time", flush=True)


def children_time() -> float:
    """Return the seconds that programs which ended took."""
    found = os.times()
    return found.children_user + found.children_system


def _judge(
    machine: Machine, networks: Sequence[str], forms: Sequence[str], *, as_json: bool
) -> None:
    found = []
    for network in networks:
        for form in forms:
            levels = form == "int8"
            model = kernel_samples.network(network, levels=levels)
            choice = judged(machine, network, model, levels=levels)
            found.append(asdict(choice))
            if not as_json:
                print(
                    f"{choice.network} {choice.form}: {choice.best} of {choice.layers} layers have "
                    f"the best kernel; all cost {choice.chosen / choice.least - 1:.2%} more than "
                    f"with it, {choice.layer} {choice.worst:.0%}", flush=True,
                )  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
