"""The float form of a layer of an integer program, and the scales that make its integers of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, make_node
from tcc.compiler.ir.op import Op
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import Add, Conv, GlobalAvgPool, GlobalMaxPool, Mul, Pad, Relu, Relu6, Slice
from tcc.compiler.ops.integer import (
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    Quantized,
    Table,
)
from tcc.compiler.quant.calibration import Range, RoundedWeights

Array = NDArray[Any]
OFFSET = 128


class UnspokenError(Exception):
    """The language has no words for a layer."""


def segment(graph: Graph, name: str, shown: frozenset[str]) -> tuple[list[Node], list[str]]:
    """Return the nodes from the last values that were seen to be right up to one, and these."""
    made = {node.name: node for node in graph.nodes}
    nodes: dict[str, Node] = {}
    ends: dict[str, None] = {}
    waiting = [name]
    while waiting:
        value = waiting.pop()
        if value in nodes:
            continue
        if value not in made or (value in shown and value != name):
            ends[value] = None
            continue
        nodes[value] = made[value]
        waiting += made[value].inputs
    order = [node for node in graph.nodes if node.name in nodes]
    return order, [value for value in graph.types if value in ends]


@dataclass(frozen=True)
class SpokenLayer:
    """The float graph of a layer while it grows, and the scales that make its integers of it."""

    said: Mapping[str, str]
    types: dict[str, TensorType]
    inputs: list[Input] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    rounded: dict[str, RoundedWeights] = field(default_factory=dict)

    def enter(self, name: str, shape: tuple[int, ...], own: Range) -> None:
        """Begin with an input."""
        self.inputs.append(Input(name, TensorType(shape)))
        self.types[name] = self.inputs[0].type
        self.ranges[name] = own

    def add(self, name: str, op: Op, inputs: Sequence[str], own: Range | None = None) -> Node:
        """Add a node; its value is kept with a range, if it has one."""
        types = tuple(self.types[value] for value in inputs)
        node = make_node(name, op, tuple(inputs), types)
        if node is None:
            raise UnspokenError
        self.nodes.append(node)
        self.types[name] = node.type
        if own:
            self.ranges[name] = own
        return node

    def conv(self, name: str, op: Conv, source: str, x: float, own: RoundedWeights) -> None:
        """Add a convolution of integer weights, whose input has the scale `x`."""
        node = self.add(name, replace(op, bias=True), [source])
        real = own.weight * own.scale.reshape(-1, 1, 1, 1)
        bias = own.bias * (np.float32(x) * own.scale)
        values = (real.astype(np.float32), bias.astype(np.float32))
        self.weights.update(zip(node.params, values, strict=True))
        self.rounded[name] = own


def _range(kind: TensorType) -> Range:
    if kind.scale is None:
        raise UnspokenError
    return Range(kind.scale, kind.dtype is DType.I8)


def enter(
    made: SpokenLayer, graph: Graph, ends: Sequence[str], right: Mapping[str, Array]
) -> Array:
    """Add the input of a layer, or parts of one; return the tensor that goes in."""
    kinds = [graph.types[value] for value in ends]
    if len(ends) == 1:
        made.enter(made.said[ends[0]], kinds[0].shape, _range(kinds[0]))
        scale = np.float32(kinds[0].scale or 0)
        return np.asarray(right[ends[0]].astype(np.float32) * scale)
    # A calibration is of one input: several values lie side by side as its channels.
    if {len(kind.shape) for kind in kinds} != {3}:
        raise UnspokenError
    height, width = (max(kind.shape[axis] for kind in kinds) for axis in (1, 2))
    plain = Range(1.0, signed=False)
    made.enter("parts", (sum(kind.shape[0] for kind in kinds), height, width), plain)
    rows, start = [], 0
    for index, (value, kind) in enumerate(zip(ends, kinds, strict=True)):
        own, channels = _range(kind), kind.shape[0]
        if kind.shape[1:] not in ((1, 1), (height, width)):
            raise UnspokenError
        part = f"part_{index}"
        made.add(part, Slice(start, start + channels), ["parts"], plain)
        # A value that is broadcast stands in every pixel of its part, and is pooled to one again.
        if kind.shape[1:] != (height, width):
            made.add(f"{part}_pool", GlobalMaxPool(), [part], plain)
            part = f"{part}_pool"
        # All parts are unsigned: the bias takes off what was added.
        offset = OFFSET if own.signed else 0
        integers = RoundedWeights(
            np.ones((channels, 1, 1, 1), np.int8),
            np.full(channels, own.scale, np.float32),
            np.full(channels, -offset, np.int32),
        )
        made.conv(made.said[value], Conv(channels, (1, 1), groups=channels), part, 1.0, integers)
        made.ranges[made.said[value]] = own
        levels = right[value].astype(np.float32) + np.float32(offset)
        rows.append(np.broadcast_to(levels, (channels, height, width)))
        start += channels
    return np.concatenate(rows)


def place(made: SpokenLayer, program: Model, node: Node) -> None:
    """Add the float form of an integer node, and its clamp."""
    own, op = _range(node.type), node.op
    clamp = _clamp(op, own) if isinstance(op, Quantized) else None
    last, inputs = made.said[node.name], [made.said[value] for value in node.inputs]
    name = f"{last}_sum" if clamp else last
    if isinstance(op, QConv):
        weight, scale, bias = (program.weights[param] for param in node.params)
        x = program.graph.types[node.inputs[0]].scale or 0
        made.conv(name, op.conv, inputs[0], x, RoundedWeights(weight, scale, bias))
    else:
        made.add(name, _word(op, own), inputs)
    if clamp:
        made.add(last, clamp, [name])
    made.ranges[last] = own


def _word(op: Op, own: Range) -> Op:  # noqa: PLR0911 - one a kind
    """Return the float operation that an integer one stands for."""
    match op:
        case Table():
            return op.function
        case QAvgPool():
            return op.pool
        case QGlobalAvgPool():
            return GlobalAvgPool()
        case QAdd():
            return Add()
        case QMul():
            return Mul()
        case QPad() if len(set(op.levels)) == 1:
            return Pad(op.padding, op.levels[0] * own.scale)
        case _ if op.moves:
            return op
        case _:
            raise UnspokenError


def _clamp(op: Quantized, own: Range) -> Op | None:
    """Return the activation that narrowed the levels of an operation, if one did."""
    low, high = own.limits
    if (op.low, op.high) == (low, high):
        return None
    if op.high == high and op.low == 0:
        return Relu()
    if op.low == max(low, 0) and op.high == min(high, int(np.rint(6 / np.float64(own.scale)))):
        return Relu6()
    raise UnspokenError
