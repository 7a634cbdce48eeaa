"""The integer program as tools expect it: float operations between integers and floats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ir.rewrite import eliminate_dead
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.small_weights import Dequantized
from tcc.compiler.ops import Add, GlobalAvgPool, Mul, Op, Pad, Relu, Relu6
from tcc.compiler.ops.integer import (
    Dequantize,
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    Quantize,
    Quantized,
    RealConv,
    RealGlobalAvgPool,
    Table,
)
from tcc.compiler.ops.internal import Border
from tcc.compiler.support.diagnostics import UnhandledError

Tensors = Mapping[str, NDArray[Any]]
EDGES: tuple[type[Op], ...] = (Quantize, Dequantize)
PLAIN: tuple[type[Op], ...] = (*EDGES, QGlobalAvgPool, RealGlobalAvgPool)
"""What stays as it is. Runtimes round a global mean of floats in other ways than its definition."""


def simulated(model: Model, *, plain: bool = True) -> Model:
    """Return the integer program in floats: each operation between `dequantize` and `quantize`.

    Weights stay integers, with scales: the form that other makers' tools build from. Results are
    those of the integer program where a runtime makes one of it again, and within a level of them
    elsewhere, since floats round otherwise.

    Args:
        model: The integer program.
        plain: Leave global means in integers, as they are defined. Without it nothing but
            `quantize` and `dequantize` has integers, for tools that know no other.
    """
    work = _Work(model, PLAIN if plain else EDGES)
    for node in model.graph.nodes:
        work.place(node)
    graph = model.graph
    made = Graph(graph.name, graph.inputs, tuple(work.nodes.values()), graph.outputs)
    return eliminate_dead(Model(verify(made), work.weights))


@dataclass
class _Work:
    """The model in the making: its nodes and weights so far."""

    model: Model
    kept: tuple[type[Op], ...]
    nodes: dict[str, Node] = field(default_factory=dict)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.types = {source.name: source.type for source in self.model.graph.inputs}

    def place(self, node: Node) -> None:
        """Add what a node becomes."""
        types = self.model.graph.input_types(node)
        own = {name: self.model.weights[name] for name in node.params}
        kept = isinstance(node.op, self.kept)
        # What has floats on all sides is no operation on integers: `--mixed` left it so.
        if kept or all(kind.dtype is DType.F32 for kind in (*types, node.type)):
            self.add(node, node.name, node.op, node.inputs, own)
            return
        op, tensors = _float(node, types, own)
        inputs = tuple(self.real(node, value) for value in node.inputs)
        if node.type.dtype is DType.F32:
            self.add(node, node.name, op, inputs, tensors)
            return
        # The value keeps its name at the end of the chain, where its integers are: both forms can
        # be compared value by value.
        last = self.add(node, f"{node.name}:float", op, inputs, tensors)
        clamp = _clamp(node)
        if clamp:
            last = self.add(node, f"{node.name}:clamp", clamp, (last,), {})
        y = node.type
        quantize = Quantize(float(y.scale or 0), y.dtype is DType.I8, *y.limits)
        self.add(node, node.name, quantize, (last,), {})

    def real(self, node: Node, value: str) -> str:
        """Return the name of a value's float form, which is made once."""
        name = f"{value}:dequantized"
        # Shared by all readers of the value. ONNX Runtime, whose fusions look for a
        # DequantizeLinear beside each operator, copies it for each
        # (ensure_unique_dq_for_node_unit.cc).
        if name not in self.nodes:
            self.add(node, name, Dequantize(), (value,), {})
        return name

    def add(
        self, origin: Node, name: str, op: Op, inputs: tuple[str, ...], tensors: Tensors
    ) -> str:
        """Add a node with its weights, and return its name."""
        kind = op.infer(*(self.types[value] for value in inputs))
        self.nodes[name] = Node(name, op, inputs, tuple(tensors), kind, origin.at)
        self.types[name] = kind
        self.weights |= tensors
        return name


def _float(  # noqa: C901, PLR0911 - a case an operation
    node: Node, types: tuple[TensorType, ...], own: Tensors
) -> tuple[Op, Tensors]:
    """Return the float operation that an integer one stands for, with its weights."""
    match node.op:
        case QConv(conv=conv):
            (weight, levels), (scale, steps), (bias, sums) = own.items()
            # A bias is int32 at the scale of the products, input's times filter's: the first
            # rounding of the integer program's factor
            # (docs/decisions/0002-scales-and-float32-order.md), and what QDQ tools ask of it.
            wide = np.float32(types[0].scale) * np.asarray(steps, np.float32)
            return Dequantized(conv), {
                weight: levels,
                scale: steps,
                bias: sums,
                f"{bias}.scale": wide,
            }
        case RealConv(conv=conv):
            (weight, levels), (factor, wide), (bias, sums) = own.items()
            # A real end has only the scale of its products; a filter's own is that without the
            # input's.
            steps = np.asarray(wide, np.float32) / np.float32(types[0].scale)
            return Dequantized(conv), {
                weight: levels,
                f"{weight}.scale": steps,
                bias: sums,
                factor: wide,
            }
        case QAdd():
            return Add(), {}
        case QMul():
            return Mul(), {}
        case QAvgPool(pool=pool):
            return pool, {}
        case QGlobalAvgPool() | RealGlobalAvgPool():
            return GlobalAvgPool(), {}
        case QPad(padding=padding, levels=levels):
            # Borders were rounded to levels; their real values are what these mean, not what the
            # spec had.
            values = tuple(level * float(types[0].scale or 0) for level in levels)
            # Borders that differ may round to one level: tools are given one Pad where that is so.
            return (
                Pad(padding, values[0]) if len(set(values)) == 1 else Border(padding, values)
            ), {}
        case Table(function=function):
            return function, {}
        case Quantized() as op:
            raise UnhandledError("integer operation", op.word)
        case op:  # only moves numbers
            return op, own


def _clamp(node: Node) -> Op | None:
    """Return the activation that an operation's narrower bounds are."""
    if not isinstance(node.op, Quantized):
        return None
    low, high = node.type.limits
    # A clamp of levels comes from a relu6 if it lowers the top, else from a relu.
    if node.op.high < high:
        return Relu6()
    return Relu() if node.op.low > low else None
