"""Parts of a graph that no output needs, and layers, outputs and inputs that undo themselves."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from tcc.compiler.frontend.step_scope import PathNode
from tcc.compiler.frontend.suggestions import channels_first
from tcc.compiler.frontend.warnings.warning_kinds import warning
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

ONCE: tuple[type, ...] = (
    *ACTIVATIONS,
    Softmax,
    BatchNorm,
    LayerNorm,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
)
"""Ops that nobody means to apply twice in a row."""
SMALLEST = 1e-3
"""The least std that is plausible; 1 / 255, which undoes the division by 255, is above it."""


def needed(nodes: Iterable[Node], outputs: Iterable[Output]) -> set[str]:
    """Return the names of the values that outputs need, train-only ones included."""
    found = {output.value for output in outputs}
    # Nodes come after what they read: one walk from the end.
    for node in reversed(tuple(nodes)):
        if node.name in found:
            found.update(node.inputs)
    return found


# -- dead parts ---------------------------------------------------------------------------------


def dead(
    root: PathNode, nodes: Mapping[str, Node], live: Collection[str], told: Collection[str]
) -> Iterator[Diagnostic]:
    """Yield the steps, none of whose nodes an output needs, at the ends of what they lead to.

    A step that is written once and used often is dead where all its uses are. `told` are values
    with names, of which the text says whether anything reads them.
    """
    # The usual case, in which no list of places is made.
    if all(name in live for name in nodes):
        return
    places = list(_below(root))
    # By the place in the text: a block that is used ten times and read once is no dead text.
    alive = {place.at for place in places if any(name in live for name in _nodes(place))}
    owner: dict[str, PathNode] = {}
    for place in places:
        for name in () if place.at in alive else _nodes(place):
            owner.setdefault(name, place)
    for place in _ends(owner, nodes):
        if place.at and not (place.result and place.result.name in told):
            message = f"nothing reads what `{place.base}` gives"
            label = "the network is built without it"
            help = "name it with `as` and read it, make it an output, or leave it away"
            yield warning("unused-branch", message, place.at, label=label, help=help)


def _ends(owner: Mapping[str, PathNode], nodes: Mapping[str, Node]) -> Iterator[PathNode]:
    """Yield the places that no other one reads."""
    ends = {id(place): place for place in owner.values()}
    # Only the last step of a dead chain is told: what leads to it is dead for that reason.
    for name, place in owner.items():
        for value in nodes[name].inputs:
            source = owner.get(value)
            if source is not None and source is not place:
                ends.pop(id(source), None)
    yield from ends.values()


def _below(root: PathNode) -> Iterator[PathNode]:
    """Yield the places below one, outer ones first."""
    pending = list(reversed(root.children))
    while pending:
        place = pending.pop()
        yield place
        pending += reversed(place.children)


def _nodes(place: PathNode) -> Iterator[str]:
    if place.node is not None:
        yield place.node
    yield from (inner.node for inner in _below(place) if inner.node is not None)


# -- layers -------------------------------------------------------------------------------------


def repeated(graph: Graph) -> Iterator[Diagnostic]:
    """Yield layers right after the same ones, and softmax over a single number."""
    makers = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        before = makers.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if before is not None and _again(before, node):
            message = f"`{node.op.word}` comes right after `{before.op.word}`"
            label = f"which is at {before.at}"
            help = "leave one away"
            yield warning("repeated-op", message, node.at, label=label, help=help)
        if isinstance(node.op, Softmax) and node.type.shape[0] == 1:
            yield _constant(node.at)


def _again(before: Node, node: Node) -> bool:
    if not isinstance(node.op, ONCE):
        return False
    # A relu of a relu6, or the other way round, does what the relu6 does alone.
    clamps = (Relu, Relu6)
    both = isinstance(before.op, clamps) and isinstance(node.op, clamps)
    return both or type(before.op) is type(node.op)


def _constant(at: Span) -> Diagnostic:
    help = "one number that is a probability is `sigmoid`; two classes are two numbers"
    return warning("constant-output", "a softmax over one number is always 1", at, help=help)


# -- outputs ------------------------------------------------------------------------------------


def outputs(graph: Graph, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield outputs whose activation is there already or says nothing, and equal outputs."""
    makers = {node.name: node for node in graph.nodes}
    first: dict[tuple[str, str], str] = {}
    for output in graph.outputs:
        key, at = _places(tree, output.name)
        if at and output.activation in ("softmax", "sigmoid"):
            yield from _twice(output, makers, at)
            if output.activation == "softmax" and graph.types[output.value].shape[0] == 1:
                yield _constant(at)
        twin = first.setdefault((output.value, output.activation), output.name)
        if twin != output.name and key:
            message = f"the outputs `{twin}` and `{output.name}` are the same value"
            help = "name another value with `from`, or leave one away"
            yield warning("same-output", message, key, help=help)


def _places(tree: Tree | None, name: str) -> tuple[Span | None, Span | None]:
    """Return the places of an output's name and of its activation."""
    if not isinstance(tree, MappingTree):
        return None, None
    key, body = tree.key(name), tree.get(name)
    activation = body.get("activation") if isinstance(body, MappingTree) else None
    return key.span if key else None, activation.span if activation else None


def _twice(output: Output, makers: Mapping[str, Node], at: Span) -> Iterator[Diagnostic]:
    node = makers.get(output.value)
    # Steps that pass every number on at inference.
    while node is not None and isinstance(node.op, Flatten | Identity | Dropout):
        node = makers.get(node.inputs[0])
    if node is not None and isinstance(node.op, Softmax | Sigmoid):
        message = f"`{output.activation}` is applied to what went through `{node.op.word}` already"
        label = f"that is at {node.at}"
        help = "the activation of an output comes after its raw value: leave the step away"
        yield warning("double-activation", message, at, label=label, help=help)


# -- the input ----------------------------------------------------------------------------------


def shape(source: Input, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield an input shape that looks like height, width, channels."""
    body = tree.items[0][1] if isinstance(tree, MappingTree) else None
    given = body.get("shape") if isinstance(body, MappingTree) else None
    meant = channels_first(source.type.shape)
    if given is not None and meant:
        channels, _, width = source.type.shape
        message = f"the input has {channels} channels and is {width} wide"
        help = f"channels come first: write {meant} if that is meant"
        yield warning("channels-last", message, given.span, help=help)


def find_missing_preprocess(source: Input, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield an input of an image's shape without `preprocess`, so that no image becomes it."""
    advice = advise_preprocess(source.name, source.type.shape)
    key = tree.items[0][0] if isinstance(tree, MappingTree) else None
    if source.preprocess is None and advice and key is not None:
        message = f"nothing says how an image becomes the input `{source.name}`"
        label = "what is built takes tensors alone: `tcc run` and `tcc train` refuse images"
        yield warning("no-preprocess", message, key.span, label=label, help=advice)


def pixels(source: Input, tree: Tree | None) -> Iterator[Diagnostic]:
    """Yield a mean or std that no pixel values, divided by 255, have."""
    body = tree.items[0][1] if isinstance(tree, MappingTree) else None
    steps = body.get("preprocess") if isinstance(body, MappingTree) else None
    if source.preprocess is None or not isinstance(steps, MappingTree):
        return
    for name, values in (("mean", source.preprocess.mean), ("std", source.preprocess.std)):
        # Means of values between 0 and 1 are such values; their deviation is at most one half.
        least = 0 if name == "mean" else SMALLEST
        for at, value in _numbers(steps.get(name), values):
            if not least <= value <= 1:
                message = f"no pixels between 0 and 1 have the {name} {value:g}"
                help = f"pixels are divided by 255 first; of grey levels, {_scaled(value)}"
                yield warning("pixel-statistics", message, at, help=help if value > 1 else "")


def _scaled(value: float) -> str:
    return f"write {value / 255:.4g}" if value <= 255 else "it is beyond white"


def _numbers(tree: Tree | None, values: tuple[float, ...]) -> Iterator[tuple[Span, float]]:
    """Yield numbers with their places."""
    if isinstance(tree, Sequence) and len(tree.items) == len(values):
        yield from ((item.span, value) for item, value in zip(tree.items, values, strict=True))
    elif isinstance(tree, Scalar | Sequence):
        yield from ((tree.span, value) for value in values)
