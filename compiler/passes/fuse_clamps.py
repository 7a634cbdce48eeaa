"""Leave out clamps that clamp nothing, join those in a row, and put them next to their layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from tcc.compiler.ir.graph import Graph, Model, Node, exact_pass
from tcc.compiler.ir.rewrite import Bypass, ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    Concat,
    Conv,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool,
    Mul,
    Op,
    Pad,
    Relu,
    Relu6,
    Resize,
    Slice,
    Unflatten,
)
from tcc.compiler.ops.elementwise import Bounds, Elementwise


@exact_pass
def fuse_clamps(model: Model) -> Model:
    """Remove clamps that have no effect, and move others next to their layer.

    One whose input is in range already goes, as does one that another overrides; one after a max
    pooling of a convolution or sum comes before it, where it is part of that layer on a device.
    Identity: exact.
    """
    return rewrite(model, _Rule())


def infer_ranges(graph: Graph) -> Mapping[str, Bounds]:
    """Return what the value of each node lies between, whatever the input and the weights."""
    range_by_value: dict[str, Bounds] = {}
    for node in graph.nodes:
        input_ranges = tuple(range_by_value.get(value, (-inf, inf)) for value in node.inputs)
        range_by_value[node.name] = _infer_range(node.op, input_ranges)
    return range_by_value


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule, and what is known of the values that it has met."""

    ranges: dict[str, Bounds] = field(default_factory=dict)

    def __call__(self, node: Node, context: RewriteContext) -> Replacement | Bypass | None:
        input_ranges = tuple(self.ranges.get(value, (-inf, inf)) for value in node.inputs)
        # Learnt on the way, in the graph's order: no second walk.
        self.ranges[node.name] = _infer_range(node.op, input_ranges)
        match node.op:
            case Relu() | Relu6() | LeakyRelu() if _is_redundant_clamp(node.op, input_ranges[0]):
                return Bypass(node.inputs[0])
            case Relu() | Relu6():
                return _merge_clamps(node, context) or _swap_with_pool(node, context)
        return None


def _is_redundant_clamp(op: Op, input_range: Bounds) -> bool:
    low, high = input_range
    # A leaky relu leaves what is not negative as it is, and so counts with the relu.
    return low >= 0 and (high <= 6 or not isinstance(op, Relu6))


def _merge_clamps(node: Node, context: RewriteContext) -> Replacement | None:
    """Return a clamp that reads what an earlier one read, where that has no effect on it."""
    match context.find_producer(node.inputs[0]):
        # Such a function keeps every sign, and what is positive as it is: the later clamp alone
        # decides. A negative slope would turn negative numbers into positive ones.
        case Node(op=Relu() | LeakyRelu()) as earlier_clamp if not _has_negative_slope(
            earlier_clamp.op
        ):
            return Replacement(node.op, earlier_clamp.inputs, (), node.at)
    return None


def _has_negative_slope(op: Op) -> bool:
    return isinstance(op, LeakyRelu) and op.slope < 0


def _swap_with_pool(node: Node, context: RewriteContext) -> Replacement | None:
    """Return a max pooling of the clamped values, which is the same as the pooling clamped.

    A clamp never changes which of two numbers is the larger, so that both orders give one result.
    """
    match context.find_sole_producer(node):
        case Node(op=MaxPool()) as pool:
            match context.find_sole_producer(pool):
                case Node(op=Conv() | ConvTranspose() | Add()):
                    return Replacement(
                        node.op, pool.inputs, (), node.at, (ChainedOp(pool.op, (), pool.at),)
                    )
    return None


def _infer_range(op: Op, input_ranges: tuple[Bounds, ...]) -> Bounds:
    """Return the range of an op's result, given those of its inputs; rounding included."""
    low, high = min(k[0] for k in input_ranges), max(k[1] for k in input_ranges)
    match op:
        case Relu() | Relu6():
            upper_bound = 6.0 if isinstance(op, Relu6) else inf
            return min(max(low, 0.0), upper_bound), min(max(high, 0.0), upper_bound)
        case (
            MaxPool() | GlobalMaxPool() | Concat() | Flatten() | Unflatten() | Slice()
            | ChannelShuffle() | Resize(mode="nearest")
        ):  # fmt: skip
            return low, high
        case Pad(value=fill):
            return min(low, fill), max(high, fill)
        # Rounding changes no sign, but keeps no upper bound: a mean of equal numbers may round
        # above them, and a sum may overflow.
        case (
            AvgPool() | GlobalAvgPool() | Add() | Mul() | Resize(mode="bilinear") | LeakyRelu()
        ) if low >= 0:
            return 0.0, inf
        case Elementwise():
            return op.bounds
    return -inf, inf
