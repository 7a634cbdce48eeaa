"""From a graph to groups of nodes that one kernel computes."""

from collections.abc import Container
from dataclasses import dataclass

from tcc.backends.arm.kernels.pointwise import POINTWISE
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ops import (
    Concat,
    Dropout,
    Flatten,
    Identity,
    Op,
    Pad,
    Slice,
    StochasticDepth,
)

CLOSED: frozenset[type[Op]] = frozenset(
    {Concat, Flatten, Identity, Dropout, StochasticDepth, Slice, Pad}
)
"""Operations that only place or copy elements: nothing is fused behind them."""
MAX_NODES = 24
"""Most nodes of a group, so that no kernel grows without bound."""


@dataclass(frozen=True, slots=True)
class FusionGroup:
    """Nodes in a row: an anchor, and element-wise nodes that alone read the one before them."""

    nodes: tuple[Node, ...]

    @property
    def anchor(self) -> Node:
        """The first node, which decides what kernel this is."""
        return self.nodes[0]

    @property
    def result(self) -> Node:
        """The last node, the only one whose value others read."""
        return self.nodes[-1]


def partition(graph: Graph) -> tuple[FusionGroup, ...]:
    """Return the graph's nodes in groups, ordered so that each comes after what it reads."""
    taken: set[str] = set()
    groups = []
    for node in graph.nodes:
        if node.name not in taken:
            group = _grown(graph, node, taken)
            taken.update(n.name for n in group.nodes)
            groups.append(group)
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    return tuple(sorted(groups, key=lambda g: position[g.result.name]))


def _grown(graph: Graph, anchor: Node, taken: Container[str]) -> FusionGroup:
    nodes = [anchor]
    while type(anchor.op) not in CLOSED and len(nodes) < MAX_NODES:
        reader = graph.sole_reader(nodes[-1].name)
        if reader is None or reader.name in taken or not _follows(reader, nodes[-1]):
            break
        nodes.append(reader)
    return FusionGroup(tuple(nodes))


def _follows(reader: Node, node: Node) -> bool:
    """Whether a node can be computed element by element right behind another."""
    return type(reader.op) in POINTWISE and reader.type.shape == node.type.shape
