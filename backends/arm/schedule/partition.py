"""From a graph to groups of nodes that one kernel computes, and what a rule sees of one."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcc.backends.arm.kernels.base import Kernel, KernelArgument, KernelCall, Shape3, Value
from tcc.backends.arm.kernels.epilogue import Epilogue, Finish, fused, shape3
from tcc.backends.arm.kernels.pointwise import POINTWISE, PointwiseOp
from tcc.backends.arm.machine import Machine
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import (
    AvgPool,
    Border,
    Concat,
    Dropout,
    Flatten,
    Identity,
    MaxPool,
    Op,
    Pad,
    Slice,
    Softmax,
    StochasticDepth,
    Unflatten,
)
from tcc.compiler.ops.integer import Dequantize, QPad, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    """Nodes in a row: an anchor, and element-wise nodes that alone read the one before them.

    Those `ahead` are done to what the anchor reads, while it does so.
    """

    nodes: tuple[Node, ...]
    ahead: tuple[Node, ...] = ()

    @property
    def anchor(self) -> Node:
        """The first node, which decides what kernel this is."""
        return self.nodes[0]

    @property
    def every(self) -> tuple[Node, ...]:
        """All its nodes in order."""
        return (*self.ahead, *self.nodes)

    @property
    def read(self) -> str:
        """The first value that is read."""
        return self.every[0].inputs[0]

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
            taken.update(n.name for n in group.every)
            groups.append(group)
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    # By their last nodes, which may read what is computed after the first.
    return tuple(sorted(groups, key=lambda g: position[g.result.name]))


def _grown(graph: Graph, anchor: Node, taken: Container[str]) -> FusionGroup:
    nodes = _followed(graph, anchor, taken)
    pool = graph.sole_reader(nodes[-1].name)
    mapped = all(_mapped(node, graph.input_types(node)) for node in nodes)
    if pool and pool.name not in taken and _dealt(pool) and mapped:
        return FusionGroup(_followed(graph, pool, taken), nodes)
    return FusionGroup(nodes)


def _followed(graph: Graph, anchor: Node, taken: Container[str]) -> tuple[Node, ...]:
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
    return tuple(nodes)


def _dealt(node: Node) -> bool:
    """Whether a pooling reads each number once, from a copy of its rows."""
    match node.op:
        case AvgPool() | MaxPool() as pool if pool.step[1] > 1:
            return all(side <= step for side, step in zip(pool.kernel, pool.step, strict=True))
    return False


def _mapped(node: Node, types: tuple[TensorType, ...]) -> bool:
    """Whether a node makes each float of one map, and of constants of its channel, another."""
    # Not of levels: the copy of a pooling's rows is of the type of what it reads.
    floats = all(kind.dtype is DType.F32 for kind in (*types, node.type))
    return type(node.op) in POINTWISE and len(types) == 1 and floats


def _follows(reader: Node, node: Node) -> bool:
    """Whether a node can be computed element by element right behind another."""
    return type(reader.op) in POINTWISE and reader.type.shape == node.type.shape


@dataclass(frozen=True, slots=True)
class Site:
    """A group where it stands: all that a rule may look at."""

    graph: Graph
    weights: "Mapping[str, NDArray[Any]]"
    machine: Machine
    group: FusionGroup

    @property
    def read(self) -> TensorType:
        """The type of the first value that is read."""
        return self.graph.types[self.group.read]

    @property
    def source(self) -> Shape3:
        """The shape of the first value that is read."""
        return shape3(self.read.shape)

    @property
    def dtype(self) -> str:
        """The type of numbers in the first value that is read."""
        return self.read.dtype.value

    @property
    def result(self) -> Shape3:
        """The shape of the group's value."""
        return shape3(self.group.result.type.shape)

    @property
    def tensors(self) -> "list[NDArray[Any]]":
        """The anchor's weights."""
        return [self.weights[name] for name in self.group.anchor.params]

    def epilogue(
        self, finish: PointwiseOp | None = None, factor: "NDArray[Any] | None" = None
    ) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return what is fused behind the anchor, and its operands.

        `finish`, if given, comes first, and reads `factor`, which broadcasts.
        """
        # The anchor is the kernel itself; what follows is what it does to its results before they
        # are stored.
        first, *rest = self.group.nodes
        before = None if finish is None or factor is None else Finish(finish, factor)
        return fused(self.graph, self.weights, rest, first.name, before)

    def prologue(self) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return what is done to what the anchor reads, and its operands."""
        return fused(self.graph, self.weights, self.group.ahead, self.group.read)

    def call(self, kernel: Kernel, *arguments: KernelArgument) -> KernelCall:
        """Return the call of a kernel that reads the group's first value and then these."""
        return KernelCall(kernel, (Value(self.group.read), *arguments), self.group.result.name)
