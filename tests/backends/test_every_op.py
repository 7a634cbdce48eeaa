"""Each op at each precision of each target: an artifact, or refusals with an error code."""

import numpy as np
import pytest

from tcc.backends import BACKENDS
from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import get_machine
from tcc.compiler import passes
from tcc.compiler.driver.support_check import check_capability
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import PackageSources
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import build_unknown_op
from tcc.testing.op_cases import CASES, build_one_input_model, sample_weights

PLANS = {
    f"{target.name}-{precision.name}": Plan(Device(backend, target), precision, compiles=False)
    for backend in BACKENDS
    for target in backend.targets
    for precision in target.precisions
}


def build_integer_program(model: Model, *, real_ends: bool) -> Model:
    """Return the integer program of a model with invented scales."""
    lowered_model = passes.run(model, passes.INT8)
    ranges = compute_minmax_ranges(
        lowered_model, dict.fromkeys(list_unfused_values(lowered_model.graph), (-1.0, 1.0))
    )
    return quantize(lowered_model, Calibration(ranges, float_io=real_ends))


def emit(model: Model, plan: Plan) -> None:
    """Write the files of a build plan. ARM kernels are selected but not compiled."""
    device, precision = plan.device, plan.precision
    floats = passes.run(model, device.passes(precision)) if plan.starts_from_float_model else None
    program = (
        build_integer_program(model, real_ends=precision.float_io) if precision.integer else None
    )
    if device.packager:
        assert floats
        integer_model = program or build_integer_program(model, real_ends=precision.float_io)
        tensor = np.zeros(floats.graph.inputs[0].type.shape, np.float32)
        sources = PackageSources(
            floats, integer_model, lambda: iter([tensor]), (tensor,), "case", compiles=False
        )
        device.packager.build_package(device.target, sources, precision)
        return
    start = floats or program
    assert start
    if isinstance(device.backend, Arm):
        from tcc.backends.arm.schedule.program import build_program as scheduled

        scheduled(start.graph, start.weights, get_machine(device.target))
    elif device.name != "web":  # its network is that of ONNX Runtime, with downloaded files
        device.emit(start, precision, lambda *_: None)


def try_build(model: Model, plan: Plan) -> str:
    """Return whether a target builds a network or refuses it. Anything else is an error."""
    try:
        refusals = list(check_capability(model.graph, plan).errors)
    except UserError as error:
        refusals = list(error.diagnostics)
    if refusals:
        assert all(diagnostic.code for diagnostic in refusals)
        return "refused"
    emit(model, plan)
    return "built"


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_an_op_unknown_to_every_target_is_refused(plan):
    assert try_build(Model(build_unknown_op(), sample_weights(build_unknown_op())), plan) in {
        "built",
        "refused",
    }


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_op_is_built_or_refused(plan):
    answers = {name: try_build(build_one_input_model(case), plan) for name, case in CASES.items()}
    assert "built" in answers.values()
