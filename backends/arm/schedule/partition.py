"""Partitions a graph into groups of nodes, each computed by one kernel."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcc.backends.arm.kernels.base import (
    Kernel,
    KernelArgument,
    KernelCall,
    Shape3,
    Value,
    get_dtype,
)
from tcc.backends.arm.kernels.epilogue import Epilogue, Finish, fuse_nodes, to_shape3
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


UNFUSED_OPS: frozenset[type[Op]] = frozenset(
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
"""Operations that only move or copy elements: nothing is fused into them."""
MAX_NODES = 24
"""Largest number of nodes per group, to limit the size of kernels."""


@dataclass(frozen=True, slots=True)
class FusionGroup:
    """Consecutive nodes: an anchor, and element-wise nodes that are the only readers of the last.

    The anchor applies `prologue_nodes` to its input as it reads it.
    """

    nodes: tuple[Node, ...]
    prologue_nodes: tuple[Node, ...] = ()

    @property
    def anchor(self) -> Node:
        """The first node, which determines the kernel."""
        return self.nodes[0]

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        """All nodes of the group in order."""
        return (*self.prologue_nodes, *self.nodes)

    @property
    def input_name(self) -> str:
        """The first input of the group."""
        return self.all_nodes[0].inputs[0]

    @property
    def output_node(self) -> Node:
        """The last node, the only one with readers outside of the group."""
        return self.nodes[-1]


def partition(graph: Graph) -> tuple[FusionGroup, ...]:
    """Return the graph's nodes in groups, ordered so that inputs come before their readers."""
    grouped_names: set[str] = set()
    groups = []
    for node in graph.nodes:
        if node.name not in grouped_names:
            group = _expand_group(graph, node, grouped_names)
            grouped_names.update(n.name for n in group.all_nodes)
            groups.append(group)
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    # Ordered by their last nodes, which may read values that are computed after the first node.
    return tuple(sorted(groups, key=lambda g: position[g.output_node.name]))


def _expand_group(graph: Graph, anchor: Node, grouped_names: Container[str]) -> FusionGroup:
    nodes = _collect_followers(graph, anchor, grouped_names)
    pool = graph.find_sole_reader(nodes[-1].name)
    is_float_map = all(_is_float_map(node, graph.get_input_types(node)) for node in nodes)
    if pool and pool.name not in grouped_names and _is_strided_pool(pool) and is_float_map:
        return FusionGroup(_collect_followers(graph, pool, grouped_names), nodes)
    return FusionGroup(nodes)


def _collect_followers(
    graph: Graph, anchor: Node, grouped_names: Container[str]
) -> tuple[Node, ...]:
    nodes = [anchor]
    while type(anchor.op) not in UNFUSED_OPS and len(nodes) < MAX_NODES:
        reader = graph.find_sole_reader(nodes[-1].name)
        # A value with several readers must be stored: the next node begins another kernel.
        if reader is None or reader.name in grouped_names or not _can_follow(reader, nodes[-1]):
            break
        if isinstance(anchor.op, Softmax) and reader.type.dtype is not DType.F32:
            break  # softmax stores its exponentials in the float result
        if isinstance(reader.op, Dequantize) and not graph.readers[reader.name]:
            break  # callers can read an output's quantized values, so they are stored
        nodes.append(reader)
    return tuple(nodes)


def _is_strided_pool(node: Node) -> bool:
    """Whether a pooling reads each element once, from a copy of its rows."""
    match node.op:
        case AvgPool() | MaxPool() as pool if pool.step[1] > 1:
            return all(side <= step for side, step in zip(pool.kernel, pool.step, strict=True))
    return False


def _is_float_map(node: Node, types: tuple[TensorType, ...]) -> bool:
    """Whether a node is element-wise on one float map, with constants per channel at most."""
    # Not for 8-bit values: the copy of a pooling's rows has the type of its input.
    floats = all(kind.dtype is DType.F32 for kind in (*types, node.type))
    return type(node.op) in POINTWISE and len(types) == 1 and floats


def _can_follow(reader: Node, node: Node) -> bool:
    """Whether a node can be computed element by element after another one."""
    return type(reader.op) in POINTWISE and reader.type.shape == node.type.shape


@dataclass(frozen=True, slots=True)
class Site:
    """A group with its graph, weights and machine: the input of a rule."""

    graph: Graph
    weights: "Mapping[str, NDArray[Any]]"
    machine: Machine
    group: FusionGroup

    @property
    def input_type(self) -> TensorType:
        """The type of the group's first input."""
        return self.graph.types[self.group.input_name]

    @property
    def input_shape(self) -> Shape3:
        """The shape of the group's first input."""
        return to_shape3(self.input_type.shape)

    @property
    def dtype(self) -> str:
        """The element type of the group's first input."""
        return get_dtype(self.input_type)

    @property
    def output_shape(self) -> Shape3:
        """The shape of the group's output."""
        return to_shape3(self.group.output_node.type.shape)

    @property
    def tensors(self) -> "list[NDArray[Any]]":
        """The anchor's weights."""
        return [self.weights[name] for name in self.group.anchor.params]

    def build_epilogue(
        self, finish: PointwiseOp | None = None, factor: "NDArray[Any] | None" = None
    ) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return the ops that are fused into the anchor's kernel, and their operands.

        `finish`, if given, comes first and reads `factor`, which broadcasts.
        """
        # The kernel computes the anchor, and applies the followers to its results before it stores
        # them.
        anchor, *followers = self.group.nodes
        finish_step = None if finish is None or factor is None else Finish(finish, factor)
        return fuse_nodes(self.graph, self.weights, followers, anchor.name, finish_step)

    def build_prologue(self) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return the ops that are applied to the anchor's input, and their operands."""
        return fuse_nodes(
            self.graph, self.weights, self.group.prologue_nodes, self.group.input_name
        )

    def call(self, kernel: Kernel, *arguments: KernelArgument) -> KernelCall:
        """Return the call of a kernel with the group's first input and further arguments."""
        return KernelCall(
            kernel, (Value(self.group.input_name), *arguments), self.group.output_node.name
        )
