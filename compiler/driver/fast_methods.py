"""Whether a target's faster methods, which round in more steps, keep a spec's accuracy."""

from dataclasses import replace
from math import inf

from tcc.compiler.bundle.manifest import BuildWarning
from tcc.compiler.driver import remarks
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.device import Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.target import Remark
from tcc.compiler.passes.validate import sample
from tcc.compiler.reference import float_program, output_comparison
from tcc.compiler.reference.accuracy_floor import AccuracyFloor

INPUTS = 4
"""Random inputs that both ways are compared over, from dark to bright."""


def kept(spec: Spec, plan: Plan, start: Model) -> tuple[Plan, tuple[BuildWarning, ...]]:
    """Return the plan that a target is built by, and what to say where methods are left out.

    Args:
        spec: The network; without bounds of its own nothing is compared.
        plan: The target and its precision.
        start: The model after the target's passes.
    """
    device, wanted = plan.device, spec.accuracy
    able = device.approximator
    plain = able.plain(plan.precision) if able else None
    if able is None or plain is None or wanted == Accuracy():
        return plan, ()
    layers = able.approximate_layers(device.target, start)
    if not layers:
        return plan, ()
    broken = _broken(wanted, plan, start)
    if not broken:
        return plan, ()
    why = f"the method that is faster here rounds in more steps: {'; '.join(broken)}"
    rule = f"it is built as {plain.name}, since the spec's `accuracy` would be broken"
    help = "a wider bound"
    found = [Remark(node, why, help, rule, slow=True) for node in layers]
    return replace(plan, precision=plain), remarks.recorded(device, found)


def _broken(wanted: Accuracy, plan: Plan, start: Model) -> tuple[str, ...]:
    """Return which bounds the faster methods do not keep, in words."""
    able = plan.device.approximator
    assert able is not None
    (source,) = start.graph.inputs
    tensors = [sample(source, seed, (seed + 1) / INPUTS) for seed in range(INPUTS)]
    rounded = [able.approximate_outputs(plan.device.target, start, each) for each in tensors]
    expected, found = (
        output_comparison.stacked_outputs(start, each)
        for each in (float_program.run(start, tensors), rounded)
    )
    # What the spec does not bound is bounded by nothing: defaults are for integers.
    floor = AccuracyFloor(
        wanted.min_cosine or 0.0,
        wanted.max_drop,
        wanted.min_correlation or 0.0,
        inf if wanted.max_error is None else wanted.max_error,
    )
    return floor.broken(output_comparison.qualities(start, expected, found))
