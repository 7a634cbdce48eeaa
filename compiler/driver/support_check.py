"""What targets can run of a network, before anything is trained."""

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
    """What a target says of a network at a precision: nodes it cannot run, and what to know."""

    plan: Plan
    refusals: tuple[Refusal, ...]
    remarks: tuple[Remark, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as plain data: every node, with its place in the text."""
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
        return f"{name} accepts it{f', and warns of {warned}' if self.remarks else ''}"

    def _summarize(self) -> Iterator[str]:
        yield f"Capability: {self.describe()}"
        yield from (f"{error.code}: {error.message}" for error in self.errors)

    @property
    def errors(self) -> Iterator[Diagnostic]:
        """Each node that the target cannot run."""
        return (describe_refusal(self.plan.device, refusal) for refusal in self.refusals)

    @property
    def warnings(self) -> Iterator[Diagnostic]:
        """Each rule that remarks are of, at the first of its nodes."""
        return build_warnings.create_warnings(self.plan.device, self.remarks)


def check_capability(graph: Graph, plan: Plan) -> Capability:
    """Return what a target can run of a network as written, whatever its weights.

    Raises:
        UserError: The target can do nothing with the network as a whole (E0607).
    """
    # Placeholders do: what a target can run depends on shapes and settings, and reading weights
    # takes longer than the whole look.
    first_graph, *other_graphs = _build_graphs(Model(graph, make_placeholders(graph)), plan)
    refusals = list(_find_refusals(graph, first_graph, plan))
    # What the floats refuse already needs no second word for the integers.
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
    """Refuse a network that makers' tools would, before it is calibrated for them.

    What is looked at is the floats that they are given. `build` looks again, once there are
    weights and integers: what passes and `--mixed` make of those is not known before.

    Args:
        graph: The network as written.
        plans: What it is built for.
        warn: Told of what may run badly.

    Returns:
        The messages of what it warned of.

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
    """Return the nodes that a target cannot run; of a network that does nothing, its last."""
    if plan.device.packager and source_graph.nodes and not start.nodes:
        reason = "nothing of the network is left to run: it gives its input back"
        return (Refusal(source_graph.nodes[-1], reason, "let it have a layer that computes"),)
    return plan.device.refusals(start)


def _build_graphs(model: Model, plan: Plan) -> Iterator[Graph]:
    """Yield what the target would be given: floats, integers of made-up scales, or both."""
    if plan.starts_from_float_model:
        yield _lower_floats(model, plan)
    if plan.precision.integer:
        lowered_model = passes.run(model, passes.INT8)
        # Any scales do: no refusal depends on them, and images to find some are not there yet.
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
