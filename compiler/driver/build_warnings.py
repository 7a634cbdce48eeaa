"""What a build warns of: remarks of targets, few images, and methods that are slower but exact."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

from tcc.compiler.bundle.manifest import BuildWarning, Measured
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.target import Remark
from tcc.compiler.passes.validate import sample
from tcc.compiler.reference import float_program, output_comparison
from tcc.compiler.reference.accuracy_floor import ENOUGH, AccuracyFloor
from tcc.compiler.support.diagnostics import Diagnostic

SHOWN = 5
"""Nodes that a warning names beside the one that it points at."""


def warnings(device: Device, remarks: Iterable[Remark]) -> Iterator[Diagnostic]:
    """Yield each rule that remarks are of, at the first of its nodes."""
    return (_warning(device, found) for found in _by_rule(remarks))


def recorded(device: Device, remarks: Iterable[Remark]) -> tuple[BuildWarning, ...]:
    """Return the same for a manifest, with all the nodes."""
    return tuple(_record(device, found) for found in _by_rule(remarks))


def warn_few_images(measured: Measured | None) -> tuple[BuildWarning, ...]:
    """Return what a manifest and the command line warn of where few images judged integers."""
    if measured is None or measured.images >= ENOUGH:
        return ()
    count = f"{measured.images} different image{'' if measured.images == 1 else 's'}"
    message = f"too few images say how near these integers are to the floats: fewer than {ENOUGH}"
    rule = f"an accuracy floor is judged by {ENOUGH} different images or more"
    help = f"build with {ENOUGH} images or more"
    return (BuildWarning("W0671", message, (), f"there are {count}", rule, help),)


def of_plan(plan: Plan, start: Graph, program: Graph | None) -> tuple[BuildWarning, ...]:
    """Return what a target remarks of what it is built from, for a manifest.

    Args:
        plan: The target and its precision.
        start: What its files are made from.
        program: The integer program, where there is one.
    """
    found = list(plan.device.remarks(start))
    if program and plan.from_floats and plan.precision.integer:
        found += plan.device.remarks(program)
    return recorded(plan.device, found)


def _by_rule(remarks: Iterable[Remark]) -> Iterable[list[Remark]]:
    found: dict[str, dict[str, Remark]] = {}
    for each in remarks:
        # By name, since floats and integers of one network are both looked at and remark the same.
        found.setdefault(each.rule, {}).setdefault(each.node.name, each)
    return (list(each.values()) for each in found.values())


def _warning(device: Device, found: list[Remark]) -> Diagnostic:
    """Return the warning of one rule, at the first node that it is about."""
    first, *others = found
    code, message = _said(device, first)
    notes = (first.rule, *_beside([each.node.name for each in others]))
    return Diagnostic(code, message, first.node.at, first.why, notes, first.help, "warning")


def _record(device: Device, found: list[Remark]) -> BuildWarning:
    first = found[0]
    code, message = _said(device, first)
    layers = tuple(each.node.name for each in found)
    return BuildWarning(code, message, layers, first.why, first.rule, first.help)


def _said(device: Device, first: Remark) -> tuple[str, str]:
    name = f"`{first.node.name}` ({first.node.op.word})"
    if first.slow:
        return "W0662", f"{device.name} runs {name} slowly"
    return "W0661", f"{device.name} may not run {name}"


def _beside(names: list[str]) -> tuple[str, ...]:
    """Return a note on the other nodes that a rule is broken by, some of them by name."""
    if not names:
        return ()
    most = ", ..." if len(names) > SHOWN else ""
    return (f"so it is with {len(names)} more: {', '.join(names[:SHOWN])}{most}",)


INPUTS = 4
"""Random inputs that both ways are compared over, from dark to bright."""


def choose_methods(spec: Spec, plan: Plan, start: Model) -> tuple[Plan, tuple[BuildWarning, ...]]:
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
    broken = _find_broken(wanted, plan, start)
    if not broken:
        return plan, ()
    why = f"the method that is faster here rounds in more steps: {'; '.join(broken)}"
    rule = f"it is built as {plain.name}, since the spec's `accuracy` would be broken"
    help = "a wider bound"
    found = [Remark(node, why, help, rule, slow=True) for node in layers]
    return replace(plan, precision=plain), recorded(device, found)


def _find_broken(wanted: Accuracy, plan: Plan, start: Model) -> tuple[str, ...]:
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
