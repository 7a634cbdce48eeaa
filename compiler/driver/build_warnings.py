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
from tcc.compiler.reference.accuracy_floor import MIN_IMAGES, AccuracyFloor
from tcc.compiler.support.diagnostics import Diagnostic

MAX_NAMED_NODES = 5
"""Nodes that a warning names beside the one that it points at."""


def create_warnings(device: Device, remarks: Iterable[Remark]) -> Iterator[Diagnostic]:
    """Yield each rule that remarks are of, at the first of its nodes."""
    return (_create_warning(device, rule_remarks) for rule_remarks in _group_by_rule(remarks))


def record_warnings(device: Device, remarks: Iterable[Remark]) -> tuple[BuildWarning, ...]:
    """Return the same for a manifest, with all the nodes."""
    return tuple(_create_record(device, rule_remarks) for rule_remarks in _group_by_rule(remarks))


def warn_few_images(measured: Measured | None) -> tuple[BuildWarning, ...]:
    """Return what a manifest and the command line warn of where few images judged integers."""
    if measured is None or measured.images >= MIN_IMAGES:
        return ()
    count = f"{measured.images} different image{'' if measured.images == 1 else 's'}"
    message = (
        f"too few images say how near these integers are to the floats: fewer than {MIN_IMAGES}"
    )
    rule = f"an accuracy floor is judged by {MIN_IMAGES} different images or more"
    help = f"build with {MIN_IMAGES} images or more"
    return (BuildWarning("W0671", message, (), f"there are {count}", rule, help),)


def collect_warnings(plan: Plan, start: Graph, program: Graph | None) -> tuple[BuildWarning, ...]:
    """Return what a target remarks of what it is built from, for a manifest.

    Args:
        plan: The target and its precision.
        start: What its files are made from.
        program: The integer program, where there is one.
    """
    remarks = list(plan.device.remarks(start))
    if program and plan.starts_from_float_model and plan.precision.integer:
        remarks += plan.device.remarks(program)
    return record_warnings(plan.device, remarks)


def _group_by_rule(remarks: Iterable[Remark]) -> Iterable[list[Remark]]:
    remarks_by_rule: dict[str, dict[str, Remark]] = {}
    for each in remarks:
        # By name, since floats and integers of one network are both looked at and remark the same.
        remarks_by_rule.setdefault(each.rule, {}).setdefault(each.node.name, each)
    return (list(each.values()) for each in remarks_by_rule.values())


def _create_warning(device: Device, remarks: list[Remark]) -> Diagnostic:
    """Return the warning of one rule, at the first node that it is about."""
    first_remark, *other_remarks = remarks
    code, message = _describe_remark(device, first_remark)
    notes = (first_remark.rule, *_list_other_nodes([remark.node.name for remark in other_remarks]))
    return Diagnostic(
        code,
        message,
        first_remark.node.at,
        first_remark.reason,
        notes,
        first_remark.help,
        "warning",
    )


def _create_record(device: Device, remarks: list[Remark]) -> BuildWarning:
    first_remark = remarks[0]
    code, message = _describe_remark(device, first_remark)
    layers = tuple(remark.node.name for remark in remarks)
    return BuildWarning(
        code, message, layers, first_remark.reason, first_remark.rule, first_remark.help
    )


def _describe_remark(device: Device, remark: Remark) -> tuple[str, str]:
    name = f"`{remark.node.name}` ({remark.node.op.keyword})"
    if remark.slow:
        return "W0662", f"{device.name} runs {name} slowly"
    return "W0661", f"{device.name} may not run {name}"


def _list_other_nodes(names: list[str]) -> tuple[str, ...]:
    """Return a note on the other nodes that a rule is broken by, some of them by name."""
    if not names:
        return ()
    suffix = ", ..." if len(names) > MAX_NAMED_NODES else ""
    return (f"so it is with {len(names)} more: {', '.join(names[:MAX_NAMED_NODES])}{suffix}",)


INPUT_COUNT = 4
"""Random inputs that both ways are compared over, from dark to bright."""


def choose_methods(spec: Spec, plan: Plan, start: Model) -> tuple[Plan, tuple[BuildWarning, ...]]:
    """Return the plan that a target is built by, and what to say where methods are left out.

    Args:
        spec: The network; without bounds of its own nothing is compared.
        plan: The target and its precision.
        start: The model after the target's passes.
    """
    device, accuracy = plan.device, spec.accuracy
    approximator = device.approximator
    exact_precision = approximator.get_exact_precision(plan.precision) if approximator else None
    if approximator is None or exact_precision is None or accuracy == Accuracy():
        return plan, ()
    layers = approximator.find_approximate_layers(device.target, start)
    if not layers:
        return plan, ()
    broken = _find_broken(accuracy, plan, start)
    if not broken:
        return plan, ()
    reason = f"the method that is faster here rounds in more steps: {'; '.join(broken)}"
    rule = f"it is built as {exact_precision.name}, since the spec's `accuracy` would be broken"
    help = "a wider bound"
    remarks = [Remark(node, reason, help, rule, slow=True) for node in layers]
    return replace(plan, precision=exact_precision), record_warnings(device, remarks)


def _find_broken(accuracy: Accuracy, plan: Plan, start: Model) -> tuple[str, ...]:
    """Return which bounds the faster methods do not keep, in words."""
    approximator = plan.device.approximator
    assert approximator is not None
    (source,) = start.graph.inputs
    tensors = [sample(source, seed, (seed + 1) / INPUT_COUNT) for seed in range(INPUT_COUNT)]
    rounded = [
        approximator.compute_approximate_outputs(plan.device.target, start, each)
        for each in tensors
    ]
    expected, actual = (
        output_comparison.stack_outputs(start, each)
        for each in (float_program.run(start, tensors), rounded)
    )
    # What the spec does not bound is bounded by nothing: defaults are for integers.
    floor = AccuracyFloor(
        accuracy.min_cosine or 0.0,
        accuracy.max_drop,
        accuracy.min_correlation or 0.0,
        inf if accuracy.max_error is None else accuracy.max_error,
    )
    return floor.find_violations(output_comparison.compute_qualities(start, expected, actual))
