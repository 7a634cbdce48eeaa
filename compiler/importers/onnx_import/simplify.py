"""Simplify an imported model: merge operations that exporters split."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tcc.compiler.importers.onnx_import.graph_builder import Tensor, UniqueNames
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


def simplify(model: Model, preferred_names: Mapping[str, str]) -> tuple[Model, Mapping[str, str]]:
    """Return a simplified model, and the new name of each old value.

    Each step gets its preferred name, with a number if several steps prefer the same one. A
    removed value maps to the first remaining value computed from it.

    A constant added to a layer without bias becomes its bias. A product and a sum with constants
    become one step. A concat that begins with the inputs of another concat reads that one, as in
    dense blocks. Exact, except for the rounding of a bias.
    """
    small = eliminate_dead(rewrite(rewrite(model, _simplify_affine), _make_prefix_rule()))
    survivor_by_name = _find_survivors(model.graph, {node.name for node in small.graph.nodes})
    io_names = (*(i.name for i in small.graph.inputs), *(o.name for o in small.graph.outputs))
    names = UniqueNames(io_names)
    names_by_step = _collect_preferred_names(model.graph, survivor_by_name, preferred_names)
    new_names = {
        node.name: names.make_unique(
            names_by_step.get((node.name, node.op.keyword)) or node.op.keyword
        )
        for node in small.graph.nodes
    }
    return _rename_steps(small, new_names), {
        old_name: new_names.get(name, "") for old_name, name in survivor_by_name.items()
    }


def _collect_preferred_names(
    graph: Graph, survivor_by_name: Mapping[str, str], preferred_names: Mapping[str, str]
) -> Mapping[tuple[str, str], str]:
    """Return the preferred name of each merged step, by its name and op."""
    names_by_step: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        if preferred_names[node.name]:
            names_by_step[survivor_by_name[node.name], node.op.keyword] = preferred_names[node.name]
    return names_by_step


def _rename_steps(model: Model, new_names: Mapping[str, str]) -> Model:
    def get_new_name(value: str) -> str:
        return new_names.get(value, value)

    nodes: list[Node] = []
    weights: dict[str, Tensor] = {}
    for node in model.graph.nodes:
        name = new_names[node.name]
        roles = [param.role for param in node.op.params(*model.graph.get_input_types(node))]
        params = tuple(f"{name}.{role}" for role in roles)
        weights.update(zip(params, (model.weights[p] for p in node.params), strict=True))
        inputs = tuple(map(get_new_name, node.inputs))
        nodes.append(replace(node, name=name, inputs=inputs, params=params))
    outputs = tuple(replace(o, value=get_new_name(o.value)) for o in model.graph.outputs)
    return Model(replace(model.graph, nodes=tuple(nodes), outputs=outputs), weights)


def _find_survivors(graph: Graph, kept_names: set[str]) -> Mapping[str, str]:
    """Return the first kept value computed from each value; empty if there is none."""
    survivor_by_name: dict[str, str] = {}
    for node in reversed(graph.nodes):
        # In reverse order, so that each reader is already resolved.
        reader = graph.readers[node.name][:1]
        survivor_by_name[node.name] = (
            node.name
            if node.name in kept_names
            else "".join(survivor_by_name[r.name] for r in reader)
        )
    return survivor_by_name


def _simplify_affine(node: Node, context: RewriteContext) -> Replacement | Bypass | None:
    match node.op, context.find_sole_producer(node):
        case Scale(factor=1.0, offset=0.0), _:
            return Bypass(node.inputs[0])
        case Scale(factor=1.0, offset=offset), Node(op=Scale(factor=factor, offset=0.0)) as source:
            return Replacement(Scale(factor, offset), source.inputs, (), NOWHERE)
        case ScaleShift(), Node() as source:
            return _fold_into_bias(node, source, context)
    return None


def _fold_into_bias(node: Node, source: Node, context: RewriteContext) -> Replacement | None:
    """Return a layer with the constant added after it as its bias."""
    (weight, bias), source_weights = context.get_weights(node), context.get_weights(source)
    # Only sums: a product would change the layer's weights, and they would differ from those of
    # the file.
    if (weight != 1).any():
        return None
    match source.op:
        case ScaleShift():
            replacement = Replacement(
                ScaleShift(), source.inputs, (source_weights[0], bias), NOWHERE
            )
            # x * a + 0, then * 1 + b: one step. With an offset in the first step, two offsets would
            # have to be added.
            return None if source_weights[1].any() else replacement
        case Conv(bias=False) | ConvTranspose(bias=False) | Linear(bias=False) as layer:
            tensors = (*source_weights, np.ascontiguousarray(bias.reshape(-1)))
            return Replacement(replace(layer, bias=True), source.inputs, tensors, NOWHERE)
    return None


def _make_prefix_rule() -> Rule:
    """Return the rule that lets a concat read an earlier concat of its first values."""
    concat_by_inputs: dict[tuple[str, ...], str] = {}

    def merge_concat(node: Node, _: RewriteContext) -> Replacement | Bypass | None:
        if not isinstance(node.op, Concat):
            return None
        # The same values joined twice: reuse the first concat.
        if node.inputs in concat_by_inputs:
            return Bypass(concat_by_inputs[node.inputs])
        concat_by_inputs[node.inputs] = node.name
        # The longest known prefix first, to share the most. DenseNet joins 2, 3, 4 ... values, and
        # PyTorch's module joins all of them each time. Reusing the previous join makes it linear.
        for count in range(len(node.inputs) - 1, 1, -1):
            prefix = concat_by_inputs.get(node.inputs[:count])
            if prefix is not None:
                return Replacement(Concat(), (prefix, *node.inputs[count:]), (), NOWHERE)
        return None

    return merge_concat
