"""What targets can run of a network, before anything is trained."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tcc.compiler import passes
from tcc.compiler.data.weights import placeholders
from tcc.compiler.driver import build_warnings
from tcc.compiler.driver.pipeline import refused
from tcc.compiler.ir.device import Plan
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.target import Refusal, Remark
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import kept_values, minmax_ranges
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.support.value_views import ValueView, count


@dataclass(frozen=True, slots=True, repr=False)
class Capability(ValueView):
    """What a target says of a network at a precision: nodes it cannot run, and what to know."""

    plan: Plan
    refusals: tuple[Refusal, ...]
    remarks: tuple[Remark, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as plain data: every node, with its place in the text."""
        return {
            "target": self.plan.device.name,
            "precision": self.plan.precision.name,
            "refused": list(map(_plain, self.refusals)),
            "slow": [_plain(each) for each in self.remarks if each.slow],
            "doubtful": [_plain(each) for each in self.remarks if not each.slow],
        }

    def describe(self) -> str:
        """Return in a few words whether the target runs the network."""
        name = f"{self.plan.device.name} at {self.plan.precision.name}"
        if self.refusals:
            return f"{name} refuses {count(len(self.refusals), 'layer')}"
        warned = count(len({each.node.name for each in self.remarks}), "layer")
        return f"{name} accepts it{f', and warns of {warned}' if self.remarks else ''}"

    def _summary(self) -> Iterator[str]:
        yield f"Capability: {self.describe()}"
        yield from (f"{error.code}: {error.message}" for error in self.errors)

    @property
    def errors(self) -> Iterator[Diagnostic]:
        """Each node that the target cannot run."""
        return (refused(self.plan.device, each) for each in self.refusals)

    @property
    def warnings(self) -> Iterator[Diagnostic]:
        """Each rule that remarks are of, at the first of its nodes."""
        return build_warnings.warnings(self.plan.device, self.remarks)


def capability(graph: Graph, plan: Plan) -> Capability:
    """Return what a target can run of a network as written, whatever its weights.

    Raises:
        UserError: The target can do nothing with the network as a whole (E0607).
    """
    # Placeholders do: what a target can run depends on shapes and settings, and reading weights
    # takes longer than the whole look.
    first, *others = _graphs(Model(graph, placeholders(graph)), plan)
    found = list(_refusals(graph, first, plan))
    # What the floats refuse already needs no second word for the integers.
    told = {each.node.at for each in found}
    for other in others:
        found += (each for each in plan.device.refusals(other) if each.node.at not in told)
    return Capability(plan, tuple(found), tuple(plan.device.remarks(first)))


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
    model = Model(graph, placeholders(graph))
    problems: list[Diagnostic] = []
    warned: list[Diagnostic] = []
    for plan in plans:
        if plan.from_floats and plan.precision.calibrated:
            start = _floats(model, plan)
            refusals = tuple(_refusals(graph, start, plan))
            found = Capability(plan, refusals, tuple(plan.device.remarks(start)))
            problems += found.errors
            warned += found.warnings
    for warning in warned:
        warn(warning)
    if problems:
        raise UserError(tuple(problems))
    return frozenset(each.message for each in warned)


def _refusals(written: Graph, start: Graph, plan: Plan) -> Iterable[Refusal]:
    """Return the nodes that a target cannot run; of a network that does nothing, its last."""
    if plan.device.packager and written.nodes and not start.nodes:
        why = "nothing of the network is left to run: it gives its input back"
        return (Refusal(written.nodes[-1], why, "let it have a layer that computes"),)
    return plan.device.refusals(start)


def _graphs(model: Model, plan: Plan) -> Iterator[Graph]:
    """Yield what the target would be given: floats, integers of made-up scales, or both."""
    if plan.from_floats:
        yield _floats(model, plan)
    if plan.precision.integer:
        ready = passes.run(model, passes.INT8)
        # Any scales do: no refusal depends on them, and images to find some are not there yet.
        ranges = minmax_ranges(ready, dict.fromkeys(kept_values(ready.graph), (-1.0, 1.0)))
        yield quantize(ready, Calibration(ranges, real_ends=plan.precision.real_ends)).graph


def _floats(model: Model, plan: Plan) -> Graph:
    return passes.run(model, plan.device.passes(plan.precision)).graph


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
