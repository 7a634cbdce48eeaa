"""Each op at each precision of each target: an artifact, or refusals with a code."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tcc.backends import BACKENDS
from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import machine
from tcc.compiler import passes
from tcc.compiler.driver.capability import capability
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.op import Call
from tcc.compiler.ir.target import PackageSources
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Conv, GlobalAvgPool
from tcc.compiler.ops.activation import ScalarFunction
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import kept_values, minmax_ranges
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import Steps
from tcc.testing.op_cases import CASES, one_input, trained


@dataclass(frozen=True, slots=True)
class Softsign(ScalarFunction):
    """x / (1 + |x|): an op that no target has heard of."""

    word: ClassVar[str] = "softsign"
    onnx_operator: ClassVar[str] = "Softsign"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return softsign."""
        return (Call("softsign", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Softsign."""
        return (Call("Softsign", ("x0",)),)

    def float64(self, x):
        """Return it."""
        return np.asarray(x / (1.0 + np.abs(x)))


PLANS = {
    f"{target.name}-{precision.name}": Plan(Device(backend, target), precision, compiles=False)
    for backend in BACKENDS
    for target in backend.targets
    for precision in target.precisions
}


def novel() -> Model:
    """Return a network with that op between two others."""
    add = Steps(3, 8, 8)
    add("conv", Conv(4, (3, 3), padding=1))
    add("novel", Softsign())
    add("pool", GlobalAvgPool())
    graph = add.graph()
    return Model(graph, trained(graph))


def integers(model: Model, *, real_ends: bool) -> Model:
    """Return the integer program of a model by made-up scales."""
    ready = passes.run(model, passes.INT8)
    ranges = minmax_ranges(ready, dict.fromkeys(kept_values(ready.graph), (-1.0, 1.0)))
    return quantize(ready, Calibration(ranges, real_ends=real_ends))


def emit(model: Model, plan: Plan) -> None:
    """Write what a target is built as; of ARM, the kernels are chosen and not compiled."""
    device, precision = plan.device, plan.precision
    floats = passes.run(model, device.passes(precision)) if plan.from_floats else None
    program = integers(model, real_ends=precision.real_ends) if precision.integer else None
    if device.packager:
        assert floats
        own = program or integers(model, real_ends=precision.real_ends)
        tensor = np.zeros(floats.graph.inputs[0].type.shape, np.float32)
        sources = PackageSources(
            floats, own, lambda: iter([tensor]), (tensor,), "case", compiles=False
        )
        device.packager.package(device.target, sources, precision)
        return
    start = floats or program
    assert start
    if isinstance(device.backend, Arm):
        from tcc.backends.arm.schedule.program import program as scheduled

        scheduled(start.graph, start.weights, machine(device.target))
    elif device.name != "web":  # its network is ONNX Runtime's, beside files that are fetched
        device.emit(start, precision, lambda *_: None)


def answer(model: Model, plan: Plan) -> str:
    """Return whether a target builds a network or refuses it; anything else is an error."""
    try:
        refusals = list(capability(model.graph, plan).errors)
    except UserError as error:
        refusals = list(error.diagnostics)
    if refusals:
        assert all(each.code for each in refusals)
        return "refused"
    emit(model, plan)
    return "built"


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_an_op_that_no_target_knows(plan):
    assert answer(novel(), plan) in {"built", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_op(plan):
    answers = {name: answer(one_input(case), plan) for name, case in CASES.items()}
    assert "built" in answers.values()
