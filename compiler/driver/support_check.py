"""Check which layers of a network targets can run, before training."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tcc.compiler import passes
from tcc.compiler.data.weights import make_placeholders
from tcc.compiler.driver import build_warnings
from tcc.compiler.driver.pipeline import describe_refusal
from tcc.compiler.ir.device import Plan
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.support.value_views import ValueView, count


@dataclass(frozen=True, slots=True, repr=False)
class Capability(ValueView):
    """Support of a network by a target at a precision: nodes it cannot run, and remarks."""

    plan: Plan
    refusals: tuple[Refusal, ...]
    remarks: tuple[Remark, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain data: every node, with its source location."""
        return {
            "target": self.plan.device.name,
            "precision": self.plan.precision.name,
            "refused": list(map(_to_json, self.refusals)),
            "slow": [_to_json(remark) for remark in self.remarks if remark.slow],
            "doubtful": [_to_json(remark) for remark in self.remarks if not remark.slow],
        }

    def describe(self) -> str:
        """Return in a few words whether the target runs the network."""
        name = f"{self.plan.device.name} at {self.plan.precision.name}"
        if self.refusals:
            return f"{name} refuses {count(len(self.refusals), 'layer')}"
        warned = count(len({remark.node.name for remark in self.remarks}), "layer")
        return f"{name} accepts it{f', with warnings for {warned}' if self.remarks else ''}"

    def _summarize(self) -> Iterator[str]:
        yield f"Capability: {self.describe()}"
        yield from (f"{error.code}: {error.message}" for error in self.errors)

    @property
    def errors(self) -> Iterator[Diagnostic]:
        """Each node that the target cannot run."""
        return (describe_refusal(self.plan.device, refusal) for refusal in self.refusals)

    @property
    def warnings(self) -> Iterator[Diagnostic]:
        """One warning for each rule of the remarks, at its first node."""
        return build_warnings.create_warnings(self.plan.device, self.remarks)


def check_capability(graph: Graph, plan: Plan) -> Capability:
    """Return a target's support of a network as written, whatever its weights.

    Raises:
        UserError: The target cannot use the network at all (E0607).
    """
    # Placeholder weights are enough: support depends on shapes and settings, and reading weights
    # takes longer than the check.
    first_graph, *other_graphs = _build_graphs(Model(graph, make_placeholders(graph)), plan)
    refusals = list(_find_refusals(graph, first_graph, plan))
    # A node that is refused in the float graph is not reported again for the integer graph.
    refused_locations = {refusal.node.at for refusal in refusals}
    for other_graph in other_graphs:
        refusals += (
            refusal
            for refusal in plan.device.refusals(other_graph)
            if refusal.node.at not in refused_locations
        )
    return Capability(plan, tuple(refusals), tuple(plan.device.remarks(first_graph)))


def require(
    graph: Graph, plans: Iterable[Plan], warn: Callable[[Diagnostic], None]
) -> frozenset[str]:
    """Refuse a network that a vendor toolchain would refuse, before it is calibrated.

    This checks the float model that the tool gets. `build` checks again with weights and integers,
    because the effect of `--passes` and `--mixed` is not known before.

    Args:
        graph: The network as written.
        plans: The targets, each with its precision.
        warn: Receives warnings about layers that may run badly.

    Returns:
        The messages of the warnings.

    Raises:
        UserError: E0607 for each node and target.
    """
    model = Model(graph, make_placeholders(graph))
    problems: list[Diagnostic] = []
    warned: list[Diagnostic] = []
    for plan in plans:
        if plan.starts_from_float_model and plan.precision.calibrated:
            start = _lower_floats(model, plan)
            refusals = tuple(_find_refusals(graph, start, plan))
            support = Capability(plan, refusals, tuple(plan.device.remarks(start)))
            problems += support.errors
            warned += support.warnings
    for warning in warned:
        warn(warning)
    if problems:
        raise UserError(tuple(problems))
    return frozenset(diagnostic.message for diagnostic in warned)


def _find_refusals(source_graph: Graph, start: Graph, plan: Plan) -> Iterable[Refusal]:
    """Return the nodes that a target cannot run; for a network that computes nothing, its last."""
    if plan.device.packager and source_graph.nodes and not start.nodes:
        reason = "the network has no layer to run: its output is its input"
        return (Refusal(source_graph.nodes[-1], reason, "add a layer that computes something"),)
    return plan.device.refusals(start)


def _build_graphs(model: Model, plan: Plan) -> Iterator[Graph]:
    """Yield the graphs for the target: float, integer with placeholder scales, or both."""
    if plan.starts_from_float_model:
        yield _lower_floats(model, plan)
    if plan.precision.integer:
        lowered_model = passes.run(model, passes.INT8)
        # Any scales will do: support does not depend on them, and there are no images yet.
        ranges = compute_minmax_ranges(
            lowered_model, dict.fromkeys(list_unfused_values(lowered_model.graph), (-1.0, 1.0))
        )
        yield quantize(lowered_model, Calibration(ranges, float_io=plan.precision.float_io)).graph


def _lower_floats(model: Model, plan: Plan) -> Graph:
    return passes.run(model, plan.device.passes(plan.precision)).graph


def _to_json(finding: Refusal | Remark) -> dict[str, object]:
    at = finding.node.at
    return {
        "layer": finding.node.name,
        "op": finding.node.op.keyword,
        "file": at.file,
        "line": at.line,
        "column": at.column,
        "found": finding.reason,
        "rule": finding.rule,
        "help": finding.help,
    }
