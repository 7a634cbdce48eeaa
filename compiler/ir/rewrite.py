"""One walk that replaces nodes, and the removal of what nothing reads any more.

A value keeps its name and its meaning through every rewrite: a node that swallows others bears
the name of the last of them, so that stages can be compared value by value.

The walk is linear in nodes and edges: one visit a node, in the graph's order, each by a rule that
looks at few neighbours; who reads what is indexed once. A pass that needs a fixed point, such as
folding chains, gets it in the same walk, since what is before a node is rewritten already: three
layers in a row are folded by two visits. Patterns are Python's `match` on frozen nodes, for which a
pattern language of its own would be a second notation for the same trees.
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
    """An op that reads the value of the one before it, and then `others`."""

    op: Op
    weights: NodeWeights
    at: Span
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replacement:
    """Another op stands in a node's place; `weights` are the values of its tensors, in order.

    Or a chain of them, of which the last bears the node's name.
    """

    op: Op
    inputs: tuple[str, ...]
    weights: NodeWeights
    at: Span
    then: tuple[ChainedOp, ...] = ()


@dataclass(frozen=True, slots=True)
class Bypass:
    """Nothing stands in a node's place: its readers read `value` instead."""

    value: str


@dataclass(slots=True)
class RewriteContext:
    """What a rule may look at: the nodes before its own as rewritten already, and all weights.

    `graph` is the graph before the walk, which alone knows all readers of a value; `made` holds the
    nodes so far, `types` and `weights` those of old and new values alike.
    """

    graph: Graph
    made: dict[str, Node]
    types: dict[str, TensorType]
    weights: "dict[str, NDArray[np.float32]]"

    def producer(self, value: str) -> Node | None:
        """Return the node that makes a value; None for an input of the graph."""
        return self.made.get(value)

    def source(self, node: Node) -> Node | None:
        """Return the node that makes a node's only input, if nothing else reads that."""
        if len(node.inputs) != 1:
            return None
        # The walk's own values have no readers in the graph before it, and are nobody's alone.
        reader = (
            self.graph.sole_reader(node.inputs[0]) if node.inputs[0] in self.graph.types else None
        )
        return self.producer(node.inputs[0]) if reader and reader.name == node.name else None

    def values(self, node: Node) -> NodeWeights:
        """Return a node's weight tensors, in order."""
        return tuple(self.weights[name] for name in node.params)


Rule = Callable[[Node, RewriteContext], Replacement | Bypass | None]
"""Says what becomes of a node, whose inputs are renamed already; None keeps it."""


def rewrite(model: Model, rule: Rule) -> Model:
    """Return a model in which each node has become what the rule says, without dead nodes.

    Args:
        model: What is rewritten; it stays as it is.
        rule: Says what becomes of each node. It sees what is before a node as rewritten already.

    Returns:
        A model whose values of old names mean what they did, within the bound of the pass.
    """
    graph = model.graph
    view = RewriteContext(graph, {}, dict(graph.types), dict(model.weights))
    instead: dict[str, str] = {}
    users = _users(graph)
    for old in graph.nodes:
        node = replace(old, inputs=tuple(instead.get(v, v) for v in old.inputs))
        match rule(node, view):
            case None:
                view.made[node.name] = node
            case Bypass(value):
                # Already the end of a chain: the node's inputs were renamed before the rule saw
                # them.
                instead[node.name] = value
            case Replacement() as new:
                _place(node, new, view, users)
    # An output of a bypassed node reads what the node read: its own name stays.
    outputs = tuple(replace(o, value=instead.get(o.value, o.value)) for o in graph.outputs)
    nodes = tuple(view.made.values())
    return eliminate_dead(Model(replace(graph, nodes=nodes, outputs=outputs), view.weights))


def eliminate_dead(model: Model) -> Model:
    """Return a model without the nodes and weights that no output needs."""
    graph = eliminate_dead_nodes(model.graph)
    # A pass may leave old weights behind; whoever writes a file takes all that are there.
    return Model(graph, {name: model.weights[name] for name in graph.params})


def eliminate_dead_nodes(graph: Graph) -> Graph:
    """Return a graph without the nodes that no output needs; its inputs stay."""
    needed = {output.value for output in graph.outputs}
    kept = []
    # Backwards, so that who reads a node was looked at before it.
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            kept.append(node)
    return graph if len(kept) == len(graph.nodes) else replace(graph, nodes=tuple(reversed(kept)))


def for_inference(graph: Graph) -> Graph:
    """Return the part of a graph that artifacts contain: no train-only output, no dead node."""
    outputs = tuple(output for output in graph.outputs if not output.train_only)
    return eliminate_dead_nodes(replace(graph, outputs=outputs))


def unused_name(name: str, taken: Mapping[str, object]) -> str:
    """Return a name for a new value that nothing else bears."""
    # A prime cannot stand in a name of the language: no step of a spec is ever called so.
    while name in taken:
        name += "'"
    return name


def _place(
    node: Node, new: Replacement, view: RewriteContext, users: Mapping[str, set[str]]
) -> None:
    """Put a chain of nodes in a node's place."""
    name = ""
    for step in (chain := (ChainedOp(new.op, new.weights, new.at), *new.then)):
        inputs = (name, *step.others) if name else new.inputs
        # The last of a chain bears the node's name, since it has its meaning; the others get new
        # ones.
        name = (
            node.name
            if step is chain[-1]
            else unused_name(f"{node.name}/{step.op.word}", view.types)
        )
        types = tuple(view.types[value] for value in inputs)
        params = tuple(
            _unshared(f"{name}.{param.role}", node, users) for param in step.op.params(*types)
        )
        made = Node(name, step.op, inputs, params, step.op.infer(*types), step.at)
        view.made[name] = made
        view.types[name] = made.type
        view.weights.update(zip(params, step.weights, strict=True))


def _unshared(name: str, node: Node, users: Mapping[str, set[str]]) -> str:
    """Return a name for a new tensor of a node that overwrites no other node's."""
    # A tensor that other nodes share must keep its numbers for them.
    while users.get(name, set()) - {node.name}:
        name += "'"
    return name


def _users(graph: Graph) -> Mapping[str, set[str]]:
    users: dict[str, set[str]] = {}
    for node in graph.nodes:
        for name in node.params:
            users.setdefault(name, set()).add(node.name)
    return users
