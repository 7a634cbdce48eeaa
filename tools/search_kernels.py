"""Measure the costs of kernels on each core for `backends/arm/micro/kernel_costs.toml`.

    python tools/search_kernels.py search [TARGET ...] [--kernels NAME ...]
    python tools/search_kernels.py judge TARGET NETWORK ...      on networks that were not searched

`search` builds small convolutions with each kernel that supports them, and counts them under qemu:
modelled cycles if the core has a model, otherwise instructions. On this machine's own core, they
are timed. The costs of a kernel are fitted to its counts. `judge` builds complete networks with
each kernel wherever possible. So the best kernel of each layer is known, and `judge` compares the
selection by costs with it.
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
    count_layers,
    get_cost_unit,
    list_kernels,
    make_uniform_machine,
    map_kernels,
    select_kernel,
)
from kernel_fits import CountedKernel

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro.core_costs import COSTS_FILE, CoreCosts, load_costs
from tcc.backends.arm.schedule import kernel_candidates
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import Pair

OUT = Path(__file__).resolve().parents[1] / "backends/arm/micro" / COSTS_FILE


def search_core(machine: Machine, only: Collection[str] = ()) -> CoreCosts:
    """Return the costs of a core; `only` limits the search to some of its kernels."""
    costs: dict[str, Counts] = {}
    for levels in (False, True):
        counted_kernels = measure_samples(machine, only, levels=levels)
        if only:
            cheapest = kernel_fits.compute_cheapest(counted_kernels)
            known_costs = machine.costs.kernels
            costs |= {
                kernel.name: kernel.fit_costs(cheapest)
                if kernel.name in only
                else known_costs[kernel.name]
                for kernel in counted_kernels
            }
        else:
            costs |= kernel_fits.fit_worthwhile(counted_kernels)
    tile = machine.costs.tile if only else find_best_tile(machine)
    return CoreCosts(get_cost_unit(machine), tile, costs)


def measure_samples(
    machine: Machine, only: Collection[str] = (), *, levels: bool
) -> Sequence[CountedKernel]:
    """Return the measured samples of each kernel; kernels outside `only` keep their known costs."""
    amounts = {
        name: figures
        for name in list_kernels(levels=levels)
        if (not only or name in {*only, *machine.costs.kernels})
        and (figures := list_sample_amounts(machine, name, levels=levels))
    }
    counted = {name: figures for name, figures in amounts.items() if not only or name in only}
    models = {
        name: kernel_samples.build_sample_network(list(figures), levels=levels)
        for name, figures in counted.items()
    }
    figures = dict(
        count_layers(
            models, {name: select_kernel(make_uniform_machine(machine), name) for name in counted}
        )
    )
    for name in amounts.keys() - counted.keys():
        kernel_costs = machine.costs.kernels[name]
        figures[name] = {
            sample: sum(
                kernel_costs[amount_name] * amount for amount_name, amount in sample_amounts.items()
            )
            for sample, sample_amounts in amounts[name].items()
        }
    return [CountedKernel(name, amounts[name], figures[name]) for name in amounts]


def list_sample_amounts(machine: Machine, name: str, *, levels: bool) -> Mapping[str, Counts]:
    """Return the cost amounts of a kernel for the samples that it computes."""
    sample_network = kernel_samples.build_sample_network(list(kernel_samples.EVERY), levels=levels)
    forced = map_kernels(sample_network, select_kernel(make_uniform_machine(machine), name))
    kernel_by_sample = {
        sample: kernel_candidates.count_amounts(kernel) for sample, kernel in forced.items()
    }
    return {
        sample: amounts for sample, (called, amounts) in kernel_by_sample.items() if called == name
    }


def find_best_tile(machine: Machine) -> Pair:
    """Return the tile of plain loops that is cheapest for layers without another kernel."""
    tried = {f"{rows}x{pixels}": (rows, pixels) for rows, pixels in TILES}
    counts_by_tile = count_layers(
        dict.fromkeys(tried, kernel_samples.build_loop_network()),
        {name: make_uniform_machine(machine, tile) for name, tile in tried.items()},
    )
    totals = {name: sum(counts_by_tile[name].values()) for name in tried}
    print("  " + ", ".join(f"{name} loops: {total:.0f}" for name, total in totals.items()))
    return tried[min(tried, key=lambda name: (totals[name], tried[name]))]


def format_costs(costs: Mapping[str, CoreCosts]) -> str:
    """Return the text of the file."""
    lines = [
        "# Costs of kernels by core. tools/search_kernels.py writes them and explains their units."
    ]
    for core, costs_of_core in sorted(costs.items()):
        lines += [
            "",
            f"[{core}]",
            f'counted = "{costs_of_core.unit}"',
            f"tile = {list(costs_of_core.tile)}",
        ]
        for name, kernel_costs in sorted(costs_of_core.kernels.items()):
            lines += [
                "",
                f"[{core}.{name}]",
                *(f"{key} = {cost}" for key, cost in kernel_costs.items()),
            ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class ChoiceQuality:
    """The costs of the selected kernels compared with the best ones.

    `best` of `layers` layers have the best kernel. `worst` is the largest excess of a layer over
    its best kernel, as a share of the best kernel's cost.
    """

    network: str
    form: str
    layers: int
    best: int
    chosen: float
    least: float
    worst: float
    layer: str


def evaluate_choice(machine: Machine, network: str, model: Model, *, levels: bool) -> ChoiceQuality:
    """Compare a core's kernel selection for a network with the best one."""
    chosen_kernels = {
        layer: kernel_candidates.count_amounts(k)[0]
        for layer, k in map_kernels(model, machine).items()
    }
    known_counts = measure_candidates(machine, model, levels=levels)
    cheapest = {layer: min(known_counts[layer].values()) for layer in chosen_kernels}
    chosen_costs = {layer: known_counts[layer][name] for layer, name in chosen_kernels.items()}
    excess = {layer: chosen_costs[layer] / cheapest[layer] - 1 for layer in chosen_kernels}
    layer = max(excess, key=lambda layer: excess[layer])
    best = sum(share < EQUAL_COST_SHARE for share in excess.values())
    return ChoiceQuality(
        network,
        "int8" if levels else "fp32",
        len(chosen_kernels),
        best,
        sum(chosen_costs.values()),
        sum(cheapest.values()),
        excess[layer],
        layer,
    )


EQUAL_COST_SHARE = 0.005
"""Kernels with a relative cost difference below this count as equal."""


def measure_candidates(machine: Machine, model: Model, *, levels: bool) -> Mapping[str, Counts]:
    """Return the cost of each layer with each kernel that supports it."""
    forced = {
        name: select_kernel(make_uniform_machine(machine), name)
        for name in list_kernels(levels=levels)
    }
    used = {
        name: [
            s
            for s, k in map_kernels(model, forced_machine).items()
            if kernel_candidates.count_amounts(k)[0] == name
        ]
        for name, forced_machine in forced.items()
    }
    used = {name: layers for name, layers in used.items() if layers}
    layer_costs = count_layers(dict.fromkeys(used, model), forced)
    table: dict[str, dict[str, float]] = {}
    for name, layers in used.items():
        for layer in layers:
            table.setdefault(layer, {})[name] = layer_costs[name][layer]
    return table


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    machines = {machine.target.name: machine for machine in MACHINES}
    search = commands.add_parser("search")
    search.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(machines))
    every = [*list_kernels(levels=False), *list_kernels(levels=True)]
    search.add_argument(
        "--kernels", nargs="+", choices=every, default=(), help="search only these kernels"
    )
    judge = commands.add_parser("judge")
    judge.add_argument("target", choices=machines)
    judge.add_argument("networks", nargs="+")
    judge.add_argument("--form", choices=("fp32", "int8"), nargs="+", default=("fp32", "int8"))
    judge.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.command == "search":
        if unknown := sorted(set(options.targets) - machines.keys()):
            parser.error(
                f"unknown targets: {', '.join(unknown)}; the targets are {', '.join(machines)}"
            )
        write_costs([machines[name] for name in options.targets or machines], options.kernels)
    else:
        _print_choices(
            machines[options.target], options.networks, options.form, as_json=options.json
        )


def write_costs(machines: Sequence[Machine], only: Collection[str]) -> None:
    """Search cores, and write the costs of all cores after each search."""
    costs = dict(load_costs()) if OUT.exists() else {}
    for machine in machines:
        print(machine.target.name, flush=True)
        start = process_time() + measure_children_time()
        costs[machine.core] = search_core(machine, only)
        OUT.write_text(format_costs(costs), "utf-8")
        print(
            f"  {process_time() + measure_children_time() - start:.0f} s of CPU time",
            flush=True,
        )


def measure_children_time() -> float:
    """Return the CPU time of finished child processes in seconds."""
    process_times = os.times()
    return process_times.children_user + process_times.children_system


def _print_choices(
    machine: Machine, networks: Sequence[str], forms: Sequence[str], *, as_json: bool
) -> None:
    choices = []
    for network in networks:
        for form in forms:
            levels = form == "int8"
            model = kernel_samples.load_network(network, levels=levels)
            choice = evaluate_choice(machine, network, model, levels=levels)
            choices.append(asdict(choice))
            if not as_json:
                print(
                    f"{choice.network} {choice.form}: {choice.best} of {choice.layers} layers have "
f"the best kernel; the selection costs {choice.chosen / choice.least - 1:.2%} more than "
f"the best kernels, {choice.layer} {choice.worst:.0%} more", flush=True,
                )  # fmt: skip
    if as_json:
        print(json.dumps(choices, indent=2))


if __name__ == "__main__":
    main()
