"""Write a graph as the text of a spec: steps, branches, repeats, and their canonical form.

Paths with a common start and end become the branches of a join. If branches share nodes, their
nodes are written in sequence and joined by name. Equal runs of steps become a repeat.
"""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.yaml import MAX_YAML_BYTES
from tcc.compiler.ir.argument_declarations import Kind, list_parameters
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import ACTIVATIONS, JOINS, BatchNorm, Conv, DepthwiseConv, Linear, Op, Slice
from tcc.compiler.ops.pool import Pool


@dataclass(frozen=True, slots=True)
class OpStep:
    """One use of an op.

    A join has branches. Each is the name of an earlier value, or steps that start from the current
    value. Other steps read the current value, or `source` if it is set.
    """

    node: Node
    branches: "tuple[str | tuple[SpecStep, ...], ...]" = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class RepeatStep:
    """Equal consecutive runs of steps, one per iteration."""

    iterations: "tuple[tuple[SpecStep, ...], ...]"


SpecStep = OpStep | RepeatStep


def iterate_nodes(steps: tuple[SpecStep, ...]) -> Iterator[Node]:
    """Yield the nodes in the order in which the steps compute them."""
    for step in steps:
        match step:
            case RepeatStep(iterations):
                for iteration in iterations:
                    yield from iterate_nodes(iteration)
            case OpStep(node, branches):
                for branch in branches:
                    if not isinstance(branch, str):
                        yield from iterate_nodes(branch)
                yield node


Arguments = dict[str, Any]


def describe_op(op: Op, *inputs: TensorType) -> tuple[str, Arguments]:
    """Return the keyword and arguments of an op for inputs of given types."""
    canonical_op = _canonicalize(op, *inputs)
    arguments: Arguments = {}
    for parameter in list_parameters(type(canonical_op)):
        argument = getattr(canonical_op, parameter.name)
        if parameter.kind in (Kind.PAIR, Kind.PADDING):
            argument, default = _simplify_sizes(argument), _simplify_sizes(parameter.default)
        else:
            default = parameter.default
        if argument != default:
            arguments[parameter.name] = argument
    return canonical_op.keyword, arguments


def _canonicalize(op: Op, *inputs: TensorType) -> Op:
    """Return an op in the form with the fewest arguments."""
    match op:
        case Conv(groups=groups) if groups > 1 and groups == inputs[0].shape[0]:
            # As many groups as channels: specs have a keyword for this.
            return DepthwiseConv(
                op.kernel, op.stride, op.padding, op.dilation, op.bias, op.filters // groups
            )
        case Pool() if op.stride == op.kernel:
            # Adjacent windows are the default of a pool without a stride.
            return replace(op, stride=None)
        case Slice(stop=stop) if stop == inputs[0].shape[0]:
            return replace(op, stop=None)
    return op


def _simplify_sizes(value: Any) -> Any:
    """Return sizes in the shortest form: 1 for (1, 1) and (1, 1, 1, 1)."""
    match value:
        case (int(a), *rest) if all(n == a for n in rest):
            return a
        case (a, b, c, d) if (a, b) == (c, d):
            return [a, b]
        case tuple():
            return list(value)
    return value


MAX_BRANCH_DEPTH = 12
"""Maximum nesting of branches; deeper ones are written in sequence."""


def build_steps(graph: Graph) -> tuple[tuple[SpecStep, ...], frozenset[str]]:
    """Return the steps of a graph, and the values that are read by name."""
    structure = _GraphStructure(graph)
    output_values = list(dict.fromkeys(output.value for output in graph.outputs))
    input_name = graph.inputs[0].name
    # An output that depends on all others ends the chain; the others are read by name.
    final_value = next(
        (
            v
            for v in output_values
            if all(structure.find_common_dominator([v, w]) == w for w in output_values)
        ),
        None,
    )
    if final_value is not None:
        steps = structure.build_sequence(input_name, final_value)
        named_outputs = set(output_values) - {final_value}
    else:
        dominator = structure.find_common_dominator(output_values)
        steps = [
            *structure.build_sequence(input_name, dominator),
            *structure.build_linear(dominator, output_values),
        ]
        named_outputs = set(output_values)
    return tuple(steps), frozenset(structure.named_values | named_outputs)


class _GraphStructure:
    """The nodes by name, and each value's dominator: the last value on all its paths."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: Mapping[str, Node] = {node.name: node for node in graph.nodes}
        self.named_values: set[str] = set()
        self.dominators: dict[str, str] = {}
        self.depth = {graph.inputs[0].name: 0}
        # Nearest common dominators by intersection, as in Cooper, Harvey and Kennedy (A Simple,
        # Fast Dominance Algorithm, 2001). The nodes are sorted and acyclic, so one pass is
        # enough.
        for node in graph.nodes:
            self.dominators[node.name] = self.find_common_dominator(node.inputs)
            self.depth[node.name] = self.depth[self.dominators[node.name]] + 1

    def build_sequence(self, base: str, value: str, depth: int = 0) -> list[SpecStep]:
        """Return the steps that compute a value from its dominator `base`."""
        steps: list[SpecStep] = []
        # In reverse: the branches of a join start at its dominator, so everything between belongs
        # to them.
        while value != base:
            node = self.nodes[value]
            if not isinstance(node.op, JOINS):
                steps.append(OpStep(node))
                value = node.inputs[0]
                continue
            dominator = self.dominators[value]
            branches = self._build_branches(node, dominator, depth)
            if branches is None:
                steps += reversed(self.build_linear(dominator, [value]))
            else:
                steps.append(OpStep(node, branches))
            value = dominator
        return steps[::-1]

    def _build_branches(
        self, join: Node, dominator: str, depth: int
    ) -> tuple[tuple[SpecStep, ...], ...] | None:
        """Return the branches of a join from its dominator on; None if they share nodes."""
        # Deeper nesting would be correct but not readable.
        if depth == MAX_BRANCH_DEPTH or not self._is_disjoint(join, dominator):
            return None
        return tuple(
            tuple(self.build_sequence(dominator, value, depth + 1)) for value in join.inputs
        )

    def _is_disjoint(self, join: Node, dominator: str) -> bool:
        seen_values: set[str] = set()
        for value in join.inputs:
            branch_values = self._collect_between(dominator, [value])
            # A value that two branches share would be written and computed twice.
            if branch_values & seen_values:
                return False
            seen_values |= branch_values
        return True

    def _collect_between(self, dominator: str, last_values: Iterable[str]) -> set[str]:
        """Return the values and their ancestors back to `dominator`, which is excluded."""
        between_values: set[str] = set()
        pending = [value for value in last_values if value != dominator]
        while pending:
            value = pending.pop()
            if value not in between_values:
                between_values.add(value)
                pending += [v for v in self.nodes[value].inputs if v != dominator]
        return between_values

    def build_linear(self, dominator: str, last_values: Sequence[str]) -> list[SpecStep]:
        """Return the steps that compute values from a dominator, in order, joined by name."""
        needed = self._collect_between(dominator, last_values)
        steps: list[SpecStep] = []
        current = dominator
        for node in (n for name, n in self.nodes.items() if name in needed):
            if isinstance(node.op, JOINS):
                steps.append(
                    OpStep(node, tuple(self._read_by_name(v, current) for v in node.inputs))
                )
            else:
                source = self._read_by_name(node.inputs[0], current)
                steps.append(OpStep(node, source=source if isinstance(source, str) else ""))
            current = node.name
        return steps

    def _read_by_name(self, value: str, current: str) -> str | tuple[SpecStep, ...]:
        if value == current:
            return ()
        self.named_values.add(value)
        return value

    def find_common_dominator(self, value_names: Sequence[str]) -> str:
        """Return the last value on all paths to several values; for one value, that value."""
        dominator = value_names[0]
        for value in value_names[1:]:
            ancestor = value
            while dominator != ancestor:
                # Move up from the deeper of the two until they are equal.
                if self.depth[dominator] < self.depth[ancestor]:
                    dominator, ancestor = ancestor, dominator
                dominator = self.dominators[dominator]
        return dominator


MAX_REPEAT_STEPS = 64
"""Maximum number of steps of one iteration."""
MIN_REPEAT_OPS = 3
"""Minimum number of ops of an iteration that becomes a repeat."""


def fold_repeats(
    steps: tuple[SpecStep, ...], graph: Graph, named_values: frozenset[str]
) -> tuple[SpecStep, ...]:
    """Return steps with equal consecutive runs replaced by repeats, inner ones first."""
    return _RepeatFolder(graph.types, named_values).fold_sequence(steps)


class _RepeatFolder:
    def __init__(self, types: Mapping[str, TensorType], named_values: frozenset[str]) -> None:
        self.types, self.named_values = types, named_values
        self.numbers: dict[Hashable, int] = {}

    def fold_sequence(self, steps: tuple[SpecStep, ...]) -> tuple[SpecStep, ...]:
        # From the inside out: a folded block is one step, and a stage may be a run of these.
        inner_steps = tuple(map(self._fold_branches, steps))
        keys = [self._get_key(step) for step in inner_steps]
        folded_steps: list[SpecStep] = []
        at = 0
        while at < len(inner_steps):
            period, times = self._find_run(inner_steps, keys, at)
            if times > 1:
                iterations = (
                    inner_steps[at + i * period : at + (i + 1) * period] for i in range(times)
                )
                folded_steps.append(RepeatStep(tuple(iterations)))
                at += period * times
            else:
                folded_steps.append(inner_steps[at])
                at += 1
        return tuple(folded_steps)

    def _fold_branches(self, step: SpecStep) -> SpecStep:
        match step:
            case OpStep(node, branches, source) if branches:
                parts = (b if isinstance(b, str) else self.fold_sequence(b) for b in branches)
                return OpStep(node, tuple(parts), source)
        return step

    def _find_run(self, steps: Sequence[SpecStep], keys: Sequence[int], at: int) -> tuple[int, int]:
        """Return the period and count of the equal iterations from `at` that cover most steps."""
        best = (1, 1)
        if not _can_begin_repeat(steps, at):
            return best
        # Each position tries every period once: at most 64 comparisons of slices.
        for period in range(1, min(MAX_REPEAT_STEPS, (len(keys) - at) // 2) + 1):
            times = _count_repeats(keys, at, period)
            # Only if more steps are covered: of two periods with equal cover, use the shorter one.
            covers_more = period * times > best[0] * best[1]
            if times > 1 and covers_more and _count_ops(steps[at : at + period]) >= MIN_REPEAT_OPS:
                best = (period, times)
        return best

    def _get_key(self, step: SpecStep) -> int:
        """Return a number that is equal only for equal steps."""
        # Each step is numbered once, so that runs are compared as lists of integers at any depth.
        return self.numbers.setdefault(self._make_key_form(step), len(self.numbers))

    def _make_key_form(self, step: SpecStep) -> Hashable:
        match step:
            case RepeatStep(iterations):
                return len(iterations), tuple(map(self._get_key, iterations[0]))
            case OpStep(node, branches, source):
                keyword, arguments = describe_op(node.op, *(self.types[v] for v in node.inputs))
                parts = tuple(
                    b if isinstance(b, str) else tuple(map(self._get_key, b)) for b in branches
                )
                output_name = node.name if node.name in self.named_values else ""
                return keyword, repr(arguments), parts, source, output_name
        raise AssertionError(step)


def _count_repeats(keys: Sequence[int], at: int, period: int) -> int:
    """Return how many times the steps at a position repeat in sequence."""
    iteration, times = keys[at : at + period], 1
    while keys[at + times * period : at + (times + 1) * period] == iteration:
        times += 1
    return times


def _count_ops(steps: Sequence[SpecStep]) -> int:
    return sum(1 for _ in iterate_nodes(tuple(steps)))


def _can_begin_repeat(steps: Sequence[SpecStep], at: int) -> bool:
    """Whether an iteration can begin here: not between a layer and its activation."""
    match steps[at], steps[at - 1] if at else None:
        case OpStep(node=Node(op=op)), _ if isinstance(op, ACTIVATIONS):
            return False
        # DenseNet and ResNetV2 blocks begin with a batch norm, if the layer before it does not
        # own it.
        case OpStep(node=Node(op=BatchNorm())), OpStep(node=Node(op=previous_op)):
            return not isinstance(previous_op, Conv | Linear)
    return True


_BARE_STRING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# YAML 1.2 reserves only the first three. `yes`, `no`, `on` and `off` are quoted for YAML 1.1
# readers, which parse them as booleans.
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off"}


@dataclass(frozen=True, slots=True)
class SpecHeading:
    """The keys of a spec other than its graph; `preprocess` in the spec's form."""

    name: str
    doc: str
    preprocess: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecText:
    """The text of a spec file; `suffix` is `.yaml` or `.json`."""

    text: str
    suffix: str


def write_spec(
    graph: Graph, steps: tuple[SpecStep, ...], named_values: frozenset[str], heading: SpecHeading
) -> dict[str, Any]:
    """Return the spec of a graph with these steps, as plain data."""
    network_input = graph.inputs[0]
    contract: dict[str, Any] = {"shape": list(network_input.type.shape)}
    if heading.preprocess:
        contract["preprocess"] = dict(heading.preprocess)
    costs = compute_cost(graph)
    return {
        "tcc": 1,
        "name": heading.name,
        "doc": heading.doc,
        "input": {network_input.name: contract},
        "graph": _StepWriter(graph.types, named_values).write_steps(steps),
        "output": _describe_outputs(graph, named_values, heading.labels),
        **({"allow": list(heading.allow)} if heading.allow else {}),
        # `tcc check` compares these numbers, which reveals accidental changes.
        "tests": {"params": costs.params, "macs": costs.macs},
    }


def format_text(spec: Mapping[str, Any], *, json_wanted: bool = False) -> SpecText:
    """Return a spec as YAML, or as JSON if requested or too large for YAML."""
    if not json_wanted:
        rows = "".join(row + "\n" for key in spec for row in _format_yaml_rows(key, spec[key]))
        if len(rows.encode()) <= MAX_YAML_BYTES:
            text = format_spec(rows, "the spec")
            if len(text.encode()) <= MAX_YAML_BYTES:
                return SpecText(text, ".yaml")
    return SpecText(format_spec(json.dumps(spec), "the spec.json"), ".json")


def _format_yaml_rows(key: str, content: Any) -> list[str]:
    match content:
        case dict():
            return [
                f"{key}:",
                *(f"  {_format_flow(k)}: {_format_flow(v)}" for k, v in content.items()),
            ]
        case list() if key == "graph":
            return [f"{key}:", *(f"  - {_format_flow(step)}" for step in content)]
    return [f"{key}: {_format_flow(content)}"]


def _describe_outputs(
    graph: Graph, named_values: frozenset[str], labels: tuple[str, ...]
) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    for output in graph.outputs:
        fields: dict[str, Any] = {}
        if output.value in named_values:
            fields["from"] = output.value
        if output.activation != "none":
            fields["activation"] = output.activation
        if labels and graph.types[output.value].shape == (len(labels),):
            fields["labels"] = list(labels)
        outputs[output.name] = fields
    return outputs


@dataclass(frozen=True, slots=True)
class _StepWriter:
    """Writes steps as plain data. Layers with weights keep their name, except in a repeat."""

    types: Mapping[str, TensorType]
    named_values: frozenset[str]

    def write_steps(self, steps: tuple[SpecStep, ...], *, repeated: bool = False) -> list[Any]:
        return [self._write_step(step, repeated=repeated) for step in steps]

    def _write_step(self, step: SpecStep, *, repeated: bool) -> Any:
        match step:
            case RepeatStep(iterations):
                body = self.write_steps(iterations[0], repeated=True)
                return {"repeat": {"times": len(iterations), "body": body}}
            case OpStep():
                return self._write_op_step(step, repeated=repeated)

    def _write_op_step(self, step: OpStep, *, repeated: bool) -> Any:
        node = step.node
        keyword, arguments = describe_op(node.op, *(self.types[v] for v in node.inputs))
        content: Any = arguments
        if step.branches:
            content = [
                b if isinstance(b, str) else self.write_steps(b, repeated=repeated)
                for b in step.branches
            ]
        options = {
            # Only weights need names; steps in a repeat are numbered by iteration.
            "id": node.name if node.params and not repeated else "",
            "as": node.name if node.name in self.named_values else "",
            "from": step.source,
        }
        shown_options = {name: option for name, option in options.items() if option}
        return {keyword: content, **shown_options} if shown_options or content else keyword


def _format_flow(value: Any) -> str:
    """Return data in YAML's flow style."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's quotes and escapes; YAML 1.2 reads all of them the same way.
            is_bare = _BARE_STRING.fullmatch(value) and value.lower() not in _RESERVED
            return value if is_bare else json.dumps(value, ensure_ascii=False)
        case dict():
            return (
                "{"
                + ", ".join(f"{_format_flow(k)}: {_format_flow(v)}" for k, v in value.items())
                + "}"
            )
        case list():
            return "[" + ", ".join(map(_format_flow, value)) + "]"
    # repr gives the shortest digits that parse to the same number.
    return repr(value)
