"""Measure what convolutions cost on a core with selected kernels: counted or timed."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.compile_model import emit
from tcc.backends.arm.kernels.base import Kernel, KernelCall
from tcc.backends.arm.kernels.conv import DirectConv
from tcc.backends.arm.kernels.micro import MicroKernelCaller
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro.core_costs import AMOUNTS, CoreCosts, get_kind
from tcc.backends.arm.schedule.program import build_program
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.measurement import RunCost, Workload
from tcc.compiler.ir.types import Pair

TILES: tuple[Pair, ...] = ((4, 8), (2, 16))
"""The tiles of plain loops to measure, as filters by pixels.

8x8 tiles are not measured. They save up to 6 % if their sums stay in registers, but cost up to 17
times as much in other shapes.
"""
MICRO = {
    False: ("winograd", "float_matrix", "float_depthwise"),
    True: ("level_winograd", "matrix", "channel_matrix", "vector", "depthwise"),
}
"""The convolution kernels besides plain loops, by whether values are quantized."""
RUNS, ROUNDS = 20, 5
"""A time is the lower quartile of RUNS runs, in the best of ROUNDS rounds."""
Counts = Mapping[str, float]


def list_kernels(*, levels: bool) -> tuple[str, ...]:
    """Return the names of the kernels; plain loops have one for each tile."""
    loops = "level_loops" if levels else "loops"
    return (*MICRO[levels], *(f"{loops}_{rows}x{pixels}" for rows, pixels in TILES))


def get_cost_unit(machine: Machine) -> str:
    """Return the unit of the costs."""
    if machine.native:
        return "microseconds"
    return "cycles" if machine.has_cycle_model else "instructions"


def make_uniform_machine(machine: Machine, tile: Pair = TILES[0]) -> Machine:
    """Return a machine without cost data: all kernels cost the same."""
    kernel_names = (*list_kernels(levels=False), *list_kernels(levels=True))
    ones = {name: dict.fromkeys(AMOUNTS[get_kind(name)], 1.0) for name in kernel_names}
    return replace(machine, cost_override=CoreCosts(get_cost_unit(machine), tile, ones))


def select_kernel(machine: Machine, name: str) -> Machine:
    """Return a machine that uses a kernel for every layer that it supports."""
    return replace(machine, cost_override=machine.costs.clear_kernel_cost(name))


def map_kernels(model: Model, machine: Machine) -> Mapping[str, Kernel]:
    """Return the kernel of each convolution and linear layer, by the name of its output."""
    steps = build_program(model.graph, model.weights, machine).steps
    calls = (step for step in steps if isinstance(step, KernelCall))
    return {
        c.output: c.kernel for c in calls if isinstance(c.kernel, DirectConv | MicroKernelCaller)
    }


def count_layers(
    models: Mapping[str, Model], machines: Mapping[str, Machine]
) -> Mapping[str, Counts]:
    """Return the cost of each layer of each model, on the machine with the model's name.

    Timed models are measured in interleaved rounds, so that other load on the machine affects all
    models equally. A layer's cost is that of its best round.
    """
    costs_by_model: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, model in models.items():
            _build_library(model, machines[name], Path(temporary, name))
        timed = any(machine.native for machine in machines.values())
        for _ in range(ROUNDS if timed else 1):
            for name, model in models.items():
                best = costs_by_model.setdefault(name, {})
                for layer, cost in _measure_layers(model, machines[name], Path(temporary, name)):
                    best[layer] = min(cost, best.get(layer, cost))
    return costs_by_model


def _build_library(model: Model, machine: Machine, folder: Path) -> None:
    for name, content in emit(machine, model).files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)


def _measure_layers(model: Model, machine: Machine, folder: Path) -> Iterator[tuple[str, float]]:
    (source,) = model.graph.inputs
    workload = Workload(None, np.zeros(source.type.shape, np.float32), RUNS)
    for layer in Arm().measure(machine.target, folder, source, workload).layers:
        yield layer.name, _get_cost(layer.cost)


def _get_cost(cost: RunCost) -> float:
    return 1000 * cost.times.low if cost.times else cost.cycles or cost.instructions or 0
