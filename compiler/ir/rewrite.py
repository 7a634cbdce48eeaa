"""Replace nodes of a graph in one walk, and remove unused ones.

A value keeps its name and its meaning through every rewrite: a node that absorbs others has the
name of the last of them, so that stages can be compared value by value.

The walk is linear in nodes and edges: it visits each node once, in graph order, with a rule that
looks at few neighbours; readers are indexed once. A pass that needs a fixed point, such as folding
chains, gets it in the same walk, because all nodes before the current one are already rewritten:
folding three layers in a row takes two visits. Patterns are Python's `match` on frozen nodes; a
separate pattern language would only be a second notation for the same trees.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.op import Op
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NodeWeights: TypeAlias = "tuple[NDArray[np.float32], ...]"
"""The weight tensors of one node, in order."""


@dataclass(frozen=True, slots=True)
class ChainedOp:
    """An op that reads the value of the one before it, and then `extra_inputs`."""

    op: Op
    weights: NodeWeights
    at: Span
    extra_inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replacement:
    """Another op replaces a node; `weights` are the values of its tensors, in order.

    With `chained_ops`, a chain of ops replaces it; the last one has the node's name.
    """

    op: Op
    inputs: tuple[str, ...]
    weights: NodeWeights
    at: Span
    chained_ops: tuple[ChainedOp, ...] = ()


@dataclass(frozen=True, slots=True)
class Bypass:
    """The node is removed: its readers read `value` instead."""

    value: str


@dataclass(slots=True)
class RewriteContext:
    """What a rule may read: the nodes before its own, already rewritten, and all weights.

    `graph` is the graph before the walk, with the readers of all its values. `rewritten` has the
    nodes so far, `types` and `weights` those of old and new values.
    """

    graph: Graph
    rewritten: dict[str, Node]
    types: dict[str, TensorType]
    weights: "dict[str, NDArray[np.float32]]"

    def find_producer(self, value: str) -> Node | None:
        """Return the node that computes a value; None for an input of the graph."""
        return self.rewritten.get(value)

    def find_sole_producer(self, node: Node) -> Node | None:
        """Return the node that computes a node's only input, if nothing else reads it."""
        if len(node.inputs) != 1:
            return None
        # Values that the walk created have no readers in the original graph: they never match.
        reader = (
            self.graph.find_sole_reader(node.inputs[0])
            if node.inputs[0] in self.graph.types
            else None
        )
        return self.find_producer(node.inputs[0]) if reader and reader.name == node.name else None

    def get_weights(self, node: Node) -> NodeWeights:
        """Return a node's weight tensors, in order."""
        return tuple(self.weights[name] for name in node.params)


Rule = Callable[[Node, RewriteContext], Replacement | Bypass | None]
"""Returns the replacement of a node, whose inputs are already renamed; None keeps it."""


def rewrite(model: Model, rule: Rule) -> Model:
    """Return a model in which a rule has replaced nodes, without dead nodes.

    Args:
        model: The model to rewrite; it is not changed.
        rule: Returns the replacement of each node. Nodes before it are already rewritten.

    Returns:
        A model in which values keep their names and meaning, within the bound of the pass.
    """
    graph = model.graph
    context = RewriteContext(graph, {}, dict(graph.types), dict(model.weights))
    renamed_values: dict[str, str] = {}
    users = _index_weight_users(graph)
    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed_values.get(v, v) for v in original.inputs))
        match rule(node, context):
            case None:
                context.rewritten[node.name] = node
            case Bypass(value):
                # Already the end of a chain: the node's inputs were renamed before the rule ran.
                renamed_values[node.name] = value
            case Replacement() as new:
                _insert_chain(node, new, context, users)
    # An output of a bypassed node reads the node's input; the output keeps its own name.
    outputs = tuple(replace(o, value=renamed_values.get(o.value, o.value)) for o in graph.outputs)
    nodes = tuple(context.rewritten.values())
    return eliminate_dead(Model(replace(graph, nodes=nodes, outputs=outputs), context.weights))


def eliminate_dead(model: Model) -> Model:
    """Return a model without the nodes and weights that no output needs."""
    graph = eliminate_dead_nodes(model.graph)
    # A pass may leave unused weights, which would otherwise be written to files.
    return Model(graph, {name: model.weights[name] for name in graph.params})


def eliminate_dead_nodes(graph: Graph) -> Graph:
    """Return a graph without the nodes that no output needs; its inputs stay."""
    needed = {output.value for output in graph.outputs}
    live_nodes = []
    # Backwards, so that the readers of a node come before it.
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            live_nodes.append(node)
    return (
        graph
        if len(live_nodes) == len(graph.nodes)
        else replace(graph, nodes=tuple(reversed(live_nodes)))
    )


def extract_inference_graph(graph: Graph) -> Graph:
    """Return the part of a graph that artifacts contain: no train-only outputs, no dead nodes."""
    outputs = tuple(output for output in graph.outputs if not output.train_only)
    return eliminate_dead_nodes(replace(graph, outputs=outputs))


def make_unused_name(name: str, used_names: Mapping[str, object]) -> str:
    """Return an unused name for a new value."""
    # A name in a spec cannot contain a prime, so it never matches a step.
    while name in used_names:
        name += "'"
    return name


def _insert_chain(
    node: Node, replacement: Replacement, context: RewriteContext, users: Mapping[str, set[str]]
) -> None:
    """Replace a node by a chain of nodes."""
    name = ""
    for chained_op in (
        chain := (
            ChainedOp(replacement.op, replacement.weights, replacement.at),
            *replacement.chained_ops,
        )
    ):
        inputs = (name, *chained_op.extra_inputs) if name else replacement.inputs
        # The last node of a chain has the original node's name, because it has its meaning; the
        # others get new names.
        name = (
            node.name
            if chained_op is chain[-1]
            else make_unused_name(f"{node.name}/{chained_op.op.keyword}", context.types)
        )
        types = tuple(context.types[value] for value in inputs)
        params = tuple(
            _make_unshared_name(f"{name}.{param.role}", node, users)
            for param in chained_op.op.params(*types)
        )
        new_node = Node(
            name, chained_op.op, inputs, params, chained_op.op.infer(*types), chained_op.at
        )
        context.rewritten[name] = new_node
        context.types[name] = new_node.type
        context.weights.update(zip(params, chained_op.weights, strict=True))


def _make_unshared_name(name: str, node: Node, users: Mapping[str, set[str]]) -> str:
    """Return a name for a new tensor of a node that overwrites no other node's tensor."""
    # A tensor that other nodes share must keep its values for them.
    while users.get(name, set()) - {node.name}:
        name += "'"
    return name


def _index_weight_users(graph: Graph) -> Mapping[str, set[str]]:
    users: dict[str, set[str]] = {}
    for node in graph.nodes:
        for name in node.params:
            users.setdefault(name, set()).add(node.name)
    return users
