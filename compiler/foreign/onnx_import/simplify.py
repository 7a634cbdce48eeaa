"""What exporters take apart is put together, as a person would have written it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tcc.compiler.foreign.onnx_import.graph_builder import Tensor, UniqueNames
from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.rewrite import (
    Bypass,
    Replacement,
    RewriteContext,
    Rule,
    eliminate_dead,
    rewrite,
)
from tcc.compiler.ops import Concat, Conv, ConvTranspose, Linear, Scale, ScaleShift
from tcc.compiler.support.diagnostics import NOWHERE


def simplify(model: Model, wished: Mapping[str, str]) -> tuple[Model, Mapping[str, str]]:
    """Return a model of fewer steps, and the values of the old one by what they are called now.

    Each step is called as it is wished to be, with a number where several are. A value that is no
    more stands for the first one that was made of it.

    A constant added to a layer without bias becomes its bias; a product and a sum with constants
    become one step; a concat that begins with what another one joins, as in dense blocks,
    reads that one. Identity: exact, but for the rounding of a bias.
    """
    small = eliminate_dead(rewrite(rewrite(model, _affine), _prefixes()))
    after = _survivors(model.graph, {node.name for node in small.graph.nodes})
    ends = (*(i.name for i in small.graph.inputs), *(o.name for o in small.graph.outputs))
    names = UniqueNames(ends)
    wishes = _wishes(model.graph, after, wished)
    fresh = {
        node.name: names.fresh(wishes.get((node.name, node.op.word)) or node.op.word)
        for node in small.graph.nodes
    }
    return _renamed(small, fresh), {old: fresh.get(name, "") for old, name in after.items()}


def _wishes(
    graph: Graph, after: Mapping[str, str], wished: Mapping[str, str]
) -> Mapping[tuple[str, str], str]:
    """Return what the steps that became one of an op wished to be called, by its name and op."""
    found: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        if wished[node.name]:
            found[after[node.name], node.op.word] = wished[node.name]
    return found


def _renamed(model: Model, fresh: Mapping[str, str]) -> Model:
    def called(value: str) -> str:
        return fresh.get(value, value)

    nodes: list[Node] = []
    weights: dict[str, Tensor] = {}
    for node in model.graph.nodes:
        name = fresh[node.name]
        roles = [param.role for param in node.op.params(*model.graph.input_types(node))]
        params = tuple(f"{name}.{role}" for role in roles)
        weights.update(zip(params, (model.weights[p] for p in node.params), strict=True))
        inputs = tuple(map(called, node.inputs))
        nodes.append(replace(node, name=name, inputs=inputs, params=params))
    outputs = tuple(replace(o, value=called(o.value)) for o in model.graph.outputs)
    return Model(replace(model.graph, nodes=tuple(nodes), outputs=outputs), weights)


def _survivors(graph: Graph, kept: set[str]) -> Mapping[str, str]:
    """Return the first of the kept values that is made of each; empty where there is none."""
    found: dict[str, str] = {}
    for node in reversed(graph.nodes):
        # Backwards, so that a reader's own fate is known: one step for each node.
        reader = graph.readers[node.name][:1]
        found[node.name] = (
            node.name if node.name in kept else "".join(found[r.name] for r in reader)
        )
    return found


def _affine(node: Node, view: RewriteContext) -> Replacement | Bypass | None:
    match node.op, view.source(node):
        case Scale(factor=1.0, offset=0.0), _:
            return Bypass(node.inputs[0])
        case Scale(factor=1.0, offset=offset), Node(op=Scale(factor=factor, offset=0.0)) as before:
            return Replacement(Scale(factor, offset), before.inputs, (), NOWHERE)
        case ScaleShift(), Node() as before:
            return _shifted(node, before, view)
    return None


def _shifted(node: Node, source: Node, view: RewriteContext) -> Replacement | None:
    """Return a layer with what is added after it as its bias."""
    (weight, bias), before = view.values(node), view.values(source)
    # Only a sum: a product would have to be multiplied into the layer's weights, which then are not
    # those of the file any more.
    if (weight != 1).any():
        return None
    match source.op:
        case ScaleShift():
            joined = Replacement(ScaleShift(), source.inputs, (before[0], bias), NOWHERE)
            # x * a + 0, then * 1 + b: one step. With an offset before it, two would have to be
            # added.
            return None if before[1].any() else joined
        case Conv(bias=False) | ConvTranspose(bias=False) | Linear(bias=False) as layer:
            tensors = (*before, np.ascontiguousarray(bias.reshape(-1)))
            return Replacement(replace(layer, bias=True), source.inputs, tensors, NOWHERE)
    return None


def _prefixes() -> Rule:
    """Return the rule that lets a concat read an earlier one of its first values."""
    known: dict[tuple[str, ...], str] = {}

    def rule(node: Node, _: RewriteContext) -> Replacement | Bypass | None:
        if not isinstance(node.op, Concat):
            return None
        # The same values joined twice: one concat does.
        if node.inputs in known:
            return Bypass(known[node.inputs])
        known[node.inputs] = node.name
        # The longest known beginning first, so that the most is shared.
        # DenseNet joins 2, 3, 4 ... values one after another, as PyTorch's module does each time
        # anew; reading the join before makes it linear.
        for count in range(len(node.inputs) - 1, 1, -1):
            first = known.get(node.inputs[:count])
            if first is not None:
                return Replacement(Concat(), (first, *node.inputs[count:]), (), NOWHERE)
        return None

    return rule
