"""Warnings of a build: remarks of targets, too few images, and slower but exact methods."""

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
"""Most nodes that a warning names in addition to its first one."""


def create_warnings(device: Device, remarks: Iterable[Remark]) -> Iterator[Diagnostic]:
    """Yield one warning for each rule of the remarks, located at its first node."""
    return (_create_warning(device, rule_remarks) for rule_remarks in _group_by_rule(remarks))


def record_warnings(device: Device, remarks: Iterable[Remark]) -> tuple[BuildWarning, ...]:
    """Return the same warnings for a manifest, with all their nodes."""
    return tuple(_create_record(device, rule_remarks) for rule_remarks in _group_by_rule(remarks))


def warn_few_images(measured: Measured | None) -> tuple[BuildWarning, ...]:
    """Return the warning that too few images measured the int8 model, if so."""
    if measured is None or measured.images >= MIN_IMAGES:
        return ()
    count = f"{measured.images} different image{'' if measured.images == 1 else 's'}"
    message = (
        f"the accuracy of the int8 model was measured on fewer than {MIN_IMAGES} different images"
    )
    rule = f"the accuracy floor needs at least {MIN_IMAGES} different images"
    help = f"build with at least {MIN_IMAGES} different images"
    return (BuildWarning("W0671", message, (), f"only {count}", rule, help),)


def collect_warnings(plan: Plan, start: Graph, program: Graph | None) -> tuple[BuildWarning, ...]:
    """Return a target's remarks about its source graphs, for a manifest.

    Args:
        plan: The target and its precision.
        start: The graph that its files are created from.
        program: The integer program, if there is one.
    """
    remarks = list(plan.device.remarks(start))
    if program and plan.starts_from_float_model and plan.precision.integer:
        remarks += plan.device.remarks(program)
    return record_warnings(plan.device, remarks)


def _group_by_rule(remarks: Iterable[Remark]) -> Iterable[list[Remark]]:
    remarks_by_rule: dict[str, dict[str, Remark]] = {}
    for remark in remarks:
        # By name, because the float and the integer graph give the same remarks.
        remarks_by_rule.setdefault(remark.rule, {}).setdefault(remark.node.name, remark)
    return (list(group.values()) for group in remarks_by_rule.values())


def _create_warning(device: Device, remarks: list[Remark]) -> Diagnostic:
    """Return the warning about one rule, at its first node."""
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
    return "W0661", f"{device.name} may be unable to run {name}"


def _list_other_nodes(names: list[str]) -> tuple[str, ...]:
    """Return a note on the other nodes that violate a rule, with some of their names."""
    if not names:
        return ()
    suffix = ", ..." if len(names) > MAX_NAMED_NODES else ""
    return (f"{len(names)} more layers: {', '.join(names[:MAX_NAMED_NODES])}{suffix}",)


INPUT_COUNT = 4
"""Random inputs for the comparison of two methods, from dark to bright."""


def choose_methods(spec: Spec, plan: Plan, start: Model) -> tuple[Plan, tuple[BuildWarning, ...]]:
    """Return the plan for a target, and warnings if it avoids faster but less exact methods.

    Args:
        spec: The network; without accuracy bounds nothing is compared.
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
    reason = f"the faster method rounds in more steps and breaks a bound: {'; '.join(broken)}"
    rule = f"built as {exact_precision.name} instead, to keep the spec's `accuracy` bounds"
    help = "set a wider bound in `accuracy`"
    remarks = [Remark(node, reason, help, rule, slow=True) for node in layers]
    return replace(plan, precision=exact_precision), record_warnings(device, remarks)


def _find_broken(accuracy: Accuracy, plan: Plan, start: Model) -> tuple[str, ...]:
    """Return sentences about the bounds that the faster methods violate."""
    approximator = plan.device.approximator
    assert approximator is not None
    (network_input,) = start.graph.inputs
    tensors = [sample(network_input, seed, (seed + 1) / INPUT_COUNT) for seed in range(INPUT_COUNT)]
    rounded = [
        approximator.compute_approximate_outputs(plan.device.target, start, tensor)
        for tensor in tensors
    ]
    expected, actual = (
        output_comparison.stack_outputs(start, outputs)
        for outputs in (float_program.run(start, tensors), rounded)
    )
    # Bounds that the spec does not set are off: the defaults are for int8 models.
    floor = AccuracyFloor(
        accuracy.min_cosine or 0.0,
        accuracy.max_drop,
        accuracy.min_correlation or 0.0,
        inf if accuracy.max_error is None else accuracy.max_error,
    )
    return floor.find_violations(output_comparison.compute_qualities(start, expected, actual))
