"""Float convolution kernels of a machine against the reference, for a Cortex-A7 under qemu."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from arm_calls import CallProgram, call_program

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Conv, Op
from tcc.compiler.reference import float_program
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import Array, sample_weights

A7 = next(m for m in MACHINES if m.target.name == "arm-a7")
A53 = next(m for m in MACHINES if m.target.name == "arm-a53")
BOTH = (A7, pytest.param(A53, marks=pytest.mark.slow))
"""A processor of each word length. All 64-bit ones have the same float kernels."""


def make_conv_model(op: Conv, shape: tuple[int, int, int], consumer: Op) -> Model:
    """Return a convolution on a map of some shape, with a consumer."""
    add = NetBuilder(*shape)
    add("op", op)
    add("after", consumer)
    graph = add.build(Output("y", "after"))
    return Model(graph, sample_weights(graph))


def make_input(model: Model) -> Array:
    """Return a random input of a model."""
    rng = np.random.default_rng(len(model.graph.nodes))
    return rng.standard_normal(model.graph.inputs[0].type.shape, np.float32)


@dataclass(frozen=True)
class FloatKernels:
    """Models, their programs and their compiled kernels."""

    models: Mapping[str, Model]
    calls: CallProgram
    plans: Mapping[str, Program]

    def results(self, name: str, x: Array) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """Return the output of each step on correct inputs, and the expected output."""
        model = self.models[name]
        every = tuple(Output(node.name, node.name) for node in model.graph.nodes)
        (expected,) = float_program.run(
            replace(model, graph=replace(model.graph, outputs=every)), [x]
        )
        actual = self.calls.results(self.plans[name], {model.graph.inputs[0].name: x, **expected})
        return actual, expected

    def assert_all_agree(self, micro_names: set[str], allowed: float) -> None:
        """Compare all models with the reference and check the names of their micro-kernels."""
        kernels = [kernel for plan in self.plans.values() for kernel in plan.kernels]
        assert {micro.name for kernel in kernels for micro in kernel.micro_kernels} == micro_names
        for name in self.models:
            self.assert_agrees(name, allowed)

    def assert_agrees(self, name: str, allowed: float) -> None:
        """Compare each step with the reference. `allowed` is relative to the largest value."""
        actual, expected = self.results(name, make_input(self.models[name]))
        assert actual
        for step, output in actual.items():
            bound = allowed * float(np.abs(expected[step]).max())
            np.testing.assert_allclose(output, expected[step], rtol=0, atol=bound)


def force_kernels(machine: Machine, *names: str) -> Machine:
    """Return a machine that uses the kernels of these names for all supported ops."""
    costs = machine.costs
    for name in names:
        costs = costs.clear_kernel_cost(name)
    return replace(machine, cost_override=costs)


def compile_kernels(
    models: Mapping[str, Model], folder: Path, machine: Machine = A7, checked: Sequence[str] = ()
) -> FloatKernels:
    """Return the kernels of models with loops in three parts. `checked`: see `call_program`."""
    if not machine.native and shutil.which(machine.qemu) is None:
        pytest.skip(f"needs {machine.qemu}: apt-get install qemu-user")
    calls, plans = call_program(list(models.values()), machine, folder, 3, checked)
    return FloatKernels(models, calls, dict(zip(models, plans, strict=True)))
