"""What targets remark of a network, rule by rule: as warnings, and as a manifest keeps them."""

from collections.abc import Iterable, Iterator

from tcc.compiler.bundle.manifest import BuildWarning, Measured
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.target import Remark
from tcc.compiler.reference.accuracy_floor import ENOUGH
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
