"""From a graph to groups of nodes that one kernel computes."""

from collections.abc import Container
from dataclasses import dataclass

from tcc.backends.arm.kernels.pointwise import POINTWISE
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import DType
from tcc.compiler.ops import (
    Border,
    Concat,
    Dropout,
    Flatten,
    Identity,
    Op,
    Pad,
    Slice,
    Softmax,
    StochasticDepth,
    Unflatten,
)
from tcc.compiler.ops.integer import Dequantize, QPad, Table

CLOSED: frozenset[type[Op]] = frozenset(
    {
        Concat,
        Flatten,
        Unflatten,
        Identity,
        Dropout,
        StochasticDepth,
        Slice,
        Pad,
        Border,
        QPad,
        Table,
    }
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
    # By their last nodes, which may read what is computed after the first.
    return tuple(sorted(groups, key=lambda g: position[g.result.name]))


def _grown(graph: Graph, anchor: Node, taken: Container[str]) -> FusionGroup:
    nodes = [anchor]
    while type(anchor.op) not in CLOSED and len(nodes) < MAX_NODES:
        reader = graph.sole_reader(nodes[-1].name)
        # A value that others read too has to be stored: what follows begins a kernel of its own.
        if reader is None or reader.name in taken or not _follows(reader, nodes[-1]):
            break
        if isinstance(anchor.op, Softmax) and reader.type.dtype is not DType.F32:
            break  # it keeps its exponentials where its result goes
        if isinstance(reader.op, Dequantize) and not graph.readers[reader.name]:
            break  # the levels of an output are for whoever wants these
        nodes.append(reader)
    return FusionGroup(tuple(nodes))


def _follows(reader: Node, node: Node) -> bool:
    """Whether a node can be computed element by element right behind another."""
    return type(reader.op) in POINTWISE and reader.type.shape == node.type.shape
