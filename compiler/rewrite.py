"""One walk that replaces nodes, and the removal of what nothing reads any more.

A value keeps its name and its meaning through every rewrite: a node that swallows others bears
the name of the last of them, so that stages can be compared value by value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.graph import Graph, Model, Node
from tcc.compiler.ops.base import Op
from tcc.compiler.source import Span

Values = tuple[NDArray[np.float32], ...]
"""The weight tensors of one node, in order."""
Lookup = Callable[[Node], Values]


@dataclass(frozen=True, slots=True)
class Become:
    """Another op stands in a node's place; `weights` are the values of its tensors, in order."""

    op: Op
    inputs: tuple[str, ...]
    weights: Values
    at: Span


@dataclass(frozen=True, slots=True)
class Vanish:
    """Nothing stands in a node's place: its readers read `value` instead."""

    value: str


Rule = Callable[[Node, Node | None, Lookup], Become | Vanish | None]
"""Says what becomes of a node; None keeps it.

Given the node, the node that makes its only input if nothing else reads that, and what looks up
the weights of either.
"""


def rewrite(model: Model, rule: Rule) -> Model:
    """Return a model in which each node has become what the rule says, without dead nodes.

    Nodes are visited in order, so that a rule sees its source as rewritten already.
    """
    graph, weights = model.graph, dict(model.weights)
    made: dict[str, Node] = {}
    instead: dict[str, str] = {}
    users = _users(graph)

    def values(node: Node) -> Values:
        return tuple(weights[name] for name in node.params)

    for old in graph.nodes:
        node = replace(old, inputs=tuple(instead.get(v, v) for v in old.inputs))
        match rule(node, _sole_source(node, graph, made), values):
            case None:
                made[node.name] = node
            case Vanish(value):
                instead[node.name] = value
            case Become() as new:
                made[node.name] = _replaced(node, new, graph, users)
                weights.update(zip(made[node.name].params, new.weights, strict=True))
    outputs = tuple(replace(o, value=instead.get(o.value, o.value)) for o in graph.outputs)
    return live(Model(replace(graph, nodes=tuple(made.values()), outputs=outputs), weights))


def live(model: Model) -> Model:
    """Return a model without the nodes and weights that no output needs."""
    graph = live_graph(model.graph)
    return Model(graph, {name: model.weights[name] for name in graph.params})


def live_graph(graph: Graph) -> Graph:
    """Return a graph without the nodes that no output needs; its inputs stay."""
    needed = {output.value for output in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            kept.append(node)
    return graph if len(kept) == len(graph.nodes) else replace(graph, nodes=tuple(reversed(kept)))


def for_inference(graph: Graph) -> Graph:
    """Return the part of a graph that artifacts contain: no train-only output, no dead node."""
    outputs = tuple(output for output in graph.outputs if not output.train_only)
    return live_graph(replace(graph, outputs=outputs))


def _sole_source(node: Node, graph: Graph, made: Mapping[str, Node]) -> Node | None:
    if len(node.inputs) != 1:
        return None
    reader = graph.sole_reader(node.inputs[0])
    return made.get(node.inputs[0]) if reader and reader.name == node.name else None


def _replaced(node: Node, new: Become, graph: Graph, users: Mapping[str, set[str]]) -> Node:
    types = tuple(graph.types[value] for value in new.inputs)
    names = tuple(
        _unshared(f"{node.name}.{param.role}", node, users) for param in new.op.params(*types)
    )
    return Node(node.name, new.op, new.inputs, names, node.type, new.at)


def _unshared(name: str, node: Node, users: Mapping[str, set[str]]) -> str:
    """Return a name for a new tensor of a node that overwrites no other node's."""
    while users.get(name, set()) - {node.name}:
        name += "'"
    return name


def _users(graph: Graph) -> Mapping[str, set[str]]:
    users: dict[str, set[str]] = {}
    for node in graph.nodes:
        for name in node.params:
            users.setdefault(name, set()).add(node.name)
    return users
