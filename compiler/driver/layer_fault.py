"""Where an artifact that does not give its goldens goes wrong: the first layer that differs."""

from typing import assert_never

from tcc.compiler.bundle import float_check, program_check
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.driver import build_plan
from tcc.compiler.driver.build_plan import Int8Programs
from tcc.compiler.ir.device import Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import Arithmetic
from tcc.compiler.ir.rewrite import for_inference
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool

Check = program_check.ProgramCheck | float_check.FloatCheck


def describe(bundle: Bundle, plan: Plan, model: Model, integers: Int8Programs | None) -> str:
    """Return a sentence that names the first layer that differs, or why none can be named.

    Args:
        bundle: What was built. Its artifact runs here, and does not give its goldens.
        plan: Its target and precision.
        model: The network in floats, as written.
        integers: The integer programs of the build, if it has some.
    """
    try:
        check = _check(bundle, plan, model, integers)
    except (UserError, MissingTool) as error:
        return f"its layers could not be compared: {str(error).splitlines()[0]}"
    if check is None or check.layers is None:
        return f"nothing here looks into the layers of {plan.device.name} at {plan.precision.name}"
    if check.wrong_layer:
        return f"the first layer that differs is `{check.wrong_layer.name}`"
    return (
        f"all {len(check.layers)} layers that it shows agree on the goldens' tensors:"
        " what differs is its preprocessing, or a layer that it does not show"
    )


def _check(bundle: Bundle, plan: Plan, model: Model, integers: Int8Programs | None) -> Check | None:
    """Return how the layers compare; None where the precision has no values to compare them by."""
    match plan.precision.arithmetic:
        case Arithmetic.INTEGER | Arithmetic.SIMULATED:
            program = build_plan.program(plan, integers)
            assert program
            return program_check.check(bundle, plan.device, program.program)
        case Arithmetic.FLOAT:
            network = Model(for_inference(model.graph), model.weights)
            # Rounded weights move every layer: what the goldens may be off by, a layer may be too.
            allowed = bundle.manifest.goldens.tolerance.relative
            return float_check.check(bundle, plan.device, network, allowed)
        case Arithmetic.FOREIGN:
            return None
        case _:
            assert_never(plan.precision.arithmetic)
