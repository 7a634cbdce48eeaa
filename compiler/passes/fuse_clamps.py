"""Remove clamps without effect, merge clamps in a row, and move clamps next to their layer."""

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

    A clamp is removed if its input is already in range, or if a later clamp overrides it. A clamp
    after a max pooling of a convolution or sum moves before the pooling, where a device fuses it
    with that layer. Identity: exact.
    """
    return rewrite(model, _Rule())


def infer_ranges(graph: Graph) -> Mapping[str, Bounds]:
    """Return the range of each node's value that holds for all inputs and weights."""
    range_by_value: dict[str, Bounds] = {}
    for node in graph.nodes:
        input_ranges = tuple(range_by_value.get(value, (-inf, inf)) for value in node.inputs)
        range_by_value[node.name] = _infer_range(node.op, input_ranges)
    return range_by_value


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule, with the ranges of the values that it has seen."""

    ranges: dict[str, Bounds] = field(default_factory=dict)

    def __call__(self, node: Node, context: RewriteContext) -> Replacement | Bypass | None:
        input_ranges = tuple(self.ranges.get(value, (-inf, inf)) for value in node.inputs)
        # Inferred during the walk, in graph order: no second walk is needed.
        self.ranges[node.name] = _infer_range(node.op, input_ranges)
        match node.op:
            case Relu() | Relu6() | LeakyRelu() if _is_redundant_clamp(node.op, input_ranges[0]):
                return Bypass(node.inputs[0])
            case Relu() | Relu6():
                return _merge_clamps(node, context) or _swap_with_pool(node, context)
        return None


def _is_redundant_clamp(op: Op, input_range: Bounds) -> bool:
    low, high = input_range
    # A leaky relu does not change non-negative values, so it is handled like a relu.
    return low >= 0 and (high <= 6 or not isinstance(op, Relu6))


def _merge_clamps(node: Node, context: RewriteContext) -> Replacement | None:
    """Return a clamp that reads the input of an earlier one, if that one makes no difference."""
    match context.find_producer(node.inputs[0]):
        # Such a function keeps every sign and all positive values, so the later clamp alone
        # decides. A negative slope would turn negative numbers into positive ones.
        case Node(op=Relu() | LeakyRelu()) as earlier_clamp if not _has_negative_slope(
            earlier_clamp.op
        ):
            return Replacement(node.op, earlier_clamp.inputs, (), node.at)
    return None


def _has_negative_slope(op: Op) -> bool:
    return isinstance(op, LeakyRelu) and op.slope < 0


def _swap_with_pool(node: Node, context: RewriteContext) -> Replacement | None:
    """Return a max pooling of clamped values, which equals the clamp of the pooled ones.

    A clamp never changes which of two numbers is larger, so both orders give the same result.
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
    """Return the range of an op's result, given those of its inputs, including rounding."""
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
        # Rounding changes no sign, but may exceed an upper bound: a mean of equal numbers may
        # round above them, and a sum may overflow.
        case (
            AvgPool() | GlobalAvgPool() | Add() | Mul() | Resize(mode="bilinear") | LeakyRelu()
        ) if low >= 0:
            return 0.0, inf
        case Elementwise():
            return op.bounds
    return -inf, inf
