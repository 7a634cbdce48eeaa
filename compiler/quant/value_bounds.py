"""Between which numbers values lie whatever the image: there ranges end, however few were seen."""

from collections.abc import Mapping, Sequence
from math import inf

from tcc.compiler.ir.graph import Input, Model, Node
from tcc.compiler.ops import AvgPool, Border, GlobalAvgPool, Pad, Relu, Resize
from tcc.compiler.ops.elementwise import Bounds, Elementwise

ANY: Bounds = (-inf, inf)


def value_bounds(model: Model) -> Mapping[str, Bounds]:
    """Return the least and the greatest number that each value can hold, by name.

    It is a proof from the graph, never from images. A sum of products is not bounded by it, though
    it could be: bounds of sums are far from what any image reaches.

    Args:
        model: A ready model.
    """
    # One walk: a value's bounds follow from those of what it is made of.
    found = {source.name: _entering(source) for source in model.graph.inputs}
    for node in model.graph.nodes:
        found[node.name] = _made(node, [found[value] for value in node.inputs])
    return found


def _entering(source: Input) -> Bounds:
    """Return the bounds of an input: those of grey levels, if it is an image."""
    contract = source.preprocess
    if contract is None:
        return ANY
    if contract.raw:
        return 0.0, 255.0
    # Each holds one number for all channels, or one a channel.
    every = max(len(contract.mean), len(contract.std))
    means, stds = (one * (every // len(one)) for one in (contract.mean, contract.std))
    pairs = tuple(zip(means, stds, strict=True))
    return min(-mean / std for mean, std in pairs), max((1 - mean) / std for mean, std in pairs)


def _made(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    match node.op:
        case Relu():
            return max(inputs[0][0], 0.0), max(inputs[0][1], 0.0)
        # The ends of the function itself, whatever enters it: a sigmoid's 0 and 1, a relu6's 0 and
        # 6.
        case Elementwise():
            return node.op.bounds
        case Pad(value=value):
            return _hull([*inputs, (value, value)])
        case Border(values=values):
            return _hull([*inputs, (min(values), max(values))])
        case AvgPool() | GlobalAvgPool() | Resize():
            return _hull([*inputs, (0.0, 0.0)])  # a mean may be one with a border of zeros
    return _hull([*inputs, (0.0, 0.0)]) if node.op.moves else ANY


def _hull(parts: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in parts), max(high for _, high in parts)
