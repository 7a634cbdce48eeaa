"""What targets can run of a network, before anything is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

from tcc.compiler import passes
from tcc.compiler.data.weights import placeholders
from tcc.compiler.driver.pipeline import refused
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import kept_values, minmax_ranges
from tcc.compiler.support.diagnostics import Diagnostic

SHOWN = 5
"""Nodes that a warning names beside the one that it points at."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a target says of a network at a precision: nodes it cannot run, and what to know."""

    device: Device
    precision: Precision
    refusals: tuple[Refusal, ...]
    remarks: tuple[Remark, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as plain data: every node, with its place in the text."""
        return {
            "target": self.device.name,
            "precision": self.precision.name,
            "refused": list(map(_plain, self.refusals)),
            "slow": [_plain(each) for each in self.remarks if each.slow],
            "doubtful": [_plain(each) for each in self.remarks if not each.slow],
        }

    @property
    def errors(self) -> Iterator[Diagnostic]:
        """Each node that the target cannot run."""
        return (refused(self.device, each) for each in self.refusals)

    @property
    def warnings(self) -> Iterator[Diagnostic]:
        """Each rule that remarks are of, at the first of its nodes."""
        by_rule: dict[str, list[Remark]] = {}
        for each in self.remarks:
            by_rule.setdefault(each.rule, []).append(each)
        return (_warning(self.device, found) for found in by_rule.values())


def capability(graph: Graph, device: Device, precision: Precision) -> Capability:
    """Return what a target can run of a network as written, whatever its weights.

    Raises:
        UserError: The target can do nothing with the network as a whole.
    """
    start = _start(Model(graph, placeholders(graph)), device, precision)
    found = tuple(device.refusals(start)), tuple(device.remarks(start))
    return Capability(device, precision, *found)


def _start(model: Model, device: Device, precision: Precision) -> Graph:
    """Return what the target would emit: after its passes, or as integers of made-up scales."""
    if not precision.integer:
        return passes.run(model, device.passes(precision)).graph
    ready = passes.run(model, passes.INT8)
    limits = dict.fromkeys(kept_values(ready.graph), (-1.0, 1.0))
    ranges = minmax_ranges(ready, limits)
    return quantize(ready, Calibration(ranges, real_ends=precision.real_ends)).graph


def _plain(said: Refusal | Remark) -> dict[str, object]:
    at = said.node.at
    return {
        "layer": said.node.name,
        "op": said.node.op.word,
        "file": at.file,
        "line": at.line,
        "column": at.column,
        "found": said.why,
        "rule": said.rule,
        "help": said.help,
    }


def _warning(device: Device, found: list[Remark]) -> Diagnostic:
    """Return the warning of one rule, at the first node that it is about."""
    first, *others = found
    name = f"`{first.node.name}` ({first.node.op.word})"
    slowly = f"{device.name} runs {name} slowly"
    perhaps = f"{device.name} may not run {name}"
    code, message = ("W0662", slowly) if first.slow else ("W0661", perhaps)
    notes = (first.rule, *_beside([each.node.name for each in others]))
    return Diagnostic(code, message, first.node.at, first.why, notes, first.help, "warning")


def _beside(names: list[str]) -> tuple[str, ...]:
    """Return a note on the other nodes that a rule is broken by, some of them by name."""
    if not names:
        return ()
    most = ", ..." if len(names) > SHOWN else ""
    return (f"so it is with {len(names)} more: {', '.join(names[:SHOWN])}{most}",)
