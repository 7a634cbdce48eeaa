"""Warnings about dead parts of a graph, and about layers, outputs and inputs without effect."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from tcc.compiler.frontend.step_scope import PathNode
from tcc.compiler.frontend.suggestions import to_channels_first
from tcc.compiler.frontend.warnings.warning_kinds import create_warning
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.graph import Graph, Input, Node, Output
from tcc.compiler.ir.image_inputs import advise_preprocess
from tcc.compiler.ops import (
    ACTIVATIONS,
    BatchNorm,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Identity,
    LayerNorm,
    Relu,
    Relu6,
    Sigmoid,
    Softmax,
)
from tcc.compiler.support.diagnostics import Diagnostic, Span

UNREPEATED_OPS: tuple[type, ...] = (
    *ACTIVATIONS,
    Softmax,
    BatchNorm,
    LayerNorm,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
)
"""Ops that make no sense twice in a row."""
MIN_STD = 1e-3
"""Smallest plausible std; 1 / 255, which undoes the division by 255, is above it."""


def find_live_values(nodes: Iterable[Node], outputs: Iterable[Output]) -> set[str]:
    """Return the names of the values that outputs need, including train-only outputs."""
    live_values = {output.value for output in outputs}
    # Nodes follow their inputs, so one walk from the end is enough.
    for node in reversed(tuple(nodes)):
        if node.name in live_values:
            live_values.update(node.inputs)
    return live_values


# -- dead parts ---------------------------------------------------------------------------------


def find_dead_steps(
    root: PathNode, nodes: Mapping[str, Node], live: Collection[str], named_values: Collection[str]
) -> Iterator[Diagnostic]:
    """Yield a warning for the last step of each chain that no output needs.

    A step that is expanded several times is dead if all its expansions are. `named_values` have
    names; `name_usage` warns about those.
    """
    # The usual case; it needs no list of path nodes.
    if all(name in live for name in nodes):
        return
    path_nodes = list(_iterate_descendants(root))
    # By location: a block that is called ten times and read once is not dead.
    live_spans = {
        path_node.at
        for path_node in path_nodes
        if any(name in live for name in _iterate_node_names(path_node))
    }
    owner: dict[str, PathNode] = {}
    for path_node in path_nodes:
        for name in () if path_node.at in live_spans else _iterate_node_names(path_node):
            owner.setdefault(name, path_node)
    for path_node in _find_last_steps(owner, nodes):
        if path_node.at and not (path_node.output and path_node.output.name in named_values):
            message = f"nothing reads the result of `{path_node.base}`"
            label = "the network is built without it"
            help = "name it with `as` and read it, make it an output, or remove it"
            yield create_warning("unused-branch", message, path_node.at, label=label, help=help)


def _find_last_steps(
    owner: Mapping[str, PathNode], nodes: Mapping[str, Node]
) -> Iterator[PathNode]:
    """Yield the path nodes that no other one reads."""
    last_steps = {id(path_node): path_node for path_node in owner.values()}
    # Only the last step of a dead chain is reported; earlier ones are dead because of it.
    for name, path_node in owner.items():
        for input_name in nodes[name].inputs:
            source = owner.get(input_name)
            if source is not None and source is not path_node:
                last_steps.pop(id(source), None)
    yield from last_steps.values()


def _iterate_descendants(root: PathNode) -> Iterator[PathNode]:
    """Yield the descendants of a path node, outer ones first."""
    pending = list(reversed(root.children))
    while pending:
        path_node = pending.pop()
        yield path_node
        pending += reversed(path_node.children)


def _iterate_node_names(path_node: PathNode) -> Iterator[str]:
    if path_node.node is not None:
        yield path_node.node
    yield from (inner.node for inner in _iterate_descendants(path_node) if inner.node is not None)


# -- layers -------------------------------------------------------------------------------------


def find_repeated_ops(graph: Graph) -> Iterator[Diagnostic]:
    """Yield layers that directly follow the same op, and softmax over a single number."""
    nodes_by_name = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        previous = nodes_by_name.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if previous is not None and _is_repetition(previous, node):
            message = f"`{node.op.keyword}` directly follows `{previous.op.keyword}`"
            label = f"the first one is at {previous.at}"
            help = "remove one of them"
            yield create_warning("repeated-op", message, node.at, label=label, help=help)
        if isinstance(node.op, Softmax) and node.type.shape[0] == 1:
            yield _create_constant_warning(node.at)


def _is_repetition(previous: Node, node: Node) -> bool:
    if not isinstance(node.op, UNREPEATED_OPS):
        return False
    # A relu next to a relu6 has no effect.
    clamps = (Relu, Relu6)
    both = isinstance(previous.op, clamps) and isinstance(node.op, clamps)
    return both or type(previous.op) is type(node.op)


def _create_constant_warning(at: Span) -> Diagnostic:
    help = "use `sigmoid` for one probability, or two numbers for two classes"
    return create_warning("constant-output", "a softmax over one number is always 1", at, help=help)


# -- outputs ------------------------------------------------------------------------------------


def find_output_warnings(graph: Graph, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield outputs with a repeated or constant activation, and equal outputs."""
    nodes_by_name = {node.name: node for node in graph.nodes}
    first_outputs: dict[tuple[str, str], str] = {}
    for output in graph.outputs:
        key, at = _find_output_spans(tree, output.name)
        if at and output.activation in ("softmax", "sigmoid"):
            yield from _find_double_activation(output, nodes_by_name, at)
            if output.activation == "softmax" and graph.types[output.value].shape[0] == 1:
                yield _create_constant_warning(at)
        twin = first_outputs.setdefault((output.value, output.activation), output.name)
        if twin != output.name and key:
            message = f"the outputs `{twin}` and `{output.name}` are the same value"
            help = "read another value with `from`, or remove one of them"
            yield create_warning("same-output", message, key, help=help)


def _find_output_spans(tree: Tree | None, name: str) -> tuple[Span | None, Span | None]:
    """Return the locations of the name and the activation of an output."""
    if not isinstance(tree, MappingTree):
        return None, None
    key, body = tree.get_key(name), tree.get(name)
    activation = body.get("activation") if isinstance(body, MappingTree) else None
    return key.span if key else None, activation.span if activation else None


def _find_double_activation(
    output: Output, nodes_by_name: Mapping[str, Node], at: Span
) -> Iterator[Diagnostic]:
    node = nodes_by_name.get(output.value)
    # Steps that do not change values at inference.
    while node is not None and isinstance(node.op, Flatten | Identity | Dropout):
        node = nodes_by_name.get(node.inputs[0])
    if node is not None and isinstance(node.op, Softmax | Sigmoid):
        message = f"`{output.activation}` is applied to the result of `{node.op.keyword}`"
        label = f"that step is at {node.at}"
        help = "remove the step: the output applies its activation itself"
        yield create_warning("double-activation", message, at, label=label, help=help)


# -- the input ----------------------------------------------------------------------------------


def find_channels_last(network_input: Input, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield an input shape that looks like height, width, channels."""
    body = tree.items[0][1] if isinstance(tree, MappingTree) else None
    shape_tree = body.get("shape") if isinstance(body, MappingTree) else None
    corrected_shape = to_channels_first(network_input.type.shape)
    if shape_tree is not None and corrected_shape:
        channels, _, width = network_input.type.shape
        message = f"the input has {channels} channels and is {width} wide"
        help = f"channels come first: write {corrected_shape} if you mean that"
        yield create_warning("channels-last", message, shape_tree.span, help=help)


def find_missing_preprocess(network_input: Input, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield an input with the shape of an image but no `preprocess`."""
    advice = advise_preprocess(network_input.name, network_input.type.shape)
    key = tree.items[0][0] if isinstance(tree, MappingTree) else None
    if network_input.preprocess is None and advice and key is not None:
        message = f"no `preprocess` converts an image to the input `{network_input.name}`"
        label = "the artifact only takes tensors: `tcc run` and `tcc train` reject images"
        yield create_warning("no-preprocess", message, key.span, label=label, help=advice)


def find_implausible_statistics(network_input: Input, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield a mean or std that pixel values divided by 255 cannot have."""
    body = tree.items[0][1] if isinstance(tree, MappingTree) else None
    steps = body.get("preprocess") if isinstance(body, MappingTree) else None
    if network_input.preprocess is None or not isinstance(steps, MappingTree):
        return
    for name, values in (
        ("mean", network_input.preprocess.mean),
        ("std", network_input.preprocess.std),
    ):
        # Values between 0 and 1 have a mean in that range and a std of at most 0.5.
        min_plausible = 0 if name == "mean" else MIN_STD
        for at, value in _locate_numbers(steps.get(name), values):
            if not min_plausible <= value <= 1:
                message = f"pixels between 0 and 1 cannot have the {name} {value:g}"
                fix = "measure it on such pixels"
                if network_input.preprocess.scale == "255" and value <= 255:
                    fix = f"write {value / 255:.4g}"
                help = f"pixels are scaled to [0, 1] first: {fix}"
                yield create_warning(
                    "pixel-statistics", message, at, help=help if value > 1 else ""
                )


def _locate_numbers(tree: Tree | None, values: tuple[float, ...]) -> Iterator[tuple[Span, float]]:
    """Yield numbers with their locations."""
    if isinstance(tree, Sequence) and len(tree.items) == len(values):
        yield from ((item.span, value) for item, value in zip(tree.items, values, strict=True))
    elif isinstance(tree, Scalar | Sequence):
        yield from ((tree.span, value) for value in values)
