"""From a graph to steps: what starts and ends together becomes the branches of a join.

Where branches share nodes, their nodes stand one after another and are joined by name.
"""

from collections.abc import Iterable, Mapping, Sequence

from tcc.compiler.foreign.onnx_import.spec_writer.spec_steps import OpStep, SpecStep
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ops import JOINS

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
