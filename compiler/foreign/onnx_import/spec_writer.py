"""From a graph to the text of a spec: steps, branches, repeats, and their canonical form.

What starts and ends together becomes the branches of a join. Where branches share nodes, their
nodes stand one after another and are joined by name. Equal runs of steps become a repeat.
"""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.yaml import MAX_YAML_BYTES
from tcc.compiler.ir.argument_declarations import Kind, signature
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import ACTIVATIONS, JOINS, BatchNorm, Conv, DepthwiseConv, Linear, Op, Slice
from tcc.compiler.ops.pool import Pool


@dataclass(frozen=True, slots=True)
class OpStep:
    """One use of an op.

    A join has branches: each the name of an earlier value, or steps that start from the current
    one. Another step reads the current value, or `source` if that is named.
    """

    node: Node
    branches: "tuple[str | tuple[SpecStep, ...], ...]" = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class RepeatStep:
    """Equal runs of steps, one after another; `turns` holds each."""

    turns: "tuple[tuple[SpecStep, ...], ...]"


SpecStep = OpStep | RepeatStep


def nodes(items: tuple[SpecStep, ...]) -> Iterator[Node]:
    """Yield the nodes in the order in which the steps make them."""
    for item in items:
        match item:
            case RepeatStep(turns):
                for turn in turns:
                    yield from nodes(turn)
            case OpStep(node, branches):
                for branch in branches:
                    if not isinstance(branch, str):
                        yield from nodes(branch)
                yield node


Arguments = dict[str, Any]


def written(op: Op, *inputs: TensorType) -> tuple[str, Arguments]:
    """Return the word and arguments that stand for an op on inputs of given types."""
    plain = _plain(op, *inputs)
    arguments: Arguments = {}
    for parameter in signature(type(plain)):
        value = getattr(plain, parameter.name)
        if parameter.kind in (Kind.PAIR, Kind.PADDING):
            value, default = _brief(value), _brief(parameter.default)
        else:
            default = parameter.default
        if value != default:
            arguments[parameter.name] = value
    return plain.word, arguments


def _plain(op: Op, *inputs: TensorType) -> Op:
    """Return an op in the form with the fewest arguments."""
    match op:
        case Conv(groups=groups) if groups > 1 and groups == inputs[0].shape[0]:
            # As many groups as channels has a word of its own in the language.
            return DepthwiseConv(
                op.kernel, op.stride, op.padding, op.dilation, op.bias, op.filters // groups
            )
        case Pool() if op.stride == op.kernel:
            # Windows side by side are what a pool does when no stride is said.
            return replace(op, stride=None)
        case Slice(stop=stop) if stop == inputs[0].shape[0]:
            return replace(op, stop=None)
    return op


def _brief(value: Any) -> Any:
    """Return sizes as few numbers: 1 for (1, 1) and (1, 1, 1, 1)."""
    match value:
        case (int(a), *rest) if all(n == a for n in rest):
            return a
        case (a, b, c, d) if (a, b) == (c, d):
            return [a, b]
        case tuple():
            return list(value)
    return value


DEEPEST = 12
"""How deep branches nest before they are taken apart."""


def structured(graph: Graph) -> tuple[tuple[SpecStep, ...], frozenset[str]]:
    """Return the steps of a graph, and the values that are read by name."""
    found = _Structure(graph)
    values = list(dict.fromkeys(output.value for output in graph.outputs))
    source = graph.inputs[0].name
    # An output that lies behind all others can end the chain; these are then read by name.
    last = next((v for v in values if all(found.common([v, w]) == w for w in values)), None)
    if last is not None:
        items = found.sequence(source, last)
        others = set(values) - {last}
    else:
        top = found.common(values)
        items = [*found.sequence(source, top), *found.linear(top, values)]
        others = set(values)
    return tuple(items), frozenset(found.named | others)


class _Structure:
    """The nodes by name, and the value above each: the last through which all its inputs go."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: Mapping[str, Node] = {node.name: node for node in graph.nodes}
        self.named: set[str] = set()
        self.above: dict[str, str] = {}
        self.depth = {graph.inputs[0].name: 0}
        # The nearest common dominators, by intersection as Cooper, Harvey and Kennedy have it (A
        # Simple, Fast Dominance Algorithm, 2001). Nodes stand in order and there is no loop: one
        # pass is enough.
        for node in graph.nodes:
            self.above[node.name] = self.common(node.inputs)
            self.depth[node.name] = self.depth[self.above[node.name]] + 1

    def sequence(self, base: str, value: str, depth: int = 0) -> list[SpecStep]:
        """Return the steps that make a value of another, through which all its inputs go."""
        items: list[SpecStep] = []
        # Backwards from the end: what is above a join is where its branches part, so that
        # everything between belongs to them.
        while value != base:
            node = self.nodes[value]
            if not isinstance(node.op, JOINS):
                items.append(OpStep(node))
                value = node.inputs[0]
                continue
            top = self.above[value]
            branches = self._branches(node, top, depth)
            if branches is None:
                items += reversed(self.linear(top, [value]))
            else:
                items.append(OpStep(node, branches))
            value = top
        return items[::-1]

    def _branches(
        self, join: Node, top: str, depth: int
    ) -> tuple[tuple[SpecStep, ...], ...] | None:
        """Return the branches of a join from a value on; None where they share nodes."""
        # Deeper nests would be right, but nobody would read them.
        if depth == DEEPEST or not self._apart(join, top):
            return None
        return tuple(tuple(self.sequence(top, value, depth + 1)) for value in join.inputs)

    def _apart(self, join: Node, top: str) -> bool:
        seen: set[str] = set()
        for value in join.inputs:
            own = self._between(top, [value])
            # A value that two branches share would be written, and computed, twice.
            if own & seen:
                return False
            seen |= own
        return True

    def _between(self, top: str, values: Iterable[str]) -> set[str]:
        """Return the values that others are made of, themselves included, back to `top`."""
        found: set[str] = set()
        pending = [value for value in values if value != top]
        while pending:
            value = pending.pop()
            if value not in found:
                found.add(value)
                pending += [v for v in self.nodes[value].inputs if v != top]
        return found

    def linear(self, top: str, values: Sequence[str]) -> list[SpecStep]:
        """Return the steps that make values of another, in the graph's order, joined by name."""
        needed = self._between(top, values)
        items: list[SpecStep] = []
        current = top
        for node in (n for name, n in self.nodes.items() if name in needed):
            if isinstance(node.op, JOINS):
                items.append(OpStep(node, tuple(self._read(v, current) for v in node.inputs)))
            else:
                read = self._read(node.inputs[0], current)
                items.append(OpStep(node, source=read if isinstance(read, str) else ""))
            current = node.name
        return items

    def _read(self, value: str, current: str) -> str | tuple[SpecStep, ...]:
        if value == current:
            return ()
        self.named.add(value)
        return value

    def common(self, values: Sequence[str]) -> str:
        """Return the last value through which all of several go, or the one that there is."""
        found = values[0]
        for value in values[1:]:
            other = value
            while found != other:
                # The deeper of the two climbs until they meet.
                if self.depth[found] < self.depth[other]:
                    found, other = other, found
                found = self.above[found]
        return found


LONGEST = 64
"""Most steps of one turn."""
FEWEST = 3
"""Fewest ops of a turn that is worth a repeat."""


def folded(
    items: tuple[SpecStep, ...], graph: Graph, named: frozenset[str]
) -> tuple[SpecStep, ...]:
    """Return steps with equal runs of them, one after another, as repeats; inner ones first."""
    return _Folder(graph.types, named).sequence(items)


class _Folder:
    def __init__(self, types: Mapping[str, TensorType], named: frozenset[str]) -> None:
        self.types, self.named = types, named
        self.numbers: dict[Hashable, int] = {}

    def sequence(self, items: tuple[SpecStep, ...]) -> tuple[SpecStep, ...]:
        # From the inside out: blocks that were folded are then one step each, of which a stage may
        # be a run.
        inner = tuple(map(self._inside, items))
        keys = [self._key(item) for item in inner]
        result: list[SpecStep] = []
        at = 0
        while at < len(inner):
            period, times = self._run(inner, keys, at)
            if times > 1:
                turns = (inner[at + i * period : at + (i + 1) * period] for i in range(times))
                result.append(RepeatStep(tuple(turns)))
                at += period * times
            else:
                result.append(inner[at])
                at += 1
        return tuple(result)

    def _inside(self, item: SpecStep) -> SpecStep:
        match item:
            case OpStep(node, branches, source) if branches:
                parts = (b if isinstance(b, str) else self.sequence(b) for b in branches)
                return OpStep(node, tuple(parts), source)
        return item

    def _run(self, items: Sequence[SpecStep], keys: Sequence[int], at: int) -> tuple[int, int]:
        """Return length and number of the equal turns from a place on that cover most steps."""
        best = (1, 1)
        if not _begins(items, at):
            return best
        # Each place tries every length of a turn once: at most 64 comparisons of slices a place.
        for period in range(1, min(LONGEST, (len(keys) - at) // 2) + 1):
            times = _times(keys, at, period)
            # Only if more steps are covered: of two lengths with equal cover the shorter, with more
            # turns.
            longer = period * times > best[0] * best[1]
            if times > 1 and longer and _ops(items[at : at + period]) >= FEWEST:
                best = (period, times)
        return best

    def _key(self, item: SpecStep) -> int:
        """Return a number that is equal for equal steps alone."""
        # Steps become numbers once, so that runs are compared as lists of integers however deep
        # they are.
        return self.numbers.setdefault(self._form(item), len(self.numbers))

    def _form(self, item: SpecStep) -> Hashable:
        match item:
            case RepeatStep(turns):
                return len(turns), tuple(map(self._key, turns[0]))
            case OpStep(node, branches, source):
                word, arguments = written(node.op, *(self.types[v] for v in node.inputs))
                parts = tuple(
                    b if isinstance(b, str) else tuple(map(self._key, b)) for b in branches
                )
                own = node.name if node.name in self.named else ""
                return word, repr(arguments), parts, source, own
        raise AssertionError(item)


def _times(keys: Sequence[int], at: int, period: int) -> int:
    """Return how often the steps from a place on stand there one after another."""
    turn, times = keys[at : at + period], 1
    while keys[at + times * period : at + (times + 1) * period] == turn:
        times += 1
    return times


def _ops(items: Sequence[SpecStep]) -> int:
    return sum(1 for _ in nodes(tuple(items)))


def _begins(items: Sequence[SpecStep], at: int) -> bool:
    """Whether a person might begin a turn here: not between a layer and its activation."""
    match items[at], items[at - 1] if at else None:
        case OpStep(node=Node(op=op)), _ if isinstance(op, ACTIVATIONS):
            return False
        # A batch norm that begins a turn is the form of DenseNet and of ResNetV2, if no layer
        # stands before it that it belongs to.
        case OpStep(node=Node(op=BatchNorm())), OpStep(node=Node(op=before)):
            return not isinstance(before, Conv | Linear)
    return True


_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# YAML 1.2 knows the first three alone; `yes`, `no`, `on` and `off` are quoted for readers of YAML
# 1.1, to which they are booleans.
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off"}


@dataclass(frozen=True, slots=True)
class SpecHeading:
    """What a spec says beside its graph; `preprocess` as it is written."""

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
    graph: Graph, items: tuple[SpecStep, ...], named: frozenset[str], heading: SpecHeading
) -> dict[str, Any]:
    """Return the spec of a graph with these steps, as plain data."""
    source = graph.inputs[0]
    contract: dict[str, Any] = {"shape": list(source.type.shape)}
    if heading.preprocess:
        contract["preprocess"] = dict(heading.preprocess)
    costs = cost(graph)
    return {
        "tcc": 1,
        "name": heading.name,
        "doc": heading.doc,
        "input": {source.name: contract},
        "graph": _Writer(graph.types, named).steps(items),
        "output": _outputs(graph, named, heading.labels),
        **({"allow": list(heading.allow)} if heading.allow else {}),
        # `tcc check` compares them, which shows an edit that changes them by mistake.
        "tests": {"params": costs.params, "macs": costs.macs},
    }


def format_text(spec: Mapping[str, Any], *, json_wanted: bool = False) -> SpecText:
    """Return a spec as YAML, or as JSON where it is asked for or too large for YAML."""
    if not json_wanted:
        rows = "".join(row + "\n" for key in spec for row in _yaml_rows(key, spec[key]))
        if len(rows.encode()) <= MAX_YAML_BYTES:
            text = format_spec(rows, "the spec")
            if len(text.encode()) <= MAX_YAML_BYTES:
                return SpecText(text, ".yaml")
    return SpecText(format_spec(json.dumps(spec), "the spec.json"), ".json")


def _yaml_rows(key: str, content: Any) -> list[str]:
    match content:
        case dict():
            return [f"{key}:", *(f"  {_flow(k)}: {_flow(v)}" for k, v in content.items())]
        case list() if key == "graph":
            return [f"{key}:", *(f"  - {_flow(step)}" for step in content)]
    return [f"{key}: {_flow(content)}"]


def _outputs(graph: Graph, named: frozenset[str], labels: tuple[str, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for output in graph.outputs:
        about: dict[str, Any] = {}
        if output.value in named:
            about["from"] = output.value
        if output.activation != "none":
            about["activation"] = output.activation
        if labels and graph.types[output.value].shape == (len(labels),):
            about["labels"] = list(labels)
        result[output.name] = about
    return result


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes steps as plain data. Layers with weights keep their name, but not within a repeat."""

    types: Mapping[str, TensorType]
    named: frozenset[str]

    def steps(self, items: tuple[SpecStep, ...], *, repeated: bool = False) -> list[Any]:
        return [self._item(item, repeated=repeated) for item in items]

    def _item(self, item: SpecStep, *, repeated: bool) -> Any:
        match item:
            case RepeatStep(turns):
                body = self.steps(turns[0], repeated=True)
                return {"repeat": {"times": len(turns), "body": body}}
            case OpStep():
                return self._step(item, repeated=repeated)

    def _step(self, step: OpStep, *, repeated: bool) -> Any:
        node = step.node
        word, arguments = written(node.op, *(self.types[v] for v in node.inputs))
        given: Any = arguments
        if step.branches:
            given = [
                b if isinstance(b, str) else self.steps(b, repeated=repeated) for b in step.branches
            ]
        options = {
            # Names matter to weights alone; what a repeat makes is numbered by its turns.
            "id": node.name if node.params and not repeated else "",
            "as": node.name if node.name in self.named else "",
            "from": step.source,
        }
        kept = {name: value for name, value in options.items() if value}
        return {word: given, **kept} if kept or given else word


def _flow(value: Any) -> str:
    """Return data as YAML in brackets."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            # Quotes and escapes of JSON, all of which YAML 1.2 reads alike.
            plain = _BARE.fullmatch(value) and value.lower() not in _RESERVED
            return value if plain else json.dumps(value, ensure_ascii=False)
        case dict():
            return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
    # Shortest digits that give the same number.
    return repr(value)
